"""Clips -> which of them are the same take, byte for byte or under another format, gain, rate or length of silence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Samples = NDArray[np.float32] | NDArray[np.float64]
Fingerprint = NDArray[np.float32]

_LOW_HZ, _HIGH_HZ, _BANDS = 200.0, 3400.0, 12  # what a telephone line passes: any copy has it
_HOP_S, _WINDOW_S = 0.01, 0.032
_CELLS = 80
_INNER = (0.01, 0.99)  # shares of the energy: silence at the ends has none, so it cannot move what lies between
_SILENCE_PERCENTILE, _SILENCE_FACTOR = 10, 2  # of the frames' energy: noise in the silence has none either
_FLOOR = 1e-4  # of the loudest cell: noise of an encoder is below
_LENGTH_TOLERANCE_S, _LENGTH_TOLERANCE = 0.02, 0.002  # what an encoder moves; 2 % in speed is more
_BLOCK = 512


@dataclass(frozen=True, order=True)
class Pair:
    """Two clips by their positions, first < second, and the cosine of their fingerprints."""

    first: int
    second: int
    similarity: float


def equal(digests: Mapping[str, str]) -> dict[str, str]:
    """Utterance -> digest of its samples: each later one, in sorted order, -> the first that has the same."""
    first: dict[str, str] = {}
    return {utt: kept for utt in sorted(digests) if (kept := first.setdefault(digests[utt], utt)) != utt}


def fingerprint(samples: Samples, rate_hz: int) -> Fingerprint | None:
    """float32 [1 + 12 * 80]: seconds that hold the inner 98 % of the energy, then its level over 12 bands and 80 times.

    The levels are in unit length without each band's mean, so gain and frequency response do not count. None if
    there is nothing to hear.
    """
    energy = _band_energy(samples, rate_hz)
    if len(energy) < 3:
        return None
    loud = energy.sum(axis=1)
    total = _integral(np.maximum(0.0, loud - _SILENCE_FACTOR * np.percentile(loud, _SILENCE_PERCENTILE)))
    if total[-1] <= 0:
        return None
    begin, end = np.interp(np.array(_INNER) * total[-1], total, np.arange(len(total)))
    borders = np.linspace(begin, end, _CELLS + 1)
    below = np.stack([np.interp(borders, np.arange(len(total)), _integral(band)) for band in energy.T])
    cells = np.diff(below, axis=1)
    level = np.log(cells + _FLOOR * cells.max())
    level -= level.mean(axis=1, keepdims=True)
    shape = level.ravel() / max(float(np.linalg.norm(level)), 1e-9)
    return np.concatenate([[(end - begin) * _HOP_S], shape]).astype(np.float32)


def near_duplicates(prints: Sequence[Fingerprint], threshold: float) -> list[Pair]:
    """Every pair with a similarity of `threshold` or more, sorted.

    Only clips of the same inner length are compared, in blocks of matrix products: 10,000 clips take seconds, and
    the memory is that of the fingerprints.
    """
    if len(prints) < 2:
        return []
    order = np.argsort([one[0] for one in prints], kind="stable")
    table = np.stack([prints[i] for i in order])
    pairs = [
        Pair(int(min(order[i], order[j])), int(max(order[i], order[j])), similarity)
        for i, j, similarity in _alike(table[:, 0], table[:, 1:], threshold)
    ]
    return sorted(pairs)


def _alike(lengths: Fingerprint, shapes: Fingerprint, threshold: float) -> Iterator[tuple[int, int, float]]:
    """Positions i < j in the table, which is sorted by length."""
    longest = lengths * (1 + _LENGTH_TOLERANCE) + _LENGTH_TOLERANCE_S
    ends = np.searchsorted(lengths, longest, side="right")
    for start in range(0, len(lengths), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(lengths)))
        for other in range(start, int(ends[rows[-1]]), _BLOCK):
            columns = np.arange(other, min(other + _BLOCK, int(ends[rows[-1]])))
            similar = shapes[rows] @ shapes[columns].T
            comparable = (columns > rows[:, None]) & (columns < ends[rows][:, None])
            for row, column in zip(*np.nonzero((similar >= threshold) & comparable), strict=True):
                yield int(rows[row]), int(columns[column]), float(similar[row, column])


def _band_energy(samples: Samples, rate_hz: int) -> NDArray[np.float64]:
    """[frames, 12], a frame every 10 ms."""
    size, hop = round(_WINDOW_S * rate_hz), round(_HOP_S * rate_hz)
    if len(samples) < size:
        return np.zeros((0, _BANDS))
    frames = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float32, copy=False), size)[::hop]
    power = np.square(np.abs(scipy.fft.rfft(frames * np.hanning(size).astype(np.float32), axis=1)), dtype=np.float64)
    hertz = np.geomspace(_LOW_HZ, _HIGH_HZ, _BANDS + 1)
    bins = np.round(hertz * size / rate_hz).astype(int)
    return np.add.reduceat(power, bins, axis=1)[:, :-1]


def _integral(band: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(band)])
