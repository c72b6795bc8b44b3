"""What tests/recipe/test_launching.py leaves out because each case takes most of a minute."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cosytune.layout import Layout
from cosytune.training import checkpoint
from recipe import test_launching as launching
from recipe.test_launching import ENDLESS, Started, descendants, layout, run_sh, start, trains  # noqa: F401 - fixtures
from unit.conftest import training_features  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow


def test_sigterm_to_run_sh_with_one_process(layout: Layout, start: Callable[..., Started]) -> None:  # noqa: F811
    launching.test_sigterm_to_run_sh_saves_and_the_same_command_goes_on(layout, start, 1)


def test_run_sh_with_two_ranks_as_pid_1_of_a_container(
    layout: Layout,  # noqa: F811
    start: Callable[..., Started],  # noqa: F811
) -> None:
    launching.test_run_sh_as_pid_1_of_a_container(layout, start, 2)


def test_a_signal_before_two_ranks_begin(layout: Layout, start: Callable[..., Started]) -> None:  # noqa: F811
    launching.test_a_signal_before_training_begins_is_a_stop_too(layout, start, 2)


def test_one_module_fails_the_other_one_saves(layout: Layout, start: Callable[..., Started]) -> None:  # noqa: F811
    both = ["train.mode=joint", "train.side_by_side=true", *ENDLESS]
    started = start(*run_sh(layout, *both))
    started.wait_until(lambda: trains(layout)() and trains(layout, "flow")())
    flow = _pid(descendants(started.process.pid), "flow")
    os.kill(flow, signal.SIGKILL)
    assert started.end() == 1, started.output
    (error,) = [line for line in started.output.splitlines() if line.startswith("error: ")]
    assert error.startswith("error: flow was killed by SIGKILL")
    assert checkpoint.find(layout.module("llm"))[-1].update >= 1


def _pid(pids: Sequence[int], module: str) -> int:
    end = f"\0{module}\0".encode()
    (found,) = [pid for pid in pids if Path(f"/proc/{pid}/cmdline").read_bytes().endswith(end)]
    return found
