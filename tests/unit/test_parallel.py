"""The worker processes of stage 0: they go when the stage is killed, and a killed worker is no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cosytune.errors import UserError
from cosytune.layout import ROOT
from cosytune.parallel import Workers


def _die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _children(pid: int) -> list[int]:
    """Worker processes of `pid`, from /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if parent == pid:
            found.append(int(stat.parent.name))
    return found


def _wait_until(condition: Callable[[], object], what: str) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(what)


def test_results_come_in_order_as_they_are_asked_for() -> None:
    with Workers(2) as workers:
        assert list(workers.map(abs, list(range(-20, 20)), "testing", "number")) == [abs(n) for n in range(-20, 20)]
        assert next(workers.map(abs, [-1] * 10_000, "testing", "number")) == 1
        assert list(workers.map(abs, [], "testing", "number")) == []


def test_a_killed_worker_is_an_error_with_a_remedy() -> None:
    with (
        pytest.raises(UserError, match="worker processes was killed, most likely for lack of memory"),
        Workers(2) as it,
    ):
        list(it.map(_die, [1, 2, 3], "testing", "number"))


def test_workers_go_when_the_stage_is_killed() -> None:
    code = (
        "import time; from cosytune.parallel import Workers\n"
        "with Workers(2) as workers: list(workers.map(time.sleep, [60, 60], 'testing', 'nap'))"
    )
    stage = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tools")},
        stderr=subprocess.DEVNULL,
    )
    _wait_until(lambda: _children(stage.pid), "no worker came")
    workers = _children(stage.pid)
    time.sleep(0.5)  # a worker's first act is to ask for the parent's death; killing before it would test nothing
    stage.kill()
    stage.wait()
    _wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), f"{workers} are still there")
