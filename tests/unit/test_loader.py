"""Every clip once an epoch, whatever the number of worker processes and ranks; the same batches from all of them."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from cosytune.errors import UserError
from cosytune.features import cache
from cosytune.features.cache import FeatureCache
from cosytune.schema import FlowTrainConfig
from cosytune.training import loader, plan
from cosytune.training.draws import Epoch
from cosytune.training.tasks import FlowTask


@dataclass(frozen=True)
class Named:
    """A micro-batch that knows whose it is."""

    utts: list[str]
    batch: Any


@dataclass(frozen=True)
class Naming:
    """A task whose micro-batches know whose they are."""

    task: FlowTask

    def batch(self, clips: Any, epoch: Epoch) -> Named:
        return Named([clip.utt for clip in clips], self.task.batch(clips, epoch))


@pytest.fixture(scope="module")
def features(training_features: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    """29 clips under names of their own."""
    given = cache.open(training_features)
    path = tmp_path_factory.mktemp("many") / "features.arrow"
    rows = [vars(replace(given[number % len(given)], utt=f"clip{number:03d}")) for number in range(29)]
    cache.write(path, rows)
    return cache.open(path)


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_every_clip_once(workers: int, ranks: int, features: FeatureCache) -> None:
    task = FlowTask(FlowTrainConfig(), guidance_dropout=0.2)
    lengths = [task.length(length) for length in features.lengths]
    planned = plan.make(features.utts, lengths, FlowTrainConfig(tokens_per_update=250), 100, "train.flow")
    epoch = Epoch(7, 0)
    updates = planned.epoch(epoch, partial(task.coin, epoch))
    seen: list[list[str]] = [[] for _ in updates]
    for rank in range(ranks):
        parts = [plan.share(update, lengths, 100, ranks)[rank] for update in updates]
        with loader.load(Naming(task), features, parts, epoch, workers, pin_memory=False) as loaded:  # type: ignore[arg-type]
            for number, part in enumerate(loaded):
                for made in part.micro_batches:
                    seen[number] += made.utts
                    again = task.batch([features[features.utts.index(utt)] for utt in made.utts], epoch)
                    assert torch.equal(made.batch.noise, again.noise)
    assert Counter(utt for update in seen for utt in update) == Counter(features.utts)
    assert [sorted(update) for update in seen] == [
        sorted(features.utts[index] for batch in update for index in batch) for update in updates
    ]


def test_the_workers_end_with_the_block(features: FeatureCache) -> None:
    task = FlowTask(FlowTrainConfig(), guidance_dropout=0.2)
    before = torch.get_rng_state()
    with loader.load(task, features, [[[0]], [[1]], [[2]]], Epoch(1, 0), 2, pin_memory=False) as loaded:
        next(loaded)
        workers = list(loaded._workers)
    assert len(workers) == 2
    assert not any(worker.is_alive() for worker in workers)
    assert torch.equal(torch.get_rng_state(), before), "the dropout's generator was left alone"


def test_a_worker_that_was_killed_is_one_line(features: FeatureCache) -> None:
    task = FlowTask(FlowTrainConfig(), guidance_dropout=0.2)
    parts = [[[number]] for number in range(29)]
    with (
        pytest.raises(UserError, match=r"killed by signal: Killed.*dataloader_num_workers=0"),
        loader.load(task, features, parts, Epoch(1, 0), 2, pin_memory=False) as loaded,
    ):
        os.kill(loaded._workers[0].pid, signal.SIGKILL)
        for _ in range(200):
            time.sleep(0.05)  # until torch has heard of it
