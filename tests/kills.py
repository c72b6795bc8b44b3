"""kill -9 for a whole run, whatever process groups it has made, and what a recipe holds, to be compared with another's.

What may differ between two runs of the same recipe: the place where it lies, logs, TensorBoard's files and, in the
records of finished stages, the times at which files were written; in a voice, the commit that made it, for somebody may
commit while this is at work.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cosytune.layout import ROOT

_DIFFERS = ("tensorboard", "train.log", "done")
_OF_THE_CODE: dict[str, dict[bytes, bytes]] = {
    "README.md": {rb"\| recipe \| [^|]+ \|": b""},
    "versions.json": {rb'"commit": [^,]+,\s+"changed": \w+': b""},
    "manifest.json": {rb'"(README.md|versions.json)": {[^}]+}': b""},
}


def start(command: Sequence[str | Path], output: Path) -> subprocess.Popen[bytes]:
    """A command in a session of its own, its output in a file."""
    with output.open("wb") as stream:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def kill(started: subprocess.Popen[bytes]) -> None:
    """SIGKILL for every process of its session, until none is left."""
    while alive := _session(started.pid):
        for pid in alive:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    started.wait()


def _session(leader: int) -> list[int]:
    """The processes that are not dead yet."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state not in "ZX":
                found.append(int(stat.parent.name))
    return found


def contents(recipe: Path, *copied_from: Path) -> dict[str, str]:
    """sha256 of every file below, with the places of the recipe and its model taken out; directories are named."""
    places = [str(place).encode() for one in (recipe, *copied_from) for place in {one, one.resolve()}]
    found = {}
    for path in recipe.rglob("*"):
        name = path.relative_to(recipe)
        if not set(_DIFFERS) & set(name.parts):
            found[str(name)] = _digest(path, places) if path.is_file() else "a directory"
    return found


def _digest(path: Path, places: Sequence[bytes]) -> str:
    data = path.read_bytes()
    for place in places:
        data = data.replace(place, b"RECIPE")
    for words, neutral in _OF_THE_CODE.get(path.name, {}).items():
        data = re.sub(words, neutral, data)
    return hashlib.sha256(data).hexdigest()


def differences(ours: dict[str, str], theirs: dict[str, str]) -> list[str]:
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
