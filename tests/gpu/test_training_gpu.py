"""The training loop on a GPU, at every precision, against the same run on the CPU."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cosytune.features import cache


@pytest.fixture(scope="module")
def features(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> cache.FeatureCache:
    import training_data

    return cache.open(training_data.write_features(tmp_path_factory.mktemp("gpu") / "f.arrow", tiny_model, 8))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", ["llm", "flow"])
def test_training_on_a_gpu(
    name: str, precision: str, features: cache.FeatureCache, tiny_model: Path, tmp_path: Path
) -> None:
    import torch

    import training_data
    from cosytune.training import checkpoint, trainer

    losses = {}
    for device, wanted in (("cuda", precision), ("cpu", "fp32")):
        settings = {"learning_rate": 0.003, "num_train_epochs": 4 if device == "cuda" else 1, "precision": wanted}
        directory = tmp_path / device
        job = training_data.make_job(name, tiny_model, directory, features, features, **settings)
        position = trainer.train(replace(job, device=device))
        lines = [json.loads(line) for line in (directory / "history.jsonl").read_text().splitlines()]
        losses[device] = [line["loss"] for line in lines if line["kind"] == "cv"]
        assert all(part.dtype == torch.float32 for part in job.model.parameters() if part.requires_grad)
        assert position.skipped == 0
    assert losses["cuda"][0] == pytest.approx(losses["cpu"][0], rel=1e-4 if precision == "fp32" else 0.02)
    assert losses["cuda"][-1] < losses["cuda"][0]
    newest = checkpoint.find(tmp_path / "cuda")[-1]
    again = training_data.make_job(
        *(name, tiny_model, tmp_path / "cuda", features, features),
        learning_rate=0.003,
        num_train_epochs=5,
        precision=precision,
    )
    assert trainer.train(replace(again, device="cuda")).update > newest.update, (
        "it goes on, the scaler's state included"
    )
