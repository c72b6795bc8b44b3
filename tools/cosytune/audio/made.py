"""A recipe that makes its own recordings: `local/make_audio.py` -> audio/, before anything reads it.

The script is called as `python local/make_audio.py DIRECTORY` and fills the empty directory. Only files that came from
it are ever replaced or removed; an audio/ with anything else in it is the user's and is left alone.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cosytune import files
from cosytune.errors import UserError
from cosytune.layout import Layout

_STAMP = ".made_by_local.json"
_WORKING = ".audio."


@dataclass(frozen=True)
class _Stamp:
    """`recipe_hash`: of all files in local/. `made`: relative path -> every sha256 that it may have while it is ours.
    `complete`: all of them were moved in.
    """

    recipe_hash: str
    made: dict[str, list[str]]
    complete: bool

    @classmethod
    def read(cls, audio: Path) -> _Stamp | None:
        path = audio / _STAMP
        return cls(**files.read_json(path)) if path.is_file() else None

    def write(self, audio: Path) -> None:
        files.write_json(audio / _STAMP, vars(self))


def ensure_audio(layout: Layout) -> None:
    """Make the recordings if the recipe has a script for it and they are missing or made by another version of it."""
    script = layout.recipe / "local" / "make_audio.py"
    if not script.is_file():
        return
    stamp = _Stamp.read(layout.audio)
    recipe_hash = _hash(script.parent)
    if stamp is None and _visible_files(layout.audio):
        return
    if stamp is not None and stamp.complete and stamp.recipe_hash == recipe_hash:
        return
    print(f"making the recordings with {script.relative_to(layout.recipe)}")
    for left in layout.recipe.glob(f"{_WORKING}*"):  # of a run that was killed: nobody else is at work
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=layout.recipe, prefix=_WORKING) as directory:
        fresh = Path(directory)
        status = subprocess.run([sys.executable, str(script), str(fresh)]).returncode
        if status != 0:
            raise UserError(f"{script}: failed with exit status {status}; its own words stand above")
        _move_in(fresh, layout.audio, stamp, recipe_hash)


def _move_in(fresh: Path, audio: Path, former: _Stamp | None, recipe_hash: str) -> None:
    """The stamp is written first: if this is interrupted, the next run knows which files are not the user's."""
    before = former.made if former else {}
    made = {path.relative_to(fresh).as_posix(): [files.sha256(path)] for path in _visible_files(fresh)}
    ours = {name: before.get(name, []) + made.get(name, []) for name in before | made}
    _Stamp(recipe_hash, ours, complete=False).write(audio)
    for name, digests in ours.items():
        target = audio / name
        if target.exists() and files.sha256(target) not in digests:
            continue  # the user changed it; it is the user's now
        if name in made:
            target.parent.mkdir(parents=True, exist_ok=True)
            (fresh / name).replace(target)
        else:
            target.unlink(missing_ok=True)
    _Stamp(recipe_hash, made, complete=True).write(audio)


def _visible_files(directory: Path) -> list[Path]:
    found = directory.rglob("*") if directory.is_dir() else ()
    return sorted(path for path in found if path.is_file() and not path.name.startswith("."))


def _hash(local: Path) -> str:
    digest = hashlib.sha256()
    for path in _visible_files(local):
        if path.suffix != ".pyc":
            digest.update(f"{path.relative_to(local).as_posix()}\0{files.sha256(path)}\n".encode())
    return digest.hexdigest()
