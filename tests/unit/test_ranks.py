"""Two processes over gloo train as one does: the same losses, whoever has how many micro-batches; and stop together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cosytune.layout import ROOT
from cosytune.training import checkpoint
from training_data import write_subset

ONE_RANK = ROOT / "tests" / "one_rank.py"


@dataclass(frozen=True)
class Trained:
    """A run of some processes: its directory, exit status and what it printed."""

    directory: Path
    status: int
    output: str

    def losses(self, kind: str) -> list[float]:
        lines = (self.directory / "history.jsonl").read_text().splitlines()
        return [line["loss"] for line in map(json.loads, lines) if line["kind"] == kind]


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tiny_model: Path, training_features: Path, tmp_path: Path) -> Start:
    """Start a run of `ranks` processes; nine micro-batches of three clips and less, so that no rank has as many."""
    train, cv = tmp_path / "train.arrow", tmp_path / "cv.arrow"
    write_subset(training_features, train, [0, 1, 2, 3, 4, 5])
    write_subset(training_features, cv, [6, 7])

    def begin(name: str, directory: str, ranks: int, dropout: bool = False, **settings: Any) -> subprocess.Popen[str]:
        run = tmp_path / f"{directory}.json"
        defaults = {"learning_rate": 0.003, "num_train_epochs": 2, "logging_steps": 1, "save_total_limit": 10}
        values = {"name": name, "model_dir": str(tiny_model), "directory": str(tmp_path / directory)}
        values |= {"train": str(train), "cv": str(cv), "dropout": dropout, "settings": defaults | settings}
        run.write_text(json.dumps(values))
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
        path = os.pathsep.join([str(ROOT / "tools"), str(ROOT / "tests")])
        return subprocess.Popen(
            [sys.executable, *launcher, str(ONE_RANK), str(run)],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return begin


def finish(process: subprocess.Popen[str], directory: Path, timeout_s: float = 240) -> Trained:
    output, _ = process.communicate(timeout=timeout_s)
    return Trained(directory, process.returncode, output)


@pytest.mark.parametrize("name", ["llm", "flow"])
def test_two_ranks_follow_the_losses_of_one(name: str, start: Start, tmp_path: Path) -> None:
    settings = {"tokens_per_update": 200, "max_tokens_per_batch": 110} if name == "llm" else {}
    runs = [finish(start(name, f"of{ranks}", ranks, **settings), tmp_path / f"of{ranks}") for ranks in (1, 2)]
    for run in runs:
        assert run.status == 0, run.output
    one, two = runs
    assert len(one.losses("train")) >= 4
    assert two.losses("train") == pytest.approx(one.losses("train"), rel=1e-4)
    assert two.losses("cv") == pytest.approx(one.losses("cv"), rel=1e-4)
    assert one.losses("cv")[-1] < one.losses("cv")[0]
    assert two.output.count("best: update") == 1, "one of them speaks"
    assert [item.update for item in checkpoint.find(two.directory)] == [
        item.update for item in checkpoint.find(one.directory)
    ]


def test_ranks_stop_together_and_go_on_as_if_nothing_had_happened(start: Start, tmp_path: Path) -> None:
    """SIGTERM to torchrun, as from a scheduler: it passes it on to the ranks."""
    settings = {"num_train_epochs": 60, "early_stopping_patience": 60, "save_total_limit": 100}
    through = finish(start("llm", "through", 2, dropout=True, **settings), tmp_path / "through")
    assert through.status == 0, through.output
    process = start("llm", "stopped", 2, dropout=True, **settings)
    history, deadline = tmp_path / "stopped" / "history.jsonl", time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if history.is_file() and '"update": 9,' in history.read_text():
            process.send_signal(signal.SIGTERM)
            break
        time.sleep(0.02)
    stopped = finish(process, tmp_path / "stopped")
    assert stopped.status != 0
    newest = checkpoint.find(stopped.directory)[-1].update
    assert 9 <= newest < len(through.losses("train")), stopped.output
    again = finish(start("llm", "stopped", 2, dropout=True, **settings), tmp_path / "stopped")
    assert again.status == 0, again.output
    assert f"goes on from update {newest}" in again.output
    for file in ("history.jsonl", "plan.json"):
        assert (again.directory / file).read_bytes() == (through.directory / file).read_bytes()
    best = checkpoint.find(through.directory)[-1].path.name
    for file in ("adapter_model.safetensors", "state.pt"):
        assert (again.directory / best / file).read_bytes() == (through.directory / best / file).read_bytes()
