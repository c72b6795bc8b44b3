"""Clip lengths and a token budget -> which clips share a micro-batch, and which micro-batches make one update.

Every clip is in exactly one micro-batch of every epoch, every epoch has the same number of updates, and nothing is left
over at its end. Micro-batches hold clips of about one length, so that little of them is padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from cosytune.errors import UserError
from cosytune.training import draws
from cosytune.training.draws import Epoch

MicroBatch = list[int]
"""Positions of clips in the feature cache."""
Update = list[MicroBatch]

_AUTO_TOKENS = 2000
_AUTO_UPDATES = 4
_MIXING = 0.15
"""Clips whose lengths differ by less than this share swap places from epoch to epoch."""


@dataclass(frozen=True)
class Plan:
    """What one training run does. Lengths are in tokens; `key` is the config section, for error messages."""

    utts: Sequence[str]
    lengths: Sequence[int]
    max_tokens_per_batch: int
    accumulation: int
    updates_per_epoch: int
    total_updates: int

    @property
    def epochs(self) -> int:
        """Epochs begun; `max_steps` may end within the last one."""
        return -(-self.total_updates // self.updates_per_epoch)

    def epoch(self, epoch: Epoch, coin: Callable[[str], bool]) -> list[Update]:
        """The updates of one epoch. Clips of a micro-batch have the same `coin`, which upstream's flow asks for."""
        count = self.updates_per_epoch * self.accumulation
        mixing = 1 + _MIXING * (draws.order(epoch, self.utts) - 0.5)
        ranked = sorted(range(len(self.utts)), key=lambda index: (self.lengths[index] * mixing[index], index))
        groups = by_coin(ranked, self.utts, coin)
        shares = _share(min(count, len(ranked)), [(self._tokens(group), len(group)) for group in groups])
        batches = [
            batch for group, share in zip(groups, shares, strict=True) for batch in cut(group, self.lengths, share)
        ]
        mixed = [batches[index] for index in draws.shuffled(epoch, len(batches))]
        updates = [mixed[number :: self.updates_per_epoch] for number in range(self.updates_per_epoch)]
        return [[part for batch in update for part in self._within_budget(batch)] for update in updates]

    def padding_share(self, updates: Sequence[Update]) -> float:
        """The part of the positions that is padding."""
        padded = sum(padded_tokens(batch, self.lengths) for update in updates for batch in update)
        return 1 - self._tokens([index for update in updates for batch in update for index in batch]) / padded

    def _tokens(self, indices: Sequence[int]) -> int:
        return sum(self.lengths[index] for index in indices)

    def _within_budget(self, batch: MicroBatch) -> list[MicroBatch]:
        return cut(batch, self.lengths, len(greedy(batch, self.lengths, self.max_tokens_per_batch)))


