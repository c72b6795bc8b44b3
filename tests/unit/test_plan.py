"""The plan: every clip once an epoch, budgets kept, the same number of updates in every epoch."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from cosytune.errors import UserError
from cosytune.training import draws, plan
from cosytune.training.draws import Epoch


def lengths(count: int, seed: int = 0) -> list[int]:
    return [int(value) for value in np.random.default_rng(seed).integers(40, 280, count)]


def names(count: int) -> list[str]:
    return [f"utt{number:04d}" for number in range(count)]


def coin(epoch: Epoch, probability: float):
    return lambda utt: draws.streaming(epoch, utt, probability)


@pytest.mark.parametrize("count", [2, 3, 7, 10, 40, 298, 501])
@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_every_clip_once_an_epoch(count: int, probability: float, accumulation: int) -> None:
    try:
        made = plan.make(names(count), lengths(count), "auto", accumulation, 3, -1, "train.flow")
    except UserError:
        assert count <= accumulation
        return
    for number in range(3):
        epoch = Epoch(1, number)
        updates = made.epoch(epoch, coin(epoch, probability))
        assert len(updates) == made.updates_per_epoch >= 2
        batches = [batch for update in updates for batch in update]
        assert all(update for update in updates)
        assert Counter(index for batch in batches for index in batch) == Counter(range(count))
        for batch in batches:
            assert plan.padded_tokens(batch, made.lengths) <= made.max_tokens_per_batch
            assert len({draws.streaming(epoch, made.utts[index], probability) for index in batch}) == 1


def test_the_example_of_a_corpus_that_upstream_cannot_train_on() -> None:
    """Ten clips of 3 s in five batches with accumulation 3: upstream makes 1 update and forgets four clips."""
    made = plan.make(names(10), [90] * 10, 180, 3, 10, -1, "train.llm")
    assert made.updates_per_epoch == 2
    assert made.total_updates == 20
    epoch = Epoch(1, 0)
    seen = sorted(index for update in made.epoch(epoch, coin(epoch, 0.0)) for batch in update for index in batch)
    assert seen == list(range(10))


def test_auto_makes_four_updates_of_a_small_corpus_and_full_batches_of_a_large_one() -> None:
    small = plan.make(names(34), lengths(34), "auto", 1, 4, -1, "train.llm")
    assert small.updates_per_epoch == 4
    assert small.total_updates == 16
    large = plan.make(names(500), lengths(500), "auto", 1, 1, -1, "train.llm")
    assert large.max_tokens_per_batch == 2000
    assert large.padding_share(large.epoch(Epoch(1, 0), coin(Epoch(1, 0), 0.0))) < 0.1


def test_updates_are_of_about_one_size() -> None:
    made = plan.make(names(300), lengths(300), 2000, 2, 1, -1, "train.flow")
    epoch = Epoch(5, 0)
    updates = made.epoch(epoch, coin(epoch, 0.5))
    sizes = [sum(plan.padded_tokens(batch, made.lengths) for batch in update) for update in updates]
    assert max(sizes) < 1.6 * min(sizes)


def test_epochs_differ_and_repeat_for_the_same_seed() -> None:
    made = plan.make(names(60), lengths(60), "auto", 1, 3, -1, "train.llm")
    first, second = (made.epoch(Epoch(1, number), coin(Epoch(1, number), 0.0)) for number in (0, 1))
    assert first != second
    assert first == made.epoch(Epoch(1, 0), coin(Epoch(1, 0), 0.0))
    together = [{frozenset(batch) for update in updates for batch in update} for updates in (first, second)]
    assert together[0] != together[1], "clips change their company too"


def test_max_steps_wins_over_epochs() -> None:
    made = plan.make(names(40), [90] * 40, "auto", 1, 100, 10, "train.llm")
    assert made.total_updates == 10
    assert made.epochs == 3


@pytest.mark.parametrize(
    ("count", "budget", "accumulation"), [(10, 100000, 1), (40, 100000, 4), (5, 600, 30), (40, 2000, 50)]
)
def test_fewer_than_two_updates_is_an_error_whose_remedy_works(count: int, budget: int, accumulation: int) -> None:
    with pytest.raises(UserError, match="fewer than 2 updates an epoch") as caught:
        plan.make(names(count), lengths(count), budget, accumulation, 1, -1, "train.flow")
    settings = dict(re.findall(r"train\.flow\.(\w+)=(\d+)", str(caught.value)))
    assert settings
    mended = plan.make(
        names(count),
        lengths(count),
        int(settings.get("max_tokens_per_batch", budget)),
        int(settings.get("gradient_accumulation_steps", accumulation)),
        1,
        -1,
        "train.flow",
    )
    assert mended.updates_per_epoch >= 2


def test_one_clip_cannot_be_trained_on() -> None:
    with pytest.raises(UserError, match="add recordings"):
        plan.make(["a"], [50], "auto", 1, 1, -1, "train.llm")


def test_a_clip_beyond_the_budget_is_named() -> None:
    with pytest.raises(
        UserError, match=r"train\.llm\.max_tokens_per_batch = 100: 'long one' has 130 tokens; set it to 130"
    ):
        plan.make(["short", "long one"], [50, 130], 100, 1, 1, -1, "train.llm")


def test_cross_validation_sees_every_clip_once() -> None:
    sizes = lengths(50)
    epoch = Epoch(-1, 0)
    batches = plan.cv_batches(names(50), sizes, 600, coin(epoch, 0.5))
    assert Counter(index for batch in batches for index in batch) == Counter(range(50))
    assert all(plan.padded_tokens(batch, sizes) <= 600 for batch in batches)
