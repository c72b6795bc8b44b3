"""A fault at every write of a training run: it dies, the power goes, or the disk refuses; the next run mends it all.

The seam is Python's audit hook, which sees whatever Path.rename, Path.replace, write_bytes, mkstemp, rmtree and open
do to the files below the experiment, just before they do it; and os.fsync. After its death a run changes nothing
any more, so that no `finally` tidies up what a real kill -9 would leave. TensorBoard's files and train.log are logs.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosytune import files
from cosytune.errors import UserError, explain
from cosytune.training import checkpoint, curves, journal, runs, trainer
from cosytune.training.job import Job
from training_data import MakeJob, history

SETTINGS = {"num_train_epochs": 2, "save_steps": 3, "save_total_limit": 1}
_LOGS = ("tensorboard", "train.log")
_PATHS = {"open": ((0, None),), "os.mkdir": ((0, 2),), "os.remove": ((0, 1),), "os.rmdir": ((0, 1),)} | {
    "os.rename": ((0, 2), (1, 3))
}
"""Of each event the places, in its arguments, of a path and of the descriptor of the directory that it is in."""


CREATE = "create"
"""The mode of os.open, as mkstemp calls it: the bytes come later, by a name that is opened again."""


class Dead(BaseException):
    """As if the power had gone: nothing in the trainer answers it."""


@dataclass
class Disk:
    """The changes to the files below `directory`, each a point by its number, and what happens at the point `at`.

    how: "dies"; "power", which also loses what was not fsynced; or an errno that this one change ends with. An open
    for writing is two points: before it, and when half of the first bytes are on the disk.
    """

    directory: Path
    at: int = -1
    how: str | int = "dies"
    points: list[str] = field(default_factory=list)
    is_dead: bool = False
    unsynced: dict[Path, int] = field(default_factory=dict)
    """Files with bytes that only memory holds, and how many of each are safe."""

    def change(self, kind: str, paths: Sequence[Path], mode: str = "") -> None:
        if self.is_dead:
            raise Dead
        name = f"{kind} {paths[-1].relative_to(self.directory)}"
        self._point(name, paths[-1])
        if kind == "open":
            if mode != CREATE:
                self._point(f"half of {name}", paths[-1], half="ab" if "a" in mode else "wb")
            is_new = "a" not in mode or not paths[0].exists()
            self.unsynced.setdefault(paths[0], 0 if is_new else paths[0].stat().st_size)
        if kind == "os.rename":
            moved = {path: size for path, size in self.unsynced.items() if path.is_relative_to(paths[0])}
            for path, size in moved.items():
                del self.unsynced[path]
                self.unsynced[paths[1] / path.relative_to(paths[0])] = size

    def synced(self, path: Path) -> None:
        self.unsynced.pop(path, None)

    def _point(self, name: str, path: Path, half: str = "") -> None:
        self.points.append(name)
        if len(self.points) - 1 != self.at:
            return
        if isinstance(self.how, int):
            named = () if name.startswith("fsync") else (str(path),)  # fsync knows no names
            raise OSError(self.how, os.strerror(self.how), *named)
        if half:
            with path.open(half) as stream:
                stream.write(b'{"update": 1')
        if self.how == "power":
            self._lose_memory(path if half else None)
        self.is_dead = True
        raise Dead

    def _lose_memory(self, half: Path | None) -> None:
        for path, size in self.unsynced.items():
            if path.is_file() and path != half:
                os.truncate(path, size)


_disk: Disk | None = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    global _disk
    if (disk := _disk) is None or event not in _PATHS:
        return
    if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
        return
    paths = [_place(arguments[at], None if fd is None else arguments[fd]) for at, fd in _PATHS[event]]
    paths = [path for path in paths if path and path.is_relative_to(disk.directory) and not set(_LOGS) & {*path.parts}]
    if paths:
        _disk = None  # what the fault itself does to the files is no point
        try:
            if _changes_something(event, paths[0]):
                disk.change(event, paths, arguments[1] or CREATE if event == "open" else "")
        finally:
            _disk = disk


def _changes_something(event: str, path: Path) -> bool:
    """Not a directory that is there already, nor a temporary file that was renamed."""
    return path.exists() == (event != "os.mkdir") or event == "open"


def _place(path: Any, directory: int | None) -> Path | None:
    if isinstance(path, int):
        return None
    inside = Path(f"/proc/self/fd/{directory}").readlink() if directory not in (None, -1) else Path()
    return (inside / os.fsdecode(path)).absolute()


@pytest.fixture(scope="module", autouse=True)
def _hook() -> None:
    sys.addaudithook(_audit)  # for good: Python takes none back, so that it looks at `_disk` first


@contextmanager
def watched(disk: Disk) -> Iterator[Disk]:
    """What the block does to the disk, as a process of its own would."""
    global _disk
    fsync = os.fsync

    def watched_fsync(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        if path.is_relative_to(disk.directory):
            disk.change("fsync", [path])
        fsync(handle)
        disk.synced(path)

    disk.directory.mkdir(parents=True, exist_ok=True)
    files._swept.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", watched_fsync)
        _disk = disk
        try:
            yield disk
        finally:
            _disk = None


@pytest.fixture(autouse=True)
def _sketch(monkeypatch: pytest.MonkeyPatch) -> None:
    """curves.png is written at every evaluation, but not drawn, which takes longer than the training does."""
    monkeypatch.setattr(journal, "_DRAWING_SHARE", math.inf)
    monkeypatch.setattr(curves, "draw", lambda exp_dir: files.write_bytes(exp_dir / curves.PICTURE, b"a picture"))


Train = Callable[[str], None]


@pytest.fixture
def train(job: MakeJob) -> Train:
    return lambda name: trainer.train(make(job, name)) and None


def make(job: MakeJob, name: str) -> Job:
    return replace(job("llm", f"{name}/llm", **SETTINGS), listen=_listen)


def _listen(_: Any, update: int, notes: Any, should_stop: Callable[[], bool]) -> None:
    """What the samples' files need, without the time that a real one takes."""
    for name in ("1", "2"):
        notes.sample(update, name, np.zeros((20, 80), np.float32), np.full(9600, update / 100, np.float32), 24000)


