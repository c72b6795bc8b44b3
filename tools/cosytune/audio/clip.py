"""Samples of one clip -> a 16-bit WAV at one loudness; the same samples, the same bytes."""

from __future__ import annotations

import hashlib
import io
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cosytune import files
from cosytune.audio import loudness, sox
from cosytune.schema import AudioConfig


@dataclass(frozen=True)
class Clip:
    """What was written. `source_lufs`: before the gain; `true_peak_dbfs`: after it; `digest`: sha256 of the samples."""

    duration_s: float
    loudness_lufs: float
    source_lufs: float
    gain_db: float
    true_peak_dbfs: float
    digest: str


def write_clip(samples: NDArray[np.float32], destination: Path, settings: AudioConfig) -> Clip | None:
    """Mono samples [n] at the settings' rate -> `destination`, atomically; None, and nothing, if there is no sound.

    Two passes: measured first (BS.1770), then one gain for the whole clip, less where the true peak would pass the
    ceiling.
    """
    exact = samples.astype(np.float64)
    source_lufs = loudness.measure_lufs(exact, settings.sample_rate_hz)
    if source_lufs is None:
        return None
    true_peak_dbfs = loudness.true_peak_dbfs(samples)
    gain_db = min(settings.loudness_lufs - source_lufs, settings.peak_ceiling_dbfs - true_peak_dbfs)
    pcm = sox.dither(exact * 10 ** (gain_db / 20), settings.sample_rate_hz)
    files.write_bytes(destination, _wav(pcm, settings.sample_rate_hz))
    return Clip(
        duration_s=len(samples) / settings.sample_rate_hz,
        loudness_lufs=round(source_lufs + gain_db, 2),
        source_lufs=round(source_lufs, 2),
        gain_db=round(gain_db, 2),
        true_peak_dbfs=round(true_peak_dbfs + gain_db, 2),
        digest=hashlib.sha256(pcm).hexdigest(),
    )


def _wav(pcm: bytes, rate_hz: int) -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(rate_hz)
        wav.writeframes(pcm)
    return content.getvalue()
