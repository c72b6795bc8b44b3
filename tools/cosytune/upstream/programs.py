"""git and uv as subprocesses: their output, or a UserError with what they complained about."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cosytune import pip_settings
from cosytune.errors import UserError


def git(directory: Path, *arguments: str, settings: bool = True) -> bytes:
    """Run git in `directory`; its stdout.

    `settings=False`: without the user's settings and without a repository around the directory, where bytes count.
    """
    environment = {key: value for key, value in os.environ.items() if key not in _REPOSITORY}
    environment |= {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}  # an address that asks for a password fails at once
    if not settings:
        environment = {key: value for key, value in environment.items() if not key.startswith("GIT_")} | {
            "GIT_CEILING_DIRECTORIES": str(directory.resolve().parent),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
        }
    return _run("git", ["git", "-C", str(directory), *arguments], environment)


def uv(*arguments: str) -> bytes:
    """Run the uv of this environment, with what pip is told about mirrors and certificates; its stdout."""
    return _run("uv", [sys.executable, "-m", "uv", *arguments], {**os.environ, **pip_settings.for_uv()})


_REPOSITORY = ("GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX")
"""Set by a git that called us (a hook, an alias), for its own repository."""


def _run(program: str, command: Sequence[str], environment: Mapping[str, str]) -> bytes:
    try:
        return subprocess.run(command, check=True, capture_output=True, env=environment).stdout
    except FileNotFoundError:
        raise UserError(f"{program}: not found; sudo apt-get install {program}") from None
    except subprocess.CalledProcessError as failure:
        complaint = " ".join(failure.stderr.decode(errors="replace").split())
        raise UserError(f"{program}: {complaint[-400:] or failure}") from None
