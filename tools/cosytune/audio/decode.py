"""An audio file of any format -> a working track: mono at one rate, no clipping, no offset, no dead channel in it.

Two passes over the file, both streamed: an hour or a day of audio takes the same memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from cosytune.audio.blocks import Blocks, DecodingError
from cosytune.audio.folder import printable
from cosytune.audio.loudness import SILENCE_DBFS, dbfs
from cosytune.audio.probe import Broken, Probe
from cosytune.audio.track import BIN_S, Track
from cosytune.quality.clipping import clipped_samples

_NOTHING: NDArray[np.float32] = np.zeros(0, np.float32)
_DEAD_DB = 30.0  # a channel this far below the loudest one carries no speech of its own
_CANCELLED_DB = 10.0  # a mix this far below its channels: they are in opposite phase


@dataclass(frozen=True)
class Silent:
    """No track was written: there is no speech to hear at this peak."""

    peak_dbfs: float


def decode(audio: Path, found: Probe, destination: Path, rate_hz: int) -> Track | Silent | Broken:
    """Decode, mix the channels that carry sound, resample to `rate_hz` (SoX's `rate -v`), write the track."""
    blocks = Blocks(audio, found)
    try:
        survey = _survey(blocks)
        if survey is None:
            return Broken("it holds NaN or infinite samples; export it again as 16-bit wav")
        if survey.frames == 0:
            return Broken("it holds no samples; record or export it again")
        if dbfs(survey.swing) < SILENCE_DBFS:
            return Silent(round(dbfs(survey.swing), 2))
        clipped = np.zeros(int(survey.frames / found.rate_hz / BIN_S) + 1, np.uint32)
        mono = _mono(blocks, survey, found.rate_hz, clipped)
        frames = _resample(mono, found.rate_hz, rate_hz, destination)
        if frames == 0:
            return Broken(f"only {survey.frames} samples long; record or export it again")
    except DecodingError as failure:
        return Broken(f"cannot be decoded ({printable(str(failure))}); export it again as wav")
    return Track(
        path=destination,
        rate_hz=rate_hz,
        frames=frames,
        source_rate_hz=found.rate_hz,
        channels=len(survey.low),
        channels_used=len(survey.used),
        peak_dbfs=round(dbfs(survey.peak), 2),
        dc_offset=round(survey.dc_offset, 6),
        clipped=clipped,
    )


@dataclass(frozen=True)
class _Survey:
    """What the first pass found: the smallest and largest sample of each channel, the channels to use, their mean."""

    frames: int
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    used: list[int]
    dc_offset: float

    @property
    def peak(self) -> float:
        return float(np.maximum(-self.low, self.high)[self.used].max())

    @property
    def swing(self) -> float:
        """The peak as it is without the offset: a constant is silence."""
        return float((self.high - self.low)[self.used].max()) / 2


def _survey(blocks: Blocks) -> _Survey | None:
    """None if a sample is not finite."""
    frames = 0
    low: NDArray[np.float32] = np.zeros(1, np.float32)
    high: NDArray[np.float32] = np.zeros(1, np.float32)
    sums = squares = np.zeros(1)
    mix_square = 0.0
    for block in blocks:
        block_low, block_high = block.min(axis=0), block.max(axis=0)
        if not (np.isfinite(block_low).all() and np.isfinite(block_high).all()):  # a NaN wins in both
            return None
        low, high = (np.minimum(low, block_low), np.maximum(high, block_high)) if frames else (block_low, block_high)
        frames += len(block)
        sums = sums + block.sum(axis=0, dtype=np.float64)
        squares = squares + np.einsum("ij,ij->j", block, block, dtype=np.float64)
        if block.shape[1] > 1:
            mix = block.mean(axis=1, dtype=np.float64)
            mix_square += float(np.dot(mix, mix))
    if frames == 0:
        return _Survey(0, low, high, [0], 0.0)
    power = np.maximum(squares / frames - (sums / frames) ** 2, 0.0)
    mix_power = max(mix_square / frames - float((sums / frames).mean()) ** 2, 0.0)
    used = _channels_with_sound(power, mix_power)
    return _Survey(frames, low, high, used, float((sums / frames)[used].mean()))


def _channels_with_sound(power: NDArray[np.float64], mix_power: float) -> list[int]:
    """A dead channel would only halve the others; channels of opposite phase would cancel each other."""
    loudest = int(power.argmax())
    alive = [channel for channel, value in enumerate(power) if value > power[loudest] * 10 ** (-_DEAD_DB / 10)]
    if len(alive) == len(power) > 1 and mix_power < power[alive].mean() * 10 ** (-_CANCELLED_DB / 10):
        return [loudest]
    return alive or [loudest]


def _mono(blocks: Blocks, survey: _Survey, rate_hz: int, clipped: NDArray[np.uint32]) -> Iterator[NDArray[np.float32]]:
    """The second pass: the mix [frames] without its offset, and a count of clipped samples on the way."""
    position = 0
    for block in blocks:
        used = block if len(survey.used) == block.shape[1] else block[:, survey.used]
        flat_s = (clipped_samples(used, survey.peak) + position) / rate_hz
        np.add.at(clipped, (flat_s / BIN_S).astype(np.int64), 1)
        position += len(block)
        mix = used[:, 0] if used.shape[1] == 1 else used.mean(axis=1)
        yield mix - np.float32(survey.dc_offset)


def _resample(blocks: Iterator[NDArray[np.float32]], rate_hz: int, wanted_hz: int, destination: Path) -> int:
    """-> frames written. By SoX's own resampler as a library: what the program's `rate -v` does (a test compares the
    two), at a fifth of its time, and in float, so that nothing can clip on the way.
    """
    resampler = soxr.ResampleStream(rate_hz, wanted_hz, 1, dtype="float32", quality="VHQ")
    frames = 0
    with destination.open("wb") as track:
        for block in itertools.chain(blocks, [None]):
            samples = resampler.resample_chunk(_NOTHING if block is None else block, last=block is None)
            track.write(samples.astype("<f4", copy=False).tobytes())
            frames += len(samples)
    return frames
