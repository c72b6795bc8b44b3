"""Clip lengths and a token budget -> which clips make one update, and how an update is cut into micro-batches.

Every clip is in exactly one update of every epoch, every epoch has the same number of updates, and nothing is left over
at its end. Which clips make an update depends on `tokens_per_update` alone. How it is cut depends on the memory and the
number of processes, so neither changes what is learned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cosytune.errors import UserError
from cosytune.schema import ModuleTrainConfig
from cosytune.training import draws
from cosytune.training.draws import Epoch

MicroBatch = list[int]
"""Positions of clips in the feature cache."""
Update = list[MicroBatch]
"""Clips of about one length and of one coin stand together; `share` cuts them further."""

_AUTO_TOKENS = 2000
_AUTO_UPDATES = 4
_MIXING = 0.15
"""Clips whose lengths differ by less than this share swap places from epoch to epoch."""


SUMMARY = (
    "{clips} clips, {tokens} tokens; {updates_per_epoch} updates an epoch of about {tokens_per_update} tokens, "
    "{total_updates} in {epochs} epochs; {micro_batches_per_epoch} micro-batches an epoch, each of at most "
    "{max_tokens_per_batch} tokens ({padding_share:.1%} padding); {cv_clips} clips for cross-validation"
)


@dataclass(frozen=True)
class Plan:
    """What one training run does. Lengths are in tokens.

    tokens_per_update: text and speech tokens of one update, about. max_tokens_per_batch: of one micro-batch at most,
    padding included. pieces: length buckets that one update draws from.
    """

    utts: Sequence[str]
    lengths: Sequence[int]
    tokens_per_update: int
    max_tokens_per_batch: int
    pieces: int
    updates_per_epoch: int
    total_updates: int

    @property
    def epochs(self) -> int:
        """Epochs begun; `max_steps` may end within the last one."""
        return -(-self.total_updates // self.updates_per_epoch)

    def epoch(self, epoch: Epoch, coin: Callable[[str], bool]) -> list[Update]:
        """The updates of one epoch. Clips of a micro-batch have the same `coin`, which upstream's flow asks for."""
        mixing = 1 + _MIXING * (draws.order(epoch, self.utts) - 0.5)
        ranked = sorted(range(len(self.utts)), key=lambda index: (self.lengths[index] * mixing[index], index))
        groups = by_coin(ranked, self.utts, coin)
        count = min(self.updates_per_epoch * self.pieces, len(ranked))
        shares = _share(count, [(self._tokens(group), len(group)) for group in groups])
        batches = [
            batch for group, share in zip(groups, shares, strict=True) for batch in cut(group, self.lengths, share)
        ]
        mixed = [batches[index] for index in draws.shuffled(epoch, len(batches))]
        return [mixed[number :: self.updates_per_epoch] for number in range(self.updates_per_epoch)]

    def padding_share(self, updates: Sequence[Update]) -> float:
        """The part of the positions that is padding."""
        batches = [batch for update in updates for batch in self.micro_batches(update)]
        padded = sum(padded_tokens(batch, self.lengths) for batch in batches)
        return 1 - self._tokens([index for batch in batches for index in batch]) / padded

    def micro_batches(self, update: Update) -> list[MicroBatch]:
        """The update, cut for one process."""
        return within(update, self.lengths, self.max_tokens_per_batch)

    def summary(self, module: str, cv_clips: int, first: Sequence[Update]) -> dict[str, Any]:
        """What plan.json says, and SUMMARY in words. `first`: the updates of the first epoch."""
        micro_batches = sum(len(self.micro_batches(update)) for update in first)
        return {
            "module": module,
            "clips": len(self.utts),
            "tokens": sum(self.lengths),
            "cv_clips": cv_clips,
            "tokens_per_update": self.tokens_per_update,
            "max_tokens_per_batch": self.max_tokens_per_batch,
            "micro_batches_per_epoch": micro_batches,
            "updates_per_epoch": self.updates_per_epoch,
            "epochs": self.epochs,
            "total_updates": self.total_updates,
            "padding_share": round(self.padding_share(first), 4),
        }

    def _tokens(self, indices: Sequence[int]) -> int:
        return sum(self.lengths[index] for index in indices)


