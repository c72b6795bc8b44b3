"""A config and this machine -> what a voice was made from: commits, lock, libraries, settings, the base's hashes."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from cosytune import base, families, files, text
from cosytune.base import manifest
from cosytune.layout import LOCK, ROOT
from cosytune.schema import Config

_LIBRARIES = ("torch", "transformers", "peft", "accelerate", "onnxruntime-gpu", "numpy", "safetensors")


def versions(config: Config, speaker: str, model_dir: Path) -> dict[str, Any]:
    """The content of versions.json. No host name and no path of this machine is in it: a voice is given away."""
    family, made = families.get(config.model), manifest.read(model_dir)
    return {
        "format": 1,
        "speaker": speaker,
        "language": config.language,
        "family": family.name,
        "base": {
            "name": model_dir.name,
            "random_weights": made is not None and made["base"] != "tiny",
            "weights": made["weights"] if made else None,
            "files": base.hashes(model_dir),
        },
        "text": {
            "normalizer": text.NORMALIZER,
            "language": config.language,
            "script": manifest.script(model_dir, family, config.language),
        },
        "recipe": recipe(),
        "upstream": {"commit": family.upstream_commit},
        "lock_sha256": files.sha256(LOCK),
        "python": platform.python_version(),
        "libraries": {name: importlib.metadata.version(name) for name in _LIBRARIES},
        "config": _without_paths(config),
    }


def recipe() -> dict[str, Any]:
    """The commit of this repository and whether tracked files differ from it; `unknown` outside of git."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {"commit": "unknown (not a git checkout)", "changed": False}
    return {"commit": commit, "changed": bool(_git("status", "--porcelain", "--untracked-files=no"))}


def machine() -> str:
    """The kind of machine, without its name: `Linux x86_64, 2 CPU cores, no GPU`."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{platform.system()} {platform.machine()}, {cores} CPU cores, {gpu}"


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _without_paths(config: Config) -> dict[str, Any]:
    """The settings, with the last part alone of what is a path on this machine."""
    values: dict[str, Any] = config.model_dump(mode="json")
    for section, key in ((values, "model_dir"), (values["upstream"], "path")):
        if section[key] is not None:
            section[key] = Path(section[key]).name
    return values
