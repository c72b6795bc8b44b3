"""Clips -> disjoint train, cv and test sets, the same ones for the same seed.

A voice, a room and a mood are heard all through a take: a set that held clips of a take of another would be judged
by what was trained on. So a take goes to one set, whole. Only where no whole take gives a set its share, the largest
one is cut in time and its last clips go to that set.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cosytune.errors import UserError
from cosytune.schema import SplitConfig

_TEST_FROM_CLIPS = 10
"""With fewer clips than this every one is worth more in training than in the report."""


@dataclass(frozen=True)
class Clip:
    """What the split needs to know of a clip. `digest`: sha256 of its audio; `start_s`: its place in `recording`."""

    utt: str
    digest: str
    recording: str
    start_s: float = 0.0


@dataclass(frozen=True)
class Split:
    """`sets`: train, cv and test, each a sorted list of utterances. `by`: what was kept whole."""

    sets: dict[str, list[str]]
    by: str


Unit = list[Clip]
"""Clips that no set may share: those with the same audio."""
Block = list[Unit]
"""Units that one take, or one sound in two takes, holds together; in the order of time."""


class _Pool:
    """The blocks that are not given out yet, in the seed's order."""

    def __init__(self, blocks: list[Block]) -> None:
        self.blocks = blocks
        self.units = sum(map(len, blocks))
        self.cut = False

    def take(self, quota: int, leave: int) -> list[Clip]:
        """About `quota` clips, so that `leave` units or more are left: whole blocks that fit, else the end of one."""
        taken: list[Clip] = []
        left: list[Block] = []
        for block in self.blocks:
            if len(taken) + _clips(block) <= quota and self.units - len(block) >= leave:
                self.units -= len(block)
                taken += _flat(block)
            else:
                left.append(block)
        self.blocks = left
        if 2 * len(taken) < quota:
            taken += self._cut(quota - len(taken), leave)
        return taken

    def _cut(self, quota: int, leave: int) -> list[Clip]:
        """The last units of the largest block, or the smallest block when none can be cut."""
        taken: list[Clip] = []
        several = [block for block in self.blocks if len(block) > 1]
        block = max(several, key=_clips) if several else min(self.blocks, key=_clips)
        self.cut |= bool(several)
        while len(taken) < quota and len(block) > bool(several) and self.units > leave:
            taken += block.pop()
            self.units -= 1
        self.blocks = [one for one in self.blocks if one]
        return taken


def assign(clips: Iterable[Clip], settings: SplitConfig, seed: int) -> Split:
    """The clips in sets, whatever order they come in. Raises UserError when cv would leave nothing to train on."""
    given = sorted(clips, key=lambda one: (one.recording, one.start_s, one.utt))
    units = _units(given)
    total = len(given)
    if len(units) < 2:
        raise UserError(f"{total} clips with {len(units)} different sounds: training needs 2 or more; add recordings")
    pool = _Pool(sorted(_blocks(units), key=lambda block: _draw(seed, min(one.utt for one in _flat(block)))))
    test_clips = max(1, round(total * settings.test_fraction)) if total >= _TEST_FROM_CLIPS else 0
    cv_clips = max(1, round(total * settings.cv_fraction))
    # Whatever the fractions say, one sound is left for cv and one to train on.
    test = pool.take(test_clips, leave=2) if test_clips and len(units) > 2 else []
    cv = pool.take(cv_clips, leave=1)
    train = [clip for block in pool.blocks for clip in _flat(block)]
    sets = {"train": train, "cv": cv, "test": test}
    several = max(Counter(one.recording for one in given).values()) > 1
    by = "blocks of a recording" if pool.cut else "recording" if several else "clip"
    return Split({name: sorted(one.utt for one in members) for name, members in sets.items()}, by)


def _units(clips: Sequence[Clip]) -> list[Unit]:
    units: dict[str, Unit] = {}
    for clip in clips:
        units.setdefault(clip.digest, []).append(clip)
    return list(units.values())


def _blocks(units: Sequence[Unit]) -> list[Block]:
    """Union of the takes that share a sound. Units come, and stay, in the order of their first clips."""
    parent: dict[str, str] = {}

    def root(recording: str) -> str:
        while (above := parent.setdefault(recording, recording)) != recording:
            recording = above
        return recording

    for unit in units:
        for clip in unit:
            parent[root(clip.recording)] = root(unit[0].recording)
    blocks: dict[str, Block] = {}
    for unit in units:
        blocks.setdefault(root(unit[0].recording), []).append(unit)
    return list(blocks.values())


def _clips(block: Block) -> int:
    return sum(map(len, block))


def _flat(block: Block) -> list[Clip]:
    return [clip for unit in block for clip in unit]


def _draw(seed: int, utt: str) -> str:
    return hashlib.sha256(f"{seed} {utt}".encode()).hexdigest()
