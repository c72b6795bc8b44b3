"""Samples of clips -> 16-bit WAVs at one loudness; the same samples, the same bytes."""

from __future__ import annotations

import hashlib
import io
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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


def write_clips(
    clips: Sequence[NDArray[np.float32]], destinations: Sequence[Path], settings: AudioConfig
) -> list[Clip | None]:
    """Mono samples [n] each, at the settings' rate -> WAVs; None, and no file, where there is no sound.

    Two passes: measured first (BS.1770), then one gain for the whole clip, less where the true peak would pass the
    ceiling. The dither of a clip depends on those before it, so what is written together should belong together.
    """
    levels = [_level(samples, settings) for samples in clips]
    louder = [
        samples * np.float32(10 ** (level.gain_db / 20))
        for samples, level in zip(clips, levels, strict=True)
        if level is not None
    ]
    pcm = sox.dither(np.concatenate(louder), settings.sample_rate_hz) if louder else b""
    written: list[Clip | None] = []
    start = 0
    for samples, level, destination in zip(clips, levels, destinations, strict=True):
        if level is None:
            written.append(None)
            continue
        own = pcm[start : start + 2 * len(samples)]
        start += len(own)
        destination.write_bytes(_wav(own, settings.sample_rate_hz))
        written.append(level.of(own, settings.sample_rate_hz))
    return written


@dataclass(frozen=True)
class _Level:
    lufs: float
    true_peak_dbfs: float
    gain_db: float

    def of(self, pcm: bytes, rate_hz: int) -> Clip:
        return Clip(
            duration_s=len(pcm) / 2 / rate_hz,
            loudness_lufs=round(self.lufs + self.gain_db, 2),
            source_lufs=round(self.lufs, 2),
            gain_db=round(self.gain_db, 2),
            true_peak_dbfs=round(self.true_peak_dbfs + self.gain_db, 2),
            digest=hashlib.sha256(pcm).hexdigest(),
        )


def _level(samples: NDArray[np.float32], settings: AudioConfig) -> _Level | None:
    lufs = loudness.measure_lufs(samples, settings.sample_rate_hz)
    if lufs is None:
        return None
    true_peak_dbfs = loudness.true_peak_dbfs(samples)
    gain_db = min(settings.loudness_lufs - lufs, settings.peak_ceiling_dbfs - true_peak_dbfs)
    return _Level(lufs, true_peak_dbfs, gain_db)


def _wav(pcm: bytes, rate_hz: int) -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(rate_hz)
        wav.writeframes(pcm)
    return content.getvalue()
