"""Stage 4 on two nodes: two launchers that meet on loopback, and tasks of a real Slurm; the losses of one process."""

# ruff: noqa: F811 - fixtures of other files
from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cosytune.layout import ROOT, Layout
from cosytune.training import checkpoint
from recipe.test_launching import STAGE_4, Started, descendants, layout, run_sh, start, trains  # noqa: F401 - fixtures
from slurm_cluster import Cluster, slurm_cluster  # noqa: F401 - a fixture
from unit.conftest import training_features  # noqa: F401 - a fixture

Start = Callable[..., Started]
SHORT = ("train.llm.max_steps=4", "train.llm.num_train_epochs=4", "train.llm.logging_steps=1")
ENDLESS = ("train.llm.num_train_epochs=1000", "train.llm.early_stopping_patience=1000", "train.llm.logging_steps=1")


def port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def meeting(*more: str) -> tuple[str, ...]:
    """The settings of both nodes."""
    at = f"train.rdzv_endpoint=127.0.0.1:{port()}"
    return ("train.launcher=torchrun", "train.num_nodes=2", "train.num_processes=1", at, *more)


def losses(layout: Layout, kind: str = "train") -> list[float]:
    lines = (layout.module("llm") / "history.jsonl").read_text().splitlines()
    return [line["loss"] for line in map(json.loads, lines) if line["kind"] == kind]


@pytest.fixture
def alone(start: Start, layout: Layout) -> list[float]:
    """The losses of one process, and a recipe as before."""
    one = start(*run_sh(layout, *SHORT, "--exp", "alone"))
    assert one.end() == 0, one.output
    return losses(Layout(layout.recipe, "alone"))


def test_two_launchers_train_as_one_process_does(start: Start, layout: Layout, alone: list[float]) -> None:
    """By DDP and by DeepSpeed's ZeRO-2; a second --stage 4 trains anew, as on one machine."""
    assert len(alone) == 4
    for distributed, times in (("ddp", 2), ("deepspeed", 1)):
        settings = (*meeting(*SHORT, f"train.distributed={distributed}"), "--exp", distributed)
        for time_of_it in range(times):
            both = [start(*run_sh(layout, *settings)) for _ in range(2)]
            assert [node.end() for node in both] == [0, 0], "\n".join(node.output for node in both)
            assert losses(Layout(layout.recipe, distributed)) == pytest.approx(alone, rel=1e-4)
            assert sum("has finished it" in node.output for node in both) == 1
            if time_of_it == 0:
                assert sum("best: update" in node.output for node in both) == 1, "one of them speaks"


def test_a_node_that_is_stopped_stops_both_and_one_that_is_killed_is_told(start: Start, layout: Layout) -> None:
    settings = meeting(*ENDLESS)
    both = [start(*run_sh(layout, *settings)) for _ in range(2)]
    both[0].wait_until(trains(layout))
    both[1].process.send_signal(signal.SIGTERM)
    assert [node.end() for node in both] == [75, 75], "\n".join(node.output for node in both)
    newest = checkpoint.find(layout.module("llm"))[-1].update
    assert newest >= 1

    both = [start(*run_sh(layout, *settings)) for _ in range(2)]
    both[0].wait_until(lambda: len(losses(layout)) > newest + 3)
    assert sum(f"goes on from update {newest}" in node.output for node in both) == 1
    for pid in [*descendants(both[1].process.pid), both[1].process.pid]:  # as when its machine loses its power
        os.kill(pid, signal.SIGKILL)
    started_s = time.monotonic()
    assert both[0].end() not in (0, 75)
    assert time.monotonic() - started_s < 120
    assert "goes on from the newest checkpoint" in both[0].output
    assert "Traceback" not in both[0].output


def test_a_node_waits_for_the_others_for_as_long_as_it_was_told(start: Start, layout: Layout) -> None:
    settings = meeting("train.rdzv_timeout_s=5", *SHORT)
    one = start(*run_sh(layout, *settings))
    assert one.end() == 1
    assert "train.rdzv_endpoint = 127.0.0.1:" in one.output
    assert "2 nodes did not meet there within 5 s" in one.output


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (("train.num_nodes=2",), "auto is for one machine; set train.launcher=torchrun"),
        (("train.launcher=torchrun", "train.num_nodes=2"), "2 nodes have to meet; write HOST:29500"),
        (("train.launcher=torchrun", "train.rdzv_endpoint=node0"), "write HOST:PORT"),
        (("train.launcher=torchrun", "train.engine=upstream"), "engine = upstream trains on one machine"),
        (("train.launcher=srun",), "this is no Slurm allocation; submit the command"),
        (("train.nnodes=2",), "write train.num_nodes"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_started_is_told_with_the_remedy(
    start: Start,
    layout: Layout,
    settings: tuple[str, ...],
    says: str,
) -> None:
    one = start(*run_sh(layout, *settings))
    assert one.end() == 2, one.output
    assert says in one.output


def test_the_nodes_of_one_meeting_run_stage_4_alone(start: Start, layout: Layout) -> None:
    one = start(ROOT / "run.sh", layout.recipe, "--stage", "3", "--stop_stage", "4", *meeting())
    assert one.end() == 2
    assert "run the others on one node, and --stage 4 --stop_stage 4 on each" in one.output


def test_tasks_of_a_slurm_allocation_train_as_one_process_does(
    slurm_cluster: Cluster,
    layout: Layout,
    alone: list[float],
    tmp_path: Path,
) -> None:
    command = [*run_sh(layout, *SHORT, "train.launcher=srun", "train.num_processes=1")]
    done = slurm_cluster.run("salloc", "--quiet", "--nodes=2", *command, timeout_s=200)
    assert done.returncode == 0, done.stdout
    assert "srun: 1 processes on each of 2 nodes: node1 node2" in done.stdout
    assert losses(layout) == pytest.approx(alone, rel=1e-4)

    script = tmp_path / "job.sh"
    job = run_sh(layout, "--exp", "cancelled", *ENDLESS, "train.launcher=srun", "train.num_processes=1")
    script.write_text(f"#!/bin/bash\nexec {shlex.join(map(str, job))}\n", encoding="utf-8")
    output = tmp_path / "job.txt"
    submitted = slurm_cluster.run("sbatch", "--parsable", "--nodes=2", f"--output={output}", script)
    number = submitted.stdout.strip()
    cancelled = Layout(layout.recipe, "cancelled")
    until_s = time.monotonic() + 120
    while not trains(cancelled)():
        assert time.monotonic() < until_s, output.read_text()
        time.sleep(0.1)
    slurm_cluster.run("scancel", number)
    until_s = time.monotonic() + 60
    while slurm_cluster.run("squeue", "--noheader", f"--jobs={number}").stdout.strip():
        assert time.monotonic() < until_s, output.read_text()
        time.sleep(0.2)
    newest = checkpoint.find(cancelled.module("llm"))[-1].update
    assert newest >= 1
    assert "the same command goes on from here" in output.read_text()
