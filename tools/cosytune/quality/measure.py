"""A clip's samples, before the loudness gain, and where speech is in them -> what the gates look at."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cosytune.audio import loudness
from cosytune.audio.span import Span

Samples = NDArray[np.float32] | NDArray[np.float64]
Power = NDArray[np.float64]

_FRAME_S = 0.02
_SILENT_DB = -120.0  # digital silence: put in, not recorded
_NOISE_PERCENTILE = 5  # speech pauses for more than this share of the time, if only to close the lips
_BESIDE_S = 0.3  # how far from speech the noise is measured: silence that was added says nothing of it
_AUDIBLE_DB = -55.0  # of the loudest band; speech up to 8 kHz stays above -45, what resampling leaves is below -70
_SMOOTH_HZ = 200.0
_EDGE_S = 0.01  # a sound that begins by itself is still below -15 dB after so long, even where a clip is cut tight
_PAUSES_S, _LONG_S = 0.1, 3.0  # the noise of a clip with fewer pauses than that and less speech cannot be told


@dataclass(frozen=True)
class Original:
    """Facts of this stretch of the recording as it was given: at its own rate, before mixing. Full scale = 1."""

    clipped_share: float
    dc_offset: float
    peak_dbfs: float


@dataclass(frozen=True)
class Measured:
    """Loudness, peak and offset as in the recording. Levels of the ends: against the level of the speech.

    None: nothing to be told from so little, or from silence.
    """

    duration_s: float
    peak_dbfs: float
    clipped_share: float
    loudness_lufs: float | None
    snr_db: float | None
    silence_share: float
    bandwidth_hz: float | None
    dc_offset: float
    start_level_db: float | None
    end_level_db: float | None

    @property
    def speech_s(self) -> float:
        return self.duration_s * (1 - self.silence_share)

    def as_dict(self) -> dict[str, float | None]:
        """Rounded for report.json."""
        digits = {"duration_s": 3, "clipped_share": 6, "silence_share": 3, "bandwidth_hz": 0, "dc_offset": 4}
        return {
            name: None if value is None else round(value, digits.get(name, 2))
            for name, value in dataclasses.asdict(self).items()
        }


def measure(
    samples: Samples, rate_hz: int, speech: Sequence[Span], original: Original, loudness_lufs: float | None = None
) -> Measured:
    """`samples`: mono [n], full scale = 1. `speech`: in the clip's own time. `loudness_lufs`: if already known."""
    duration_s = len(samples) / rate_hz
    power = _frame_power(samples, rate_hz)
    spoken = _frames_in(speech, len(power))
    spoken_s = sum(span.duration_s for span in speech)
    level = float(np.mean(power[spoken])) if spoken.any() else 0.0
    noise = _noise(power, spoken, speech)
    return Measured(
        duration_s=duration_s,
        peak_dbfs=original.peak_dbfs,
        clipped_share=original.clipped_share,
        loudness_lufs=loudness_lufs if loudness_lufs is not None else _lufs(samples, rate_hz),
        snr_db=None if noise is None else max(-20.0, _db(level - noise) - _db(noise)),
        silence_share=min(1.0, max(0.0, 1 - spoken_s / duration_s)) if duration_s else 1.0,
        bandwidth_hz=_bandwidth_hz(samples, rate_hz, speech),
        dc_offset=original.dc_offset,
        start_level_db=_edge_db(samples[: round(_EDGE_S * rate_hz)], level, noise),
        end_level_db=_edge_db(samples[-round(_EDGE_S * rate_hz) :], level, noise),
    )


def _lufs(samples: Samples, rate_hz: int) -> float | None:
    return loudness.measure_lufs(samples.astype(np.float64), rate_hz)


def _db(power: float) -> float:
    return 10 * float(np.log10(max(power, 1e-20)))


def _frame_power(samples: Samples, rate_hz: int) -> Power:
    """Mean square of every whole frame of 20 ms, without its offset: [frames]."""
    size = round(_FRAME_S * rate_hz)
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    power: Power = np.var(frames, axis=1, dtype=np.float64)
    return power


def _frames_in(spans: Sequence[Span], count: int) -> NDArray[np.bool_]:
    """Which frames have their middle in one of the spans."""
    middles = (np.arange(count) + 0.5) * _FRAME_S
    inside = np.zeros(count, bool)
    for span in spans:
        inside |= (middles >= span.start_s) & (middles <= span.end_s)
    return inside


def _noise(power: Power, spoken: NDArray[np.bool_], speech: Sequence[Span]) -> float | None:
    """Mean square of the quietest frames among the speech and near it.

    A long clip that is cut tight may have no pauses, so the quietest frames of the speech count too: they can only
    make the noise too high, and by little, since lips close and breath is drawn every second.
    """
    around = [Span(span.start_s - _BESIDE_S, span.end_s + _BESIDE_S) for span in speech]
    near = power[_frames_in(around, len(power))]
    recorded = near[near > 10 ** (_SILENT_DB / 10)]
    spoken_s, pauses_s = _FRAME_S * int(spoken.sum()), _FRAME_S * (len(recorded) - int(spoken.sum()))
    if not spoken_s or not len(recorded) or (pauses_s < _PAUSES_S and spoken_s < _LONG_S):
        return None
    return float(np.percentile(recorded, _NOISE_PERCENTILE))


def _edge_db(edge: Samples, level: float, noise: float | None) -> float | None:
    """Level of the first or last 10 ms without the noise, against the speech's `level`."""
    if level <= 0:
        return None
    return max(-99.0, _db(float(np.var(edge, dtype=np.float64)) - (noise or 0.0)) - _db(level))


def _bandwidth_hz(samples: Samples, rate_hz: int, speech: Sequence[Span]) -> float | None:
    """The highest frequency whose level in the long-term spectrum of the speech is above `_AUDIBLE_DB`."""
    size = round(2 * _FRAME_S * rate_hz)
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    middles = (np.arange(len(frames)) + 0.5) * size / rate_hz
    spoken = np.zeros(len(frames), bool)
    for span in speech:
        spoken |= (middles >= span.start_s) & (middles <= span.end_s)
    if not spoken.any():
        return None
    windowed = frames[spoken].astype(np.float32) * np.hanning(size).astype(np.float32)
    spectrum = np.mean(np.square(np.abs(scipy.fft.rfft(windowed, axis=1)), dtype=np.float64), axis=0)
    bin_hz = rate_hz / size
    width = max(1, round(_SMOOTH_HZ / bin_hz))
    smooth = np.convolve(spectrum[1:], np.ones(width) / width, "same")  # without the offset
    audible = np.flatnonzero(smooth > np.max(smooth) * 10 ** (_AUDIBLE_DB / 10))
    return float((audible[-1] + 1) * bin_hz) if len(audible) else None
