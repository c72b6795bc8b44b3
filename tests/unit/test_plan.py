"""The plan: every clip once an epoch, budgets kept, the same number of updates in every epoch."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest

from cosytune.errors import UserError
from cosytune.schema import FlowTrainConfig
from cosytune.training import draws, plan
from cosytune.training.draws import Epoch
from cosytune.training.plan import Plan


def lengths(count: int, seed: int = 0) -> list[int]:
    return [int(value) for value in np.random.default_rng(seed).integers(40, 280, count)]


def names(count: int) -> list[str]:
    return [f"utt{number:04d}" for number in range(count)]


def make(count: int, budget: int = 2000, sizes: list[int] | None = None, **settings: Any) -> Plan:
    """The plan for clips of 40 to 280 tokens, or of the given sizes."""
    return plan.make(names(count), sizes or lengths(count), FlowTrainConfig(**settings), budget, "train.flow")


def coin(epoch: Epoch, probability: float):
    return lambda utt: draws.streaming(epoch, utt, probability)


@pytest.mark.parametrize("count", [2, 3, 7, 9, 10, 40, 298, 501])
@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_every_clip_once_an_epoch(count: int, probability: float, accumulation: int) -> None:
    try:
        made = make(count, 300, max_tokens_per_batch=300, gradient_accumulation_steps=accumulation)
    except UserError:
        assert sum(lengths(count)) <= 300 * accumulation
        return
    for number in range(3):
        epoch = Epoch(1, number)
        updates = made.epoch(epoch, coin(epoch, probability))
        assert len(updates) == made.updates_per_epoch >= 2
        batches = [batch for update in updates for batch in made.micro_batches(update)]
        assert all(update for update in updates)
        assert Counter(index for batch in batches for index in batch) == Counter(range(count))
        for batch in batches:
            assert plan.padded_tokens(batch, made.lengths) <= made.max_tokens_per_batch
            assert len({draws.streaming(epoch, made.utts[index], probability) for index in batch}) == 1


def test_the_example_of_a_corpus_that_upstream_cannot_train_on() -> None:
    """Ten clips of 3 s in five batches with accumulation 3: upstream makes 1 update and forgets four clips."""
    made = make(10, 180, [90] * 10, max_tokens_per_batch=180, gradient_accumulation_steps=3)
    assert made.updates_per_epoch == 2
    assert made.total_updates == 20
    epoch = Epoch(1, 0)
    seen = sorted(index for update in made.epoch(epoch, coin(epoch, 0.0)) for batch in update for index in batch)
    assert seen == list(range(10))


def test_auto_makes_four_updates_of_a_small_corpus_and_full_ones_of_a_large_one() -> None:
    small = make(34, num_train_epochs=4)
    assert small.updates_per_epoch == 4
    assert small.total_updates == 16
    large = make(500)
    assert large.tokens_per_update == 2000
    assert large.updates_per_epoch == -(-sum(lengths(500)) // 2000)
    assert large.padding_share(large.epoch(Epoch(1, 0), coin(Epoch(1, 0), 0.0))) < 0.1


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("budget", [300, 700, 2000])
def test_memory_and_ranks_cut_an_update_and_do_not_change_it(budget: int, ranks: int) -> None:
    """The effective batch is the same on every card and on any number of them."""
    wide, narrow = make(60, 4000, tokens_per_update=1500), make(60, budget, tokens_per_update=1500)
    epoch = Epoch(3, 1)
    updates = wide.epoch(epoch, coin(epoch, 0.5))
    assert narrow.epoch(epoch, coin(epoch, 0.5)) == updates
    for update in updates:
        shares = plan.share(update, narrow.lengths, budget, ranks)
        assert len(shares) == ranks
        together = [index for share in shares for batch in share for index in batch]
        assert Counter(together) == Counter(index for batch in update for index in batch)
        sizes = [plan.padded_tokens(batch, narrow.lengths) for share in shares for batch in share]
        assert max(sizes) <= budget
        assert all(shares), "no rank is idle while another has several clips"


def test_a_rank_without_a_clip_gets_none() -> None:
    assert plan.share([[0], [1]], [50, 60], 1000, 4) == [[[1]], [[0]], [], []]


def test_updates_are_of_about_one_size() -> None:
    made = make(300, max_tokens_per_batch=2000, gradient_accumulation_steps=2)
    assert made.tokens_per_update == 4000
    epoch = Epoch(5, 0)
    updates = made.epoch(epoch, coin(epoch, 0.5))
    sizes = [sum(plan.padded_tokens(batch, made.lengths) for batch in update) for update in updates]
    assert max(sizes) < 1.6 * min(sizes)


def test_epochs_differ_and_repeat_for_the_same_seed() -> None:
    made = make(60)
    first, second = (made.epoch(Epoch(1, number), coin(Epoch(1, number), 0.0)) for number in (0, 1))
    assert first != second
    assert first == made.epoch(Epoch(1, 0), coin(Epoch(1, 0), 0.0))
    together = [{frozenset(batch) for update in updates for batch in update} for updates in (first, second)]
    assert together[0] != together[1], "clips change their company too"


def test_max_steps_wins_over_epochs() -> None:
    made = make(40, sizes=[90] * 40, num_train_epochs=100, max_steps=10)
    assert made.total_updates == 10
    assert made.epochs == 3


@pytest.mark.parametrize(
    ("count", "settings"),
    [
        (10, {"tokens_per_update": 100000}),
        (40, {"max_tokens_per_batch": 2000, "gradient_accumulation_steps": 4}),
        (5, {"max_tokens_per_batch": 600, "gradient_accumulation_steps": 30}),
        (40, {"max_tokens_per_batch": 2000, "gradient_accumulation_steps": 50}),
        (2, {"max_tokens_per_batch": 100000, "gradient_accumulation_steps": 1}),
    ],
)
def test_fewer_than_two_updates_is_an_error_whose_remedy_works(count: int, settings: dict[str, Any]) -> None:
    budget = settings.get("max_tokens_per_batch", 2000)
    with pytest.raises(UserError, match="fewer than 2 updates an epoch") as caught:
        make(count, budget, **settings)
    remedy = dict(re.findall(r"train\.flow\.(\w+)=(\w+)", str(caught.value)))
    assert remedy
    mended = {key: value if value == "auto" else int(value) for key, value in remedy.items()}
    assert make(count, budget, **settings | mended).updates_per_epoch >= 2


def test_one_clip_cannot_be_trained_on() -> None:
    with pytest.raises(UserError, match="add recordings"):
        make(1)


def test_a_clip_beyond_the_budget_is_named() -> None:
    settings = FlowTrainConfig(max_tokens_per_batch=100)
    with pytest.raises(
        UserError, match=r"train\.llm\.max_tokens_per_batch = 100: 'long one' has 130 tokens; set it to 130"
    ):
        plan.make(["short", "long one"], [50, 130], settings, 100, "train.llm")


def test_the_longest_clip_widens_a_budget_that_nobody_asked_for() -> None:
    assert make(3, 100, [50, 130, 60]).max_tokens_per_batch == 130


def test_cross_validation_sees_every_clip_once() -> None:
    sizes = lengths(50)
    epoch = Epoch(-1, 0)
    batches = plan.cv_batches(names(50), sizes, 600, coin(epoch, 0.5))
    assert Counter(index for batch in batches for index in batch) == Counter(range(50))
    assert all(plan.padded_tokens(batch, sizes) <= 600 for batch in batches)