def make(
    utts: Sequence[str],
    lengths: Sequence[int],
    max_tokens_per_batch: int | Literal["auto"],
    accumulation: int,
    num_epochs: int,
    max_steps: int,
    key: str,
) -> Plan:
    """Settle the budget and the number of updates.

    Raises UserError, with the value to set under `key` (train.llm or train.flow), when a clip does not fit into the
    budget or an epoch would have fewer than 2 updates.
    """
    ranked = sorted(range(len(utts)), key=lambda index: (lengths[index], utts[index]))
    longest = lengths[ranked[-1]]
    if max_tokens_per_batch == "auto":
        budget = max(min(_AUTO_TOKENS, smallest_budget(ranked, lengths, _AUTO_UPDATES * accumulation)), longest)
    else:
        budget = max_tokens_per_batch
    if longest > budget:
        raise UserError(
            f"{key}.max_tokens_per_batch = {budget}: '{utts[ranked[-1]]}' has {longest} tokens; "
            f"set it to {longest} or more"
        )
    updates_per_epoch = -(-len(greedy(ranked, lengths, budget)) // accumulation)
    if updates_per_epoch < 2:
        raise UserError(_too_few(ranked, lengths, budget, accumulation, key))
    total = max_steps if max_steps > 0 else updates_per_epoch * num_epochs
    return Plan(tuple(utts), tuple(lengths), budget, accumulation, updates_per_epoch, total)


def cv_batches(
    utts: Sequence[str], lengths: Sequence[int], max_tokens_per_batch: int, coin: Callable[[str], bool]
) -> list[MicroBatch]:
    """Every clip once, in micro-batches of equal `coin`; a clip longer than the budget has one of its own."""
    ranked = sorted(range(len(utts)), key=lambda index: (lengths[index], utts[index]))
    return [batch for group in by_coin(ranked, utts, coin) for batch in greedy(group, lengths, max_tokens_per_batch)]


def greedy(indices: Sequence[int], lengths: Sequence[int], budget: int) -> list[MicroBatch]:
    """Cut clips, in the order given, into as few micro-batches as `budget` padded tokens each allow."""
    batches: list[MicroBatch] = []
    longest = 0
    for index in indices:
        longest = max(longest, lengths[index])
        if batches and longest * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
            longest = lengths[index]
    return batches


def cut(indices: Sequence[int], lengths: Sequence[int], count: int) -> list[MicroBatch]:
    """Cut clips, in the order given, into exactly `count` micro-batches of about the same padded size."""
    batches = greedy(indices, lengths, smallest_budget(indices, lengths, count))
    while len(batches) < count:
        largest = max((batch for batch in batches if len(batch) > 1), key=lambda batch: padded_tokens(batch, lengths))
        place, half = batches.index(largest), len(largest) // 2
        batches[place : place + 1] = [largest[:half], largest[half:]]
    return batches


def smallest_budget(indices: Sequence[int], lengths: Sequence[int], count: int) -> int:
    """The smallest budget that cuts the clips into at most `count` micro-batches."""
    low = max(lengths[index] for index in indices)
    high = low * len(indices)
    while low < high:
        middle = (low + high) // 2
        if len(greedy(indices, lengths, middle)) <= count:
            high = middle
        else:
            low = middle + 1
    return low


def by_coin(indices: Sequence[int], utts: Sequence[str], coin: Callable[[str], bool]) -> list[list[int]]:
    """The clips with tails and those with heads, in the order given; a side that no clip has is left out."""
    sides: tuple[list[int], list[int]] = ([], [])
    for index in indices:
        sides[coin(utts[index])].append(index)
    return [side for side in sides if side]


def padded_tokens(batch: MicroBatch, lengths: Sequence[int]) -> int:
    """Tokens of a micro-batch, padding included."""
    return len(batch) * max(lengths[index] for index in batch)


def _share(total: int, groups: Sequence[tuple[int, int]]) -> list[int]:
    """Split `total` micro-batches among groups of (tokens, clips): by tokens, at least 1 and at most a batch a clip."""
    if len(groups) == 1:
        return [total]
    (first_tokens, first_clips), (second_tokens, second_clips) = groups
    first = round(total * first_tokens / (first_tokens + second_tokens))
    first = max(1, total - second_clips, min(first, first_clips, total - 1))
    return [first, total - first]


def _too_few(ranked: Sequence[int], lengths: Sequence[int], budget: int, accumulation: int, key: str) -> str:
    place = f"{key}: {len(ranked)} clips make fewer than 2 updates an epoch"
    batches = len(greedy(ranked, lengths, budget))
    steps = f"{key}.gradient_accumulation_steps"
    if len(ranked) < 2:
        return f"{place}; add recordings: training needs 2 clips or more"
    if batches > 1:
        return f"{place}, {batches} micro-batches with {steps} = {accumulation}; set {steps}={batches // 2}"
    finer = f"{key}.max_tokens_per_batch={smallest_budget(ranked, lengths, 2)}"
    return f"{place} of {budget} tokens; set {finer}" + (f" {steps}=1" if accumulation > 1 else "")