def make(utts: Sequence[str], lengths: Sequence[int], settings: ModuleTrainConfig, budget: int, key: str) -> Plan:
    """Settle the number of updates. `budget`: tokens of a micro-batch that the memory has room for.

    Raises UserError, with the value to set under `key` (train.llm or train.flow), when a clip does not fit into the
    budget that the settings ask for, or an epoch would have fewer than 2 updates.
    """
    longest = max(range(len(utts)), key=lambda index: lengths[index])
    if settings.max_tokens_per_batch != "auto" and lengths[longest] > budget:
        raise UserError(
            f"{key}.max_tokens_per_batch = {budget}: '{utts[longest]}' has {lengths[longest]} tokens; "
            f"set it to {lengths[longest]} or more"
        )
    budget = max(budget, lengths[longest])
    total = sum(lengths)
    steps = settings.gradient_accumulation_steps
    if steps != "auto":
        tokens = steps * budget
    elif settings.tokens_per_update != "auto":
        tokens = settings.tokens_per_update
    else:
        tokens = min(_AUTO_TOKENS, -(-total // _AUTO_UPDATES))
    updates = min(len(utts), -(-total // tokens))
    if updates < 2:
        raise UserError(_too_few(len(utts), total, tokens, settings, key))
    total_updates = settings.max_steps if settings.max_steps > 0 else updates * settings.num_train_epochs
    pieces = 1 if steps == "auto" else steps
    return Plan(tuple(utts), tuple(lengths), tokens, budget, pieces, updates, total_updates)


def within(update: Update, lengths: Sequence[int], budget: int) -> list[MicroBatch]:
    """The update cut into micro-batches of at most `budget` padded tokens; a longer clip has one of its own."""
    return [part for batch in update for part in cut(batch, lengths, len(greedy(batch, lengths, budget)))]


def share(update: Update, lengths: Sequence[int], budget: int, ranks: int) -> list[list[MicroBatch]]:
    """The micro-batches of each of `ranks` processes, with about the same work for each.

    One that there is no clip for gets none.
    """
    batches = within(update, lengths, budget)
    while len(batches) < ranks and any(len(batch) > 1 for batch in batches):
        _halve_largest(batches, lengths)
    if ranks == 1:
        return [batches]
    shares: list[list[MicroBatch]] = [[] for _ in range(ranks)]
    loads = [0] * ranks
    for batch in sorted(batches, key=lambda batch: -padded_tokens(batch, lengths)):
        rank = loads.index(min(loads))
        shares[rank].append(batch)
        loads[rank] += padded_tokens(batch, lengths)
    return shares


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
        _halve_largest(batches, lengths)
    return batches


def _halve_largest(batches: list[MicroBatch], lengths: Sequence[int]) -> None:
    largest = max((batch for batch in batches if len(batch) > 1), key=lambda batch: padded_tokens(batch, lengths))
    place, half = batches.index(largest), len(largest) // 2
    batches[place : place + 1] = [largest[:half], largest[half:]]


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


def _too_few(clips: int, total: int, tokens: int, settings: ModuleTrainConfig, key: str) -> str:
    place = f"{key}: {clips} clips make fewer than 2 updates an epoch"
    if clips < 2:
        return f"{place}; add recordings: training needs 2 clips or more"
    place = f"{place}: they have {total} tokens, an update {tokens}"
    steps = settings.gradient_accumulation_steps
    if steps == "auto":
        return f"{place}; set {key}.tokens_per_update={total // 2}"
    fewer = steps * total // tokens - 1
    if fewer >= 1 and -(-total // (tokens // steps * fewer)) >= 2:
        return f"{place}; set {key}.gradient_accumulation_steps={fewer}"
    return f"{place}; set {key}.gradient_accumulation_steps=auto {key}.tokens_per_update={total // 2}"
