"""A working track (raw float32, mono) -> what is heard in it: how probable speech is, and how loud it is, over time.

Parts of a long recording are heard on their own, in as many processes as there are, and joined.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from cosytune.audio.span import Span
from cosytune.audio.vad import RATE_HZ, SpeechDetector, frames_in, speech_spans

LEVEL_S = 0.01
_LEVELS_PER_S = 100
PART_S = 300  # a multiple of WARM_UP_S

_WARM_UP_S = 4  # what the detector hears before its part; whole frames and whole samples at any rate in Hz
_BLOCK_SAMPLES = 1 << 18
_FLOOR_DB = -120.0  # digital silence
_LOUD_PERCENTILE, _LOUD_DB = 99.0, -12.0


@dataclass(frozen=True)
class Heard:
    """probabilities: float32 [frames of 32 ms]; levels_db: float32 [frames of 10 ms], RMS in dBFS, -120 or more."""

    probabilities: NDArray[np.float32]
    levels_db: NDArray[np.float32]
    duration_s: float

    def speech(self, threshold: float) -> list[Span]:
        """Spans of speech, in order, short pauses left out of them; see `speech_spans`."""
        return speech_spans(self.probabilities, self.duration_s, threshold)


def parts(samples: int, rate_hz: int) -> list[tuple[int, int]]:
    """The parts [start, end) of a track that are heard one by one and joined in this order, five minutes each."""
    size = PART_S * rate_hz
    return [(start, min(start + size, samples)) for start in range(0, samples, size)]


def join(heard: Sequence[Heard]) -> Heard:
    """The parts of one track, in order -> the whole."""
    return Heard(
        np.concatenate([part.probabilities for part in heard]),
        np.concatenate([part.levels_db for part in heard]),
        sum(part.duration_s for part in heard),
    )


def listen(track: Path, rate_hz: int, start: int, end: int, detector: SpeechDetector) -> Heard:
    """Samples [start, end) of a track of little-endian float32; `start` is one that `parts` gives.

    The detector was trained on speech at a usual level and is at a loss 50 dB below it. So the part is scaled until
    its loudest hundredth lies at -12 dBFS; noise alone is no speech at any level. Memory: a few blocks.
    """
    if end <= start:
        return Heard(np.zeros(0, np.float32), np.zeros(0, np.float32), 0.0)
    levels_db = _levels_db(track, rate_hz, start, end)
    gain = 10 ** ((_LOUD_DB - float(np.percentile(levels_db, _LOUD_PERCENTILE))) / 20)
    before = min(_WARM_UP_S * rate_hz, start)
    # Silence where there is nothing to hear before: a detector that starts cold misses a first word that comes at once.
    blocks = itertools.chain([np.zeros(_WARM_UP_S * rate_hz - before, np.float32)], _read(track, start - before, end))
    probabilities = detector.probabilities(_at_detector_rate(blocks, rate_hz, gain))
    first, count = frames_in(_WARM_UP_S), frames_in((end - start) / rate_hz)
    return Heard(probabilities[first : first + count], levels_db, (end - start) / rate_hz)


def _levels_db(track: Path, rate_hz: int, start: int, end: int) -> NDArray[np.float32]:
    """RMS of every 10 ms of [start, end), the last ones shorter."""
    count = -(-(end - start) * _LEVELS_PER_S // rate_hz)
    edges = np.minimum(start + np.arange(count + 1) * rate_hz // _LEVELS_PER_S, end)
    power = np.zeros(count)
    per_block = max(1, _BLOCK_SAMPLES * _LEVELS_PER_S // rate_hz)
    for first in range(0, count, per_block):
        own = edges[first : first + per_block + 1]
        squares = np.square(np.concatenate(list(_read(track, int(own[0]), int(own[-1])))), dtype=np.float64)
        power[first : first + len(own) - 1] = np.add.reduceat(squares, own[:-1] - own[0]) / np.diff(own)
    levels: NDArray[np.float32] = 10 * np.log10(np.maximum(power, 10 ** (_FLOOR_DB / 10))).astype(np.float32)
    return levels


def _read(track: Path, start: int, end: int) -> Iterator[NDArray[np.float32]]:
    """Samples [start, end), as far as the track goes."""
    with track.open("rb") as file:
        file.seek(4 * start)
        while start < end and len(block := np.fromfile(file, "<f4", min(_BLOCK_SAMPLES, end - start))):
            start += len(block)
            yield block


def _at_detector_rate(
    blocks: Iterator[NDArray[np.float32]], rate_hz: int, gain: float
) -> Iterator[NDArray[np.float32]]:
    resampler = soxr.ResampleStream(rate_hz, RATE_HZ, 1, dtype="float32")
    for block in blocks:
        yield resampler.resample_chunk(block * np.float32(gain))
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
