"""Training runs of several processes, each of them tests/one_rank.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosytune.layout import ROOT
from training_data import write_subset

ONE_RANK = ROOT / "tests" / "one_rank.py"
DEFAULTS = {"learning_rate": 0.003, "num_train_epochs": 2, "logging_steps": 1, "save_total_limit": 10}
Start = Callable[..., "subprocess.Popen[str]"]


@dataclass(frozen=True)
class Trained:
    """A run of some processes: its directory, exit status and what it printed."""

    directory: Path
    status: int
    output: str

    def losses(self, kind: str) -> list[float]:
        lines = (self.directory / "history.jsonl").read_text().splitlines()
        return [line["loss"] for line in map(json.loads, lines) if line["kind"] == kind]


def starter(random_model: Path, training_features: Path, tmp_path: Path) -> Start:
    """Starts runs of `ranks` processes; nine micro-batches of three clips and less, so that no rank has as many."""
    train, cv = tmp_path / "train.arrow", tmp_path / "cv.arrow"
    write_subset(training_features, train, [0, 1, 2, 3, 4, 5])
    write_subset(training_features, cv, [6, 7])

    def begin(
        name: str, directory: str, ranks: int, dropout: bool = False, distributed: str = "ddp", **settings: Any
    ) -> subprocess.Popen[str]:
        run = tmp_path / f"{directory}.json"
        values = {"name": name, "model_dir": str(random_model), "directory": str(tmp_path / directory)}
        values |= {"train": str(train), "cv": str(cv), "dropout": dropout, "distributed": distributed}
        run.write_text(json.dumps(values | {"settings": DEFAULTS | settings}))
        return launch(ranks, ONE_RANK, run)

    return begin


def launch(ranks: int, script: Path, *arguments: Path) -> subprocess.Popen[str]:
    """A Python program in as many processes, on the CPU, by torchrun if there are several."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
    path = os.pathsep.join([str(ROOT / "tools"), str(ROOT / "tests")])
    return subprocess.Popen(
        [sys.executable, *launcher, str(script), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str], directory: Path, timeout_s: float = 240) -> Trained:
    output, _ = process.communicate(timeout=timeout_s)
    return Trained(directory, process.returncode, output)
