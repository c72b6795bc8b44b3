"""exp/<name>/<module>: is it this run's own, to go on from, or another's, to be kept out of the way?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cosytune import files

RUN = "run.json"


def settle(directory: Path, identity: Mapping[str, Any], start_over: bool) -> None:
    """Make `directory` this run's own. One of another identity, or any if `start_over`, is moved to `<name>.old-N`.

    `identity`: whatever changes the adapters: settings and the sha256 of the features and of the base's weights.
    """
    if directory.exists() and (start_over or _identity(directory) != identity):
        aside = _free_name(directory)
        directory.rename(aside)
        print(f"{directory.name}: the former run was moved to {aside.name}")
    if not directory.exists():
        made = directory.with_name(f".{directory.name}.new")  # a directory without identity would be nobody's
        files.write_json(made / RUN, identity)
        made.rename(directory)
        files.fsync(directory.parent)


def _identity(directory: Path) -> Any:
    try:
        return files.read_json(directory / RUN)
    except (FileNotFoundError, ValueError):
        return None  # not ours to go on from


def _free_name(directory: Path) -> Path:
    names = (directory.with_name(f"{directory.name}.old-{number}") for number in range(1, 10**6))
    return next(name for name in names if not name.exists())
