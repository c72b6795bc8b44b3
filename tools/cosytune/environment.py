"""requirements.lock and what is installed -> every difference and every package that does not import.

    python -m cosytune.environment      # the last step of tools/install.sh; the doctor shows the same

Exit status 1 and one line per fault when the environment is not the lock's.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import re
import warnings
from pathlib import Path

from packaging.utils import canonicalize_name

from cosytune.errors import UserError, run_main
from cosytune.layout import LOCK, ROOT

IS_WHOLE = ROOT / "requirements.lock" == LOCK
"""False where COSYTUNE_LOCK names another one, as in the slim image: then nothing is to be missed that it lacks."""
REMEDY = "install the lock's set with: rm .venv/requirements.lock.sha256 && tools/install.sh"

# What the stages import. torch comes first: it makes the CUDA libraries known that onnxruntime looks for.
MODULES = (
    *("torch", "torchaudio", "onnx", "onnxruntime", "transformers", "peft", "accelerate", "diffusers", "safetensors"),
    *("hyperpyyaml", "omegaconf", "hydra", "conformer", "x_transformers", "lightning", "whisper", "librosa", "pyworld"),
    *("soundfile", "sox", "pyloudnorm", "wetext", "inflect", "gdown", "wget", "modelscope", "seaborn", "matplotlib"),
    *("rich", "pyarrow", "yaml", "pydantic", "tensorboard", "pyopenjtalk", "jinja2", "s3tokenizer", "bitsandbytes"),
    *("soxr", "rapidfuzz", "starlette", "uvicorn"),
    *("torchvision", "torchcodec", "deepspeed", "silero_vad", "whisperx", "selenium", "pytest", "filelock", "pydub"),
    *("submitit", "cyclonedx"),
)


def locked(lock: Path = LOCK) -> dict[str, str]:
    """Canonical name -> version of every requirement in the lock."""
    pairs = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {canonicalize_name(name): version for name, version in pairs}


def installed() -> dict[str, str]:
    """Canonical name -> version of every distribution that this interpreter sees."""
    return {canonicalize_name(found.name): found.version for found in importlib.metadata.distributions()}


def differences(lock: Path = LOCK) -> list[str]:
    """Lines such as `peft: 0.21.2 is locked, 0.20.0 is installed`; what is installed beside the lock is no fault."""
    have = installed()
    return [
        f"{name}: {version} is locked, {have.get(name, 'nothing')} is installed"
        for name, version in sorted(locked(lock).items())
        if have.get(name) != version
    ]


def import_failures(modules: tuple[str, ...] = MODULES) -> list[str]:
    """Lines such as `torchcodec: OSError: libavutil.so: cannot open`."""
    failures = []
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as failure:  # whatever a broken package raises is the finding
            reason = str(failure).strip().splitlines()
            failures.append(f"{module}: {type(failure).__name__}: {reason[0] if reason else ''}")
    return failures


def main() -> int:
    warnings.simplefilter("ignore")  # what a package has to say of a machine without a GPU is no fault of the lock
    logging.disable(logging.WARNING)
    modules = MODULES if IS_WHOLE else tuple(filter(importlib.metadata.packages_distributions().get, MODULES))
    faults = differences() or import_failures(modules)
    if faults:
        raise UserError(*faults, REMEDY)
    print(f"{len(locked())} packages as locked, {len(modules)} of them imported")
    return 0


if __name__ == "__main__":
    run_main(main)
