"""Adapters can learn: four clips are learnt by heart within 150 updates of the random base."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

import training_data
from cosytune.features import cache
from cosytune.schema import LoraConfig
from cosytune.training import draws, machine
from cosytune.training.batches import Batch
from cosytune.training.distributed import Ranks
from cosytune.training.draws import Epoch

_UPDATES = 150


def _overfit(name: str, random_model: Path, features: Path, tmp_path: Path, learning_rate: float, goal: float) -> float:
    """The loss of the clips, as a share of `goal`'s unit, when it falls below the goal or after 150 updates."""
    clips = [cache.open(features)[index] for index in (0, 1, 3, 4)]
    nothing = training_data.write_subset(features, tmp_path / "none.arrow", [])
    job = training_data.make_job(
        *(name, random_model, tmp_path, nothing, nothing),
        lora=LoraConfig(lora_dropout=0.0),
        learning_rate=learning_rate,
        lr_scheduler_type="constant",
    )
    cpu = torch.device("cpu")
    tools = machine.assemble(job.model, job.task.loss, job.settings, job.setup, _UPDATES, cpu, Ranks())
    heard = [job.task.batch([clip], epoch) for epoch in draws.cv_epochs(4) for clip in clips]
    unit = 1.0 if name == "llm" else _loss(tools, heard)
    for number in range(_UPDATES):
        epoch = Epoch(seed=1, number=number)
        torch.manual_seed(draws.torch_seed(epoch, number))
        sides = [[clip for clip in clips if job.task.coin(epoch, clip.utt) == side] for side in (False, True)]
        micro_batches = [job.task.batch(side, epoch) for side in sides if side]
        assert tools.update(micro_batches, lambda: False).read().is_sound
        if number % 10 == 9 and _loss(tools, heard) < goal * unit:
            break
    return _loss(tools, heard) / unit


def _loss(tools: machine.Plain, heard: list[Batch]) -> float:
    values = tools.evaluate([partial(_itself, batch) for batch in heard], lambda: False)
    return values.total / values.targets


def _itself(batch: Batch) -> Batch:
    return batch


def test_the_llm_learns_four_clips_by_heart(random_model: Path, training_features: Path, tmp_path: Path) -> None:
    assert _overfit("llm", random_model, training_features, tmp_path, learning_rate=0.01, goal=1.0) < 1.0


def test_the_flow_comes_down_to_85_percent(random_model: Path, training_features: Path, tmp_path: Path) -> None:
    assert _overfit("flow", random_model, training_features, tmp_path, learning_rate=0.003, goal=0.85) < 0.85
