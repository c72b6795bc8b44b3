"""An audio file of any format -> a working track: mono at one rate, no clipping, no offset, no dead channel in it.

Two passes over the file, both streamed: an hour or a day of audio takes the same memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from cosytune.audio.blocks import Blocks, DecodingError
from cosytune.audio.folder import printable
from cosytune.audio.loudness import SILENCE_DBFS, dbfs
from cosytune.audio.probe import Broken, Probe
from cosytune.audio.track import BINS_PER_S, Track
from cosytune.quality.clipping import clipped_samples

Samples = NDArray[np.float32]

_PART_S = 300
_CONTEXT_S = 1  # whole seconds: samples at any two rates meet there
_DEAD_DB = 30.0  # a channel this far below the loudest one carries no speech of its own
_CANCELLED_DB = 10.0  # a mix this far below its channels: they are in opposite phase


@dataclass(frozen=True)
class Silent:
    """No track was written: there is no speech to hear at this peak."""

    peak_dbfs: float


@dataclass(frozen=True)
class Part:
    """Whole seconds [start_s, end_s) of a recording; None: to its end."""

    start_s: int = 0
    end_s: int | None = None


@dataclass(frozen=True)
class Rendered:
    """Of a part: frames written, and clipped samples of the original, uint32 for every 10 ms."""

    frames: int
    clipped: NDArray[np.uint32]


def parts(found: Probe) -> list[Part]:
    """How a long recording is decoded by several processes at once; a short one is one part."""
    if not found.is_exact or found.duration_s < 2 * _PART_S:
        return [Part()]
    starts = range(0, int(found.duration_s) - _PART_S, _PART_S)
    return [*(Part(start, start + _PART_S) for start in starts[:-1]), Part(starts[-1])]


def decode(audio: Path, found: Probe, destination: Path, rate_hz: int) -> Track | Silent | Broken:
    """Decode, mix the channels that carry sound, resample to `rate_hz` (SoX's `rate -v`), write the track."""
    blocks = Blocks(audio, found)
    seen = survey(blocks)
    if not isinstance(seen, Survey):
        return seen
    made = render(blocks, found, seen, Part(), destination, rate_hz)
    return made if isinstance(made, Broken) else finish([made], found, seen, destination, rate_hz)


def finish(made: Sequence[Rendered], found: Probe, seen: Survey, destination: Path, rate_hz: int) -> Track | Broken:
    """The parts of a track, in order -> the track."""
    frames = sum(part.frames for part in made)
    if frames == 0:
        return Broken(f"only {seen.frames} samples long; record or export it again")
    return Track(
        path=destination,
        rate_hz=rate_hz,
        frames=frames,
        source_rate_hz=found.rate_hz,
        channels=len(seen.low),
        channels_used=len(seen.used),
        peak_dbfs=round(dbfs(seen.peak), 2),
        dc_offset=round(seen.dc_offset, 6),
        clipped=np.concatenate([part.clipped for part in made]),
    )


@dataclass(frozen=True)
class Survey:
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


def survey(blocks: Blocks) -> Survey | Silent | Broken:
    """The first pass: what there is to decode, or why it is not."""
    try:
        seen = _look(blocks)
    except DecodingError as failure:
        return _undecodable(failure)
    if seen is None:
        return Broken("it holds NaN or infinite samples; export it again as 16-bit wav")
    if seen.frames == 0:
        return Broken("it holds no samples; record or export it again")
    swing_dbfs = dbfs(seen.swing)
    return Silent(round(swing_dbfs, 2)) if swing_dbfs < SILENCE_DBFS else seen


def render(
    blocks: Blocks, found: Probe, seen: Survey, part: Part, destination: Path, rate_hz: int
) -> Rendered | Broken:
    """The second pass, of a part, written to its place in `destination`. `blocks`: `around` that part."""
    end = seen.frames * BINS_PER_S // found.rate_hz + 1 if part.end_s is None else part.end_s * BINS_PER_S
    clipped = np.zeros(end - part.start_s * BINS_PER_S, np.uint32)
    begun_s = max(0, part.start_s - _CONTEXT_S)
    mono = _mono(blocks, seen, found.rate_hz, clipped, begun_s - part.start_s)
    limit = None if part.end_s is None else (part.end_s - part.start_s) * rate_hz
    samples = _between(_resampled(mono, found.rate_hz, rate_hz), (part.start_s - begun_s) * rate_hz, limit)
    try:
        return Rendered(_write(samples, destination, part.start_s * rate_hz), clipped)
    except DecodingError as failure:
        return _undecodable(failure)


def around(audio: Path, found: Probe, part: Part) -> Blocks:
    """A part and a second on either side, whose sound reaches into it through the resampler's filter."""
    last = None if part.end_s is None else (part.end_s + _CONTEXT_S) * found.rate_hz
    return Blocks(audio, found, max(0, part.start_s - _CONTEXT_S) * found.rate_hz, last)


def _undecodable(failure: DecodingError) -> Broken:
    return Broken(f"cannot be decoded ({printable(str(failure))}); export it again as wav")


def _look(blocks: Blocks) -> Survey | None:
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
        return Survey(0, low, high, [0], 0.0)
    power = np.maximum(squares / frames - (sums / frames) ** 2, 0.0)
    mix_power = max(mix_square / frames - float((sums / frames).mean()) ** 2, 0.0)
    used = _channels_with_sound(power, mix_power)
    return Survey(frames, low, high, used, float((sums / frames)[used].mean()))


def _channels_with_sound(power: NDArray[np.float64], mix_power: float) -> list[int]:
    """A dead channel would only halve the others; channels of opposite phase would cancel each other."""
    loudest = int(power.argmax())
    alive = [channel for channel, value in enumerate(power) if value > power[loudest] * 10 ** (-_DEAD_DB / 10)]
    if len(alive) == len(power) > 1 and mix_power < power[alive].mean() * 10 ** (-_CANCELLED_DB / 10):
        return [loudest]
    return alive or [loudest]


def _mono(
    blocks: Blocks, seen: Survey, rate_hz: int, clipped: NDArray[np.uint32], first_s: int
) -> Iterator[NDArray[np.float32]]:
    """The mix [frames] without its offset, and on the way a count of clipped samples from second 0 on."""
    position = first_s * rate_hz
    for block in blocks:
        used = block if len(seen.used) == block.shape[1] else block[:, seen.used]
        flat = (clipped_samples(used, seen.peak) + position) * BINS_PER_S // rate_hz
        np.add.at(clipped, flat[(flat >= 0) & (flat < len(clipped))], 1)
        position += len(block)
        mix = used[:, 0] if used.shape[1] == 1 else used.mean(axis=1)
        yield mix - np.float32(seen.dc_offset)


def _resampled(blocks: Iterator[Samples], rate_hz: int, wanted_hz: int) -> Iterator[Samples]:
    """By SoX's own resampler as a library: what the program's `rate -v` does (a test compares the two), at a fifth of
    its time, and in float, so that nothing can clip on the way.
    """
    resampler = soxr.ResampleStream(rate_hz, wanted_hz, 1, dtype="float32", quality="VHQ")
    for block in blocks:
        yield resampler.resample_chunk(block)
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def _between(blocks: Iterator[Samples], skip: int, limit: int | None) -> Iterator[Samples]:
    """Without the first `skip` samples, and no more than `limit` of the rest."""
    position = 0
    for block in blocks:
        start, end = skip - position, len(block) if limit is None else skip + limit - position
        position += len(block)
        yield block[max(0, start) : max(0, end)]


def _write(blocks: Iterator[Samples], destination: Path, first: int) -> int:
    """To the place of frame `first`, beside other processes that write theirs; -> frames written."""
    frames = 0
    destination.touch()
    with destination.open("r+b") as track:
        track.seek(4 * first)
        for block in blocks:
            track.write(block.astype("<f4", copy=False).tobytes())
            frames += len(block)
    return frames
