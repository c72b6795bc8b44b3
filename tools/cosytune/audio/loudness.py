"""Samples -> their loudness (ITU-R BS.1770), and the gain that brings them to a target without clipping."""

from __future__ import annotations

import numpy as np
import pyloudnorm
from numpy.typing import NDArray
from scipy.signal import resample_poly

Samples = NDArray[np.float64]

SILENCE_DBFS = -60.0
"""A recording or a channel whose peak stays below this holds no speech."""

_BLOCK_S = 0.4  # BS.1770 measures in blocks of this length
_OVERSAMPLING = 4  # BS.1770-4, annex 2: the true peak lies between samples


def peak_dbfs(samples: Samples) -> float:
    """The largest sample, full scale = 1; -200 for digital silence."""
    peak = float(np.max(np.abs(samples), initial=0.0))
    return max(-200.0, 20 * float(np.log10(peak))) if peak > 0 else -200.0


def true_peak_dbfs(samples: Samples) -> float:
    """The largest value of the 4 times oversampled signal."""
    return max(peak_dbfs(samples), peak_dbfs(np.asarray(resample_poly(samples, _OVERSAMPLING, 1))))


def measure_lufs(samples: Samples, rate_hz: int) -> float | None:
    """Integrated loudness of mono samples [n]; None if nothing in them is loud enough to count.

    The signal is measured at full scale: the gate at -70 LUFS is meant for programmes, not for a quiet microphone.
    A clip shorter than one block is repeated until it fills one.
    """
    level_dbfs = peak_dbfs(samples)
    if level_dbfs <= -200:
        return None
    scaled = samples * 10 ** (-level_dbfs / 20)
    shortest = int(np.ceil(_BLOCK_S * rate_hz)) + 1
    if len(scaled) < shortest:
        scaled = np.resize(scaled, shortest)
    with np.errstate(divide="ignore"):  # a silent block is log10(0), and gated out
        loudness = float(pyloudnorm.Meter(rate_hz, block_size=_BLOCK_S).integrated_loudness(scaled))
    return loudness + level_dbfs if np.isfinite(loudness) else None


def gain_db(loudness_lufs: float, samples: Samples, target_lufs: float, ceiling_dbfs: float) -> float:
    """What to add to reach the target, or less, so that the true peak stays at the ceiling."""
    return min(target_lufs - loudness_lufs, ceiling_dbfs - true_peak_dbfs(samples))


def mix_to_mono(samples: Samples) -> Samples:
    """[frames, channels] -> [frames]: the mean of the channels that carry sound; a dead one would only halve it."""
    alive = [channel for channel in samples.T if peak_dbfs(channel) >= SILENCE_DBFS]
    mono: Samples = np.mean(alive or samples.T, axis=0)
    return mono
