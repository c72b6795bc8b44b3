"""Nothing in a forward and backward pass waits for the GPU, and the loss is that of the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def strict() -> Iterator[None]:
    """Puts CUDA's answer to a synchronization back."""
    import torch

    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("saving", ["nothing", "recomputing", "checkpointing"])
@pytest.mark.parametrize("name", ["llm", "flow"])
@pytest.mark.usefixtures("strict")
def test_no_wait_for_the_gpu(name: str, saving: str, precision: str, random_model: Path, tmp_path: Path) -> None:
    import torch

    import training_data
    from cosytune.schema import LoraConfig
    from cosytune.training import checkpointing, frozen, machine, recomputing
    from cosytune.training.draws import Epoch

    features = _features(random_model, tmp_path)
    lora = LoraConfig(r=4, lora_dropout=0.05)
    job = training_data.make_job(name, random_model, tmp_path, features, features, lora=lora)
    model = job.model
    made = [job.task.batch([features[index] for index in chosen], Epoch(1, 0)) for chosen in ([0, 1], [2], [0, 2])]
    model.eval()
    with torch.no_grad():
        expected = [job.task.loss(model.get_base_model(), batch).total.item() for batch in made]
    device = torch.device("cuda")
    if precision != "fp32":
        frozen.halve(model, torch.float16 if precision == "fp16" else torch.bfloat16)
    {"nothing": _nothing, "recomputing": recomputing.enable, "checkpointing": checkpointing.enable}[saving](model, name)
    model.to(device).train()
    moved = [batch.to(device) for batch in made]

    def step(batch: Any) -> Any:
        with machine.autocast(device, precision):
            loss = job.task.loss(model.get_base_model(), batch)
        (loss.total / batch.targets).backward()
        return loss

    step(moved[0])  # upstream moves its table of positions to the device once
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    for batch in moved:
        step(batch)
    torch.cuda.set_sync_debug_mode("default")
    assert all(part.grad.isfinite().all() for part in model.parameters() if part.requires_grad)
    model.eval()
    with torch.no_grad(), machine.autocast(device, precision):
        found = [job.task.loss(model.get_base_model(), batch).total.item() for batch in moved]
    assert found == pytest.approx(expected, rel=1e-3 if precision == "fp32" else 0.02)  # TF32


def _nothing(*_: Any) -> None:
    pass


def _features(model_dir: Path, directory: Path) -> Any:
    import training_data
    from cosytune.features import cache

    return cache.open(training_data.write_features(directory / "features.arrow", model_dir, 3))
