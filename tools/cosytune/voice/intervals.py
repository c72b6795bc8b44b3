"""Scores of many sentences -> one figure and how far it could be off, had other sentences been spoken.

A bootstrap: sentences are drawn with replacement, all takes of a sentence together, and the figure is computed anew,
2000 times; the middle 95 % are its interval. It is seeded: the same scores give the same interval.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosytune.voice import scoring

RESAMPLES = 2000
_PERCENTILES = (2.5, 97.5)
_SEED = 1986
Sums = NDArray[np.float64]
"""float64 [sentences, 2]: what the takes of a sentence weigh times their scores, and what they weigh."""


@dataclass(frozen=True)
class Figure:
    """`low` and `high`: the 95 % interval; None where a single sentence says nothing about others."""

    value: float
    low: float | None
    high: float | None


def sums(takes: Iterable[tuple[str, Mapping[str, Any]]], key: str) -> Sums:
    """(sentence, scores) of every take -> the sums of one metric; a sentence that has no such score is left out."""
    by_sentence: dict[str, list[tuple[float, float]]] = {}
    for sentence, scores in takes:
        if (pair := scoring.weighed(scores, scoring.METRICS[key], key)) is not None:
            by_sentence.setdefault(sentence, []).append(pair)
    rows = [(sum(v * w for v, w in pairs), sum(w for _, w in pairs)) for pairs in by_sentence.values()]
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def figure(of: Sums) -> Figure | None:
    """The weighted mean with its interval; None of nothing."""
    return _figure(_mean(of.sum(axis=0)), _resampled(of)) if len(of) else None


def share_of_the_way(of: Sums, start: Sums, goal: Sums) -> Figure | None:
    """(of - start) / (goal - start): 0 is where the untuned base is, 1 where the real clips are.

    `of` and `start` are of the same sentences, which are drawn together; the goal's are drawn by themselves. None where
    the goal is not beyond the start.
    """
    if not (len(of) and len(start) and len(goal)):
        return None
    ends = _mean(start.sum(axis=0)), _mean(goal.sum(axis=0))
    if not ends[0] < ends[1]:
        return None
    value = (_mean(of.sum(axis=0)) - ends[0]) / (ends[1] - ends[0])
    first, last = _resampled(start), _resampled(goal, seed=_SEED + 1)
    return _figure(value, (_resampled(of) - first) / (last - first) if min(len(of), len(goal)) > 1 else None)


def as_json(found: Figure | None) -> dict[str, float | None] | None:
    """For scores.json."""
    return None if found is None else {"value": found.value, "low": found.low, "high": found.high}


def _figure(value: float, resampled: NDArray[np.float64] | None) -> Figure:
    if resampled is None or len(resampled) == 0:
        return Figure(value, None, None)
    low, high = np.percentile(resampled, _PERCENTILES)
    return Figure(value, float(low), float(high))


def _resampled(of: Sums, seed: int = _SEED) -> NDArray[np.float64]:
    """The mean of every resample, float64 [RESAMPLES]; the same sentences for sums of as many; [] of a single one."""
    if len(of) < 2:
        return np.empty(0)
    draws = np.random.default_rng(seed).integers(0, len(of), (RESAMPLES, len(of)))
    totals = of[draws].sum(axis=1)
    means: NDArray[np.float64] = totals[:, 0] / totals[:, 1]
    return means


def _mean(total: Sequence[float] | NDArray[np.float64]) -> float:
    return float(total[0] / total[1])
