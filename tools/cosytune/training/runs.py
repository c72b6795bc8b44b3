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
    former = _identity(directory)
    if directory.exists() and (start_over or former != identity):
        aside = _free_name(directory)
        directory.rename(aside)
        reason = "asked to start over" if start_over else _difference(former, identity)
        print(f"{directory.name}: the former run was moved to {aside.name}: {reason}")
    if not directory.exists():
        made = directory.with_name(f".{directory.name}.new")  # a directory without identity would be nobody's
        files.write_json(made / RUN, identity)
        made.rename(directory)
        files.fsync(directory.parent)


def _difference(former: Any, identity: Mapping[str, Any]) -> str:
    """Why it cannot be gone on with, in a few words."""
    if not isinstance(former, dict):
        return f"it has no {RUN} that says how it was made"
    settings = _changed(former, identity, "settings")
    if settings:
        return "; ".join(f"{key} was {was!r}, is {now!r}" for key, (was, now) in settings.items())
    files_changed = _changed(former, identity, "inputs")
    return f"{', '.join(files_changed)} changed" if files_changed else "it was made by another version"


def _changed(former: Mapping[str, Any], identity: Mapping[str, Any], part: str) -> dict[str, tuple[Any, Any]]:
    before, now = former.get(part) or {}, identity.get(part) or {}
    keys = sorted(before.keys() | now.keys())
    return {key: (before.get(key), now.get(key)) for key in keys if before.get(key) != now.get(key)}


def _identity(directory: Path) -> Any:
    try:
        return files.read_json(directory / RUN)
    except (FileNotFoundError, ValueError):
        return None  # not ours to go on from


def _free_name(directory: Path) -> Path:
    names = (directory.with_name(f"{directory.name}.old-{number}") for number in range(1, 10**6))
    return next(name for name in names if not name.exists())
