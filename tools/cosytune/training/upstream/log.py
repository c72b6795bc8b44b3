"""A line of upstream's log -> what it says: a batch, a cross-validation, a saved epoch, a clip that was dropped.

The lines are those of its train_utils.py and of our patches; `read` gives None for all others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

_BATCH = re.compile(r" INFO TRAIN Batch (\d+)/(\d+) (.*) lr (\S+) grad_norm (\S+)\s+rank (\d+)$")
_CV = re.compile(r" INFO Epoch (-?\d+) Step (\d+) CV info lr \S+ (\d+) rank ?(.*)$")
_SAVED = re.compile(r" INFO \[Rank 0\] Checkpoint: save to checkpoint .*?([^/]+)\.pt$")
_DROPPED = re.compile(r" WARNING dropped (\S+): (.+) \S+, (.+)$")
_UNREADABLE = re.compile(r" WARNING Failed to open (.+), ex info (.*)$")
_KILLED = re.compile(r"exitcode\s*:\s*-(\d+)")
_SUMMARY = re.compile(r"^E\d{4} .*torch/distributed/elastic|ChildFailedError")
_TAIL_LINES = 12


@dataclass(frozen=True)
class Batch:
    """One forward and backward pass of one rank. `epoch` counts from 0, `number` from 1 within it.

    loss: the batch's own mean, divided by accum_grad, as upstream logs it.
    """

    epoch: int
    number: int
    rank: int
    loss: float
    accuracy: float | None
    learning_rate: float
    gradient_norm: float


@dataclass(frozen=True)
class Validation:
    """The cv loss after an epoch (from 0; -1: before the first) and `updates`: the mean of the batches' means, weighted
    by their clips. None: no clip came through.
    """

    epoch: int
    updates: int
    rank: int
    loss: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Saved:
    """`init`, or `epoch_<N>_whole`: it is written whole when this line is."""

    name: str


@dataclass(frozen=True)
class Dropped:
    """By each worker and in each epoch anew. reason: what was measured, and the limit."""

    utt: str
    reason: str


@dataclass(frozen=True)
class Unreadable:
    """Upstream goes on without all the clips of such a parquet file."""

    path: str
    reason: str


Event = Batch | Validation | Saved | Dropped | Unreadable


def read(line: str) -> Event | None:
    """What the line says; None for what nobody here waits for."""
    if found := _BATCH.search(line):
        losses = _losses(found[3])
        return Batch(
            epoch=int(found[1]),
            number=int(found[2]),
            rank=int(found[6]),
            loss=losses.get("loss", math.nan),
            accuracy=losses.get("acc"),
            learning_rate=float(found[4]),
            gradient_norm=float(found[5]),
        )
    if found := _CV.search(line):
        losses = _losses(found[4])
        # it counts from the update that would come next
        return Validation(int(found[1]), int(found[2]) - 1, int(found[3]), losses.get("loss"), losses.get("acc"))
    if found := _SAVED.search(line):
        return Saved(found[1])
    if found := _DROPPED.search(line):
        return Dropped(found[1], f"{found[2]}, {found[3]}")
    if found := _UNREADABLE.search(line):
        return Unreadable(found[1], found[2])
    return None


def cause(lines: Sequence[str]) -> str:
    """The end of the log of a trainer that failed: the lines before torchrun's own, and the signal that killed it."""
    end = next((number for number, line in enumerate(lines) if _SUMMARY.search(line)), len(lines))
    last = [line for line in lines[:end] if line.strip()][-_TAIL_LINES:]
    if killed := next((found for line in lines if (found := _KILLED.search(line))), None):
        last.append(f"one of its processes was killed by signal {killed[1]}")
    return "".join(f"\n    {line}" for line in last)


def _losses(text: str) -> dict[str, float]:
    """`loss 3.2 acc 0.1` -> {"loss": 3.2, "acc": 0.1}."""
    words = text.split()
    return {name: float(value) for name, value in zip(words[::2], words[1::2], strict=False)}
