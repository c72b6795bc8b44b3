"""Memory that runs short: the micro-batches get smaller, the updates stay what they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cosytune import files
from cosytune.errors import UserError
from cosytune.layout import ROOT
from cosytune.training import machine, trainer
from cosytune.training.job import Job
from training_data import MakeJob, history

_SMALL_ROOM = """
import json, resource, sys
from pathlib import Path

import torch

import training_data
from cosytune.errors import UserError
from cosytune.features import cache
from cosytune.training import trainer

given = json.loads(sys.argv[1])
torch.set_num_threads(1)
features = cache.open(Path(given["features"]))
settings = {"num_train_epochs": 1, "tokens_per_update": 400, "max_tokens_per_batch": 400}
job = training_data.make_job("flow", Path(given["model_dir"]), Path(given["directory"]), features, features, **settings)
used = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + given["spare_bytes"],) * 2)
try:
    print(json.dumps({"budget": trainer.train(job).budget}))
except UserError as error:
    print(json.dumps({"error": str(error)}))
"""


def in_a_small_room(given: dict[str, Any]) -> dict[str, Any]:
    """Train the flow in a process that may take no more than so many bytes."""
    done = subprocess.run(
        [sys.executable, "-c", _SMALL_ROOM, json.dumps(given)],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'tools'}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.parametrize("spare_mb", [40])
def test_a_process_without_memory_cuts_its_micro_batches_or_names_the_clip(
    spare_mb: int, random_model: Path, training_features: Path, tmp_path: Path
) -> None:
    """Where the allocator gives up is its own affair; that training answers it is ours."""
    places = {"features": training_features, "model_dir": random_model, "directory": tmp_path / "run"}
    answer = in_a_small_room({**{key: str(path) for key, path in places.items()}, "spare_bytes": spare_mb * 10**6})
    log = (tmp_path / "run" / "train.log").read_text()
    assert "out of memory in" in log
    if "error" in answer:
        assert "with one clip alone, '話者-0" in answer["error"]
        assert "low_memory=true" in answer["error"]
    else:
        assert answer["budget"] < 300


@dataclass(frozen=True)
class Crowded:
    """A task that has no room for more than `most` positions, as a GPU says it."""

    task: Any
    most: int

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def loss(self, module: Any, batch: Any) -> Any:
        if batch.token.numel() > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return self.task.loss(module, batch)


def without_dropout(run: Job) -> Job:
    for layer in run.model.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    return run


def test_smaller_micro_batches_make_the_same_updates(job: MakeJob) -> None:
    settings = {"tokens_per_update": 250, "num_train_epochs": 2, "logging_steps": 1}
    roomy, crowded = (without_dropout(job("llm", name, **settings)) for name in ("roomy", "crowded"))
    trainer.train(roomy)
    position = trainer.train(replace(crowded, task=Crowded(crowded.task, 130)))
    assert position.budget is not None
    assert position.budget <= 130
    assert [line["loss"] for line in history(crowded)] == pytest.approx(
        [line["loss"] for line in history(roomy)], rel=1e-4
    )
    plans = [files.read_json(run.directory / "plan.json") for run in (roomy, crowded)]
    assert plans[0] == plans[1]


def test_a_clip_that_fits_nowhere_is_named(job: MakeJob) -> None:
    run = job("llm", "run", num_train_epochs=1)
    with pytest.raises(UserError, match=r"llm: out of memory in cross-validation with one clip alone, '話者-0\d', \d+"):
        trainer.train(replace(run, task=Crowded(run.task, 20)))


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_cudas_own_libraries_run_out_of_memory_in_other_words(words: str) -> None:
    assert machine.memory_trouble(RuntimeError(words))
    with pytest.raises(RuntimeError, match="illegal"):
        machine.memory_trouble(RuntimeError("CUDA error: an illegal memory access was encountered"))
