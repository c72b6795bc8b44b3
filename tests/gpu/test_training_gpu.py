"""The training loop on a GPU, at every precision, against the same run on the CPU."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cosytune.features import cache

if TYPE_CHECKING:
    from cosytune.training.trainer import Job


NAMES: dict[str, dict[str, Any]] = {
    "fp32": {"bf16": False, "fp16": False},
    "bf16": {"bf16": True},
    "fp16": {"fp16": True},
}


def make(
    name: str, device: str, model_dir: Path, directory: Path, features: cache.FeatureCache, settings: dict[str, Any]
) -> Job:
    """A run whose setup is that of the card, or of a CPU."""
    import training_data
    from cosytune.schema import TrainConfig
    from cosytune.training import hardware

    job = training_data.make_job(name, model_dir, directory, features, features, **settings)
    setup = hardware.settle(name, job.settings, TrainConfig(), False, hardware.card(device), 10**6)  # type: ignore[arg-type]
    return replace(job, device=device, setup=setup)


@pytest.fixture(scope="module")
def features(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> cache.FeatureCache:
    import training_data

    return cache.open(training_data.write_features(tmp_path_factory.mktemp("gpu") / "f.arrow", random_model, 8))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", ["llm", "flow"])
def test_training_on_a_gpu(
    name: str, precision: str, features: cache.FeatureCache, random_model: Path, tmp_path: Path
) -> None:
    import torch

    from cosytune.training import checkpoint, trainer

    losses = {}
    for device, wanted in (("cuda", precision), ("cpu", "fp32")):
        settings = {"learning_rate": 0.003, "num_train_epochs": 4 if device == "cuda" else 1, **NAMES[wanted]}
        directory = tmp_path / device
        job = make(name, device, random_model, directory, features, settings)
        position = trainer.train(job)
        lines = [json.loads(line) for line in (directory / "history.jsonl").read_text().splitlines()]
        losses[device] = [line["loss"] for line in lines if line["kind"] == "cv"]
        assert all(part.dtype == torch.float32 for part in job.model.parameters() if part.requires_grad)
        assert position.skipped == 0
    assert losses["cuda"][0] == pytest.approx(losses["cpu"][0], rel=1e-4 if precision == "fp32" else 0.02)
    assert losses["cuda"][-1] < losses["cuda"][0]
    newest = checkpoint.find(tmp_path / "cuda")[-1]
    settings = {"learning_rate": 0.003, "num_train_epochs": 5, **NAMES[precision]}
    again = make(name, "cuda", random_model, tmp_path / "cuda", features, settings)
    assert trainer.train(again).update > newest.update, "it goes on, the scaler's state included"


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["llm", "flow"])
def test_nothing_in_an_update_waits_for_the_gpu(
    name: str, features: cache.FeatureCache, random_model: Path, tmp_path: Path
) -> None:
    import torch

    from cosytune.training import machine
    from cosytune.training.distributed import Ranks
    from cosytune.training.draws import Epoch

    job = make(name, "cuda", random_model, tmp_path / "run", features, NAMES["fp32"])
    tools = machine.assemble(job.model, job.task.loss, job.settings, job.setup, 10, torch.device("cuda"), Ranks())
    assert tools.is_asynchronous
    batch = job.task.batch([features[index] for index in range(3)], Epoch(1, 0)).to(torch.device("cuda"))
    tools.update([batch], lambda: False).read()  # the first one may set things up
    torch.cuda.set_sync_debug_mode("error")
    try:
        outcome = tools.update([batch], lambda: False)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert outcome.read().is_sound


@pytest.mark.gpu
def test_an_update_that_is_not_finite_leaves_the_adapters_alone(
    features: cache.FeatureCache, random_model: Path, tmp_path: Path
) -> None:
    """The fused optimizer skips it by itself, on the device."""
    import torch

    from cosytune.training import machine
    from cosytune.training.distributed import Ranks
    from cosytune.training.draws import Epoch

    job = make("flow", "cuda", random_model, tmp_path / "run", features, NAMES["fp32"])
    tools = machine.assemble(job.model, job.task.loss, job.settings, job.setup, 10, torch.device("cuda"), Ranks())
    batch = job.task.batch([features[0]], Epoch(1, 0)).to(torch.device("cuda"))
    tools.update([batch], lambda: False)
    before = [part.detach().clone() for part in job.model.parameters() if part.requires_grad]
    spoilt = replace(batch, mel=torch.full_like(batch.mel, float("nan")))
    assert not tools.update([spoilt], lambda: False).read().is_sound
    after = [part for part in job.model.parameters() if part.requires_grad]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
