"""Samples -> their loudness and their true peak (ITU-R BS.1770)."""

from __future__ import annotations

import numpy as np
import pyloudnorm
import soxr
from numpy.typing import NDArray

Samples = NDArray[np.float32] | NDArray[np.float64]

SILENCE_DBFS = -60.0
"""A recording or a channel whose peak stays below this holds no speech."""

_BLOCK_S = 0.4  # BS.1770 measures in blocks of this length
_OVERSAMPLING = 4  # BS.1770-4, annex 2: the true peak lies between samples


def dbfs(amplitude: float) -> float:
    """Full scale = 1 is 0; digital silence is -200."""
    return max(-200.0, 20 * float(np.log10(amplitude))) if amplitude > 0 else -200.0


def peak_dbfs(samples: Samples) -> float:
    """The largest sample."""
    return dbfs(max(float(np.max(samples, initial=0.0)), -float(np.min(samples, initial=0.0))))


def true_peak_dbfs(samples: Samples) -> float:
    """The largest value of the 4 times oversampled signal; single precision is more than enough for that."""
    return max(peak_dbfs(samples), peak_dbfs(soxr.resample(samples.astype(np.float32), 1, _OVERSAMPLING)))


def measure_lufs(samples: Samples, rate_hz: int) -> float | None:
    """Integrated loudness of mono samples [n]; None if nothing in them is loud enough to count.

    The signal is measured at full scale: the gate at -70 LUFS is meant for programmes, not for a quiet microphone.
    A clip shorter than one block is repeated until it fills one.
    """
    level_dbfs = peak_dbfs(samples)
    if level_dbfs <= -200:
        return None
    scaled = samples.astype(np.float64) * 10 ** (-level_dbfs / 20)
    shortest = int(np.ceil(_BLOCK_S * rate_hz)) + 1
    if len(scaled) < shortest:
        scaled = np.resize(scaled, shortest)
    with np.errstate(divide="ignore"):  # a silent block is log10(0), and gated out
        loudness = float(pyloudnorm.Meter(rate_hz, block_size=_BLOCK_S).integrated_loudness(scaled))
    return loudness + level_dbfs if np.isfinite(loudness) else None