@pytest.fixture
def through(job: MakeJob, tmp_path: Path) -> tuple[dict[str, str], list[str]]:
    """What an uninterrupted run leaves, and the points of its way."""
    run = make(job, "through")
    with watched(Disk(tmp_path / "through")) as disk:
        trainer.train(run)
    assert len(history(run)) >= 8
    return left(tmp_path / "through"), disk.points


def left(exp_dir: Path) -> dict[str, str]:
    """sha256 of all files but logs, and the names of directories."""
    found = {
        str(path.relative_to(exp_dir)): files.sha256(path) if path.is_file() else "a directory"
        for path in exp_dir.rglob("*")
    }
    return {name: what for name, what in found.items() if not any(log in name for log in _LOGS)}


def place(points: Sequence[str], end: str) -> int:
    """The number of the first point that ends so."""
    return next(number for number, point in enumerate(points) if point.endswith(end))


def to_die_at(points: Sequence[str]) -> list[int]:
    """All points of the first epoch's end, a fifth of the others; an fsync changes nothing for who only dies."""
    border = range(place(points, "os.rename llm/checkpoint-000003"), place(points, "checkpoint-000006.tmp"))
    return [n for n, point in enumerate(points) if (n in border or n % 5 == 0) and not point.startswith("fsync")]


def to_lose_power_at(points: Sequence[str]) -> list[int]:
    """Where something was just written, or gets its name."""
    border = range(place(points, "os.rename llm/checkpoint-000003"), place(points, "checkpoint-000006.tmp"))
    return [
        n for n, point in enumerate(points) if point.startswith(("fsync", "os.rename")) and (n in border or n % 5 == 0)
    ]


@pytest.mark.parametrize(("how", "choose"), [("dies", to_die_at), ("power", to_lose_power_at)])
def test_a_run_that_dies_at_any_write_is_made_good_by_the_next(
    how: str,
    choose: Callable[[Sequence[str]], list[int]],
    train: Train,
    through: tuple[dict[str, str], list[str]],
    tmp_path: Path,
) -> None:
    whole, points = through
    wrong = []
    for number in choose(points):
        exp_dir = tmp_path / str(number)
        with watched(Disk(exp_dir, at=number, how=how)), pytest.raises(Dead):
            train(exp_dir.name)
        _, faults = checkpoint.inspect(exp_dir / "llm")
        with watched(Disk(exp_dir)):
            train(exp_dir.name)
        if faults or left(exp_dir) != whole:
            wrong.append(f"{number}, {points[number]}: {faults or differences(left(exp_dir), whole)}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("how", ["dies", "power"])
def test_a_run_that_dies_before_it_has_begun_leaves_nothing(how: str, tmp_path: Path) -> None:
    with watched(Disk(tmp_path / "through")) as disk:
        runs.settle(tmp_path / "through" / "llm", {"seed": 1}, start_over=False)
    assert len(disk.points) > 5
    for number in range(len(disk.points)):
        exp_dir = tmp_path / str(number)
        with watched(Disk(exp_dir, at=number, how=how)), pytest.raises(Dead):
            runs.settle(exp_dir / "llm", {"seed": 1}, start_over=False)
        with watched(Disk(exp_dir)):
            runs.settle(exp_dir / "llm", {"seed": 1}, start_over=False)
        assert left(exp_dir) == left(tmp_path / "through"), disk.points[number]


def differences(ours: dict[str, str], theirs: dict[str, str]) -> list[str]:
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_disk_that_refuses_costs_no_former_checkpoint(
    number: int, train: Train, through: tuple[dict[str, str], list[str]], tmp_path: Path
) -> None:
    """At each write of the last checkpoint, and as the former ones go."""
    whole, points = through
    with watched(Disk(tmp_path / "half", at=place(points, "checkpoint-000008.tmp"))), pytest.raises(Dead):
        train("half")
    shutil.copytree(tmp_path / "half", tmp_path / "seen")
    with watched(Disk(tmp_path / "seen")) as seen:
        train("seen")
    begin = place(seen.points, "checkpoint-000008.tmp")
    assert len(seen.points) - begin > 20
    for at in range(begin, len(seen.points)):
        if number == errno.EACCES and seen.points[at].startswith(("half", "fsync")):
            continue  # rights are asked for when a file is opened
        exp_dir = shutil.copytree(tmp_path / "half", tmp_path / str(at))
        with watched(Disk(exp_dir, at=at, how=number)), pytest.raises((UserError, OSError)) as caught:
            train(exp_dir.name)
        said = str(caught.value) if isinstance(caught.value, UserError) else explain(caught.value)
        assert said, seen.points[at]
        assert str(exp_dir) in said
        assert ("no disk space left" if number == errno.ENOSPC else "permission denied") in said
        sound, faults = checkpoint.inspect(exp_dir / "llm")
        assert not faults, seen.points[at]
        assert sound, seen.points[at]
        with watched(Disk(exp_dir)):
            train(exp_dir.name)
        assert left(exp_dir) == whole, seen.points[at]
