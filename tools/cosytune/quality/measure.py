"""A clip's samples, before the loudness gain, and where speech is in them -> what the gates look at."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cosytune.audio import loudness
from cosytune.audio.span import Span

Samples = NDArray[np.float32] | NDArray[np.float64]
Power = NDArray[np.float64]

_FRAME_S, _SPECTRUM_S = 0.02, 0.04
_SILENT_DB = -120.0  # digital silence: put in, not recorded
_NOISE_PERCENTILE = 5  # speech pauses for more than this share of the time, if only to close the lips
_BESIDE_S = 0.3  # how far from speech the noise is measured: silence that was added says nothing of it
_AUDIBLE_DB = -55.0  # of the loudest band; speech up to 8 kHz stays above -45, what resampling leaves is below -70
_SMOOTH_HZ = 200.0
_EDGE_S = 0.01  # a sound that begins by itself is still below -15 dB after so long, even where a clip is cut tight
_PAUSES_S = 0.1  # with less than that the noise is looked for under the speech
_VALLEY = 0.1  # share of the time: how often a frequency holds nothing but noise, even in one long vowel


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
    spoken = _frames_in(speech, len(power), _FRAME_S)
    spoken_s = sum(span.duration_s for span in speech)
    level = float(np.mean(power[spoken])) if spoken.any() else 0.0
    spectra = _spectra(samples, rate_hz, speech)
    noise = _noise_of_pauses(power, spoken, speech) or _noise_under(spectra)
    return Measured(
        duration_s=duration_s,
        peak_dbfs=original.peak_dbfs,
        clipped_share=original.clipped_share,
        loudness_lufs=loudness_lufs if loudness_lufs is not None else _lufs(samples, rate_hz),
        snr_db=None if noise is None else max(-20.0, _db(level - noise) - _db(noise)),
        silence_share=min(1.0, max(0.0, 1 - spoken_s / duration_s)) if duration_s else 1.0,
        bandwidth_hz=_bandwidth_hz(spectra),
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


def _frames_in(spans: Sequence[Span], count: int, frame_s: float) -> NDArray[np.bool_]:
    """Which frames have their middle in one of the spans."""
    middles = (np.arange(count) + 0.5) * frame_s
    inside = np.zeros(count, bool)
    for span in spans:
        inside |= (middles >= span.start_s) & (middles <= span.end_s)
    return inside


def _spectra(samples: Samples, rate_hz: int, speech: Sequence[Span]) -> Power:
    """Power of the speech, [frames of 40 ms, a bin each 25 Hz]; the sum over the bins is the mean square."""
    size = round(_SPECTRUM_S * rate_hz)
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    spoken = frames[_frames_in(speech, len(frames), _SPECTRUM_S)].astype(np.float32)
    spoken -= spoken.mean(axis=1, keepdims=True)
    window = np.hanning(size).astype(np.float32)
    scale = 2 / (size * float(np.sum(window**2)))
    power: Power = scale * np.square(np.abs(scipy.fft.rfft(spoken * window, axis=1)), dtype=np.float64)
    return power


def _noise_of_pauses(power: Power, spoken: NDArray[np.bool_], speech: Sequence[Span]) -> float | None:
    """Mean square of the quietest frames among the speech and near it; None if there is hardly a pause."""
    around = [Span(span.start_s - _BESIDE_S, span.end_s + _BESIDE_S) for span in speech]
    near = power[_frames_in(around, len(power), _FRAME_S)]
    recorded = near[near > 10 ** (_SILENT_DB / 10)]
    if (len(recorded) - int(spoken.sum())) * _FRAME_S < _PAUSES_S:
        return None
    return float(np.percentile(recorded, _NOISE_PERCENTILE))


def _noise_under(spectra: Power) -> float | None:
    """Mean square of the noise under speech without pauses: what every frequency falls to now and then.

    The power of noise at one frequency is exponentially distributed, which gives its mean from its quantile.
    """
    if len(spectra) < 10:
        return None
    return float(np.sum(np.percentile(spectra[:, 1:], 100 * _VALLEY, axis=0))) / -math.log(1 - _VALLEY) or None


def _edge_db(edge: Samples, level: float, noise: float | None) -> float | None:
    """Level of the first or last 10 ms without the noise, against the speech's `level`."""
    if level <= 0:
        return None
    return max(-99.0, _db(float(np.var(edge, dtype=np.float64)) - (noise or 0.0)) - _db(level))


def _bandwidth_hz(spectra: Power) -> float | None:
    """The highest frequency whose level in the long-term spectrum of the speech is above `_AUDIBLE_DB`."""
    if not len(spectra):
        return None
    width = round(_SMOOTH_HZ * _SPECTRUM_S)
    smooth = np.convolve(np.mean(spectra, axis=0)[1:], np.ones(width) / width, "same")
    audible = np.flatnonzero(smooth > np.max(smooth) * 10 ** (_AUDIBLE_DB / 10))
    return float((audible[-1] + 1) / _SPECTRUM_S) if len(audible) else None
