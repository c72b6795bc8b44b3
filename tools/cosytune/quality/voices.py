"""Clips -> whose voice each is: its distance to the centre of its speaker's clips.

The speaker encoder is Resemblyzer's (Wan et al. 2018, "Generalized end-to-end loss for speaker verification").
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cosytune.audio.span import Span
from cosytune.quality import encoder

Float = NDArray[np.float32]

RATE_HZ = 16000
MIN_CLIPS = 3
"""A speaker with fewer has no centre to be far from."""

_FRAMES, _MELS = encoder.FRAMES, encoder.MELS  # a window: 1.6 s, as the encoder was trained on
_FFT, _HOP = 400, 160
_LEVEL_DBFS = -30.0  # of the speech that the encoder was trained on; its mel is not logarithmic
_MOST_WINDOWS = 2
_BATCH = 128
_SAMPLE = 1000  # clips of one speaker that are compared each with each
_SMALLER_SHARE = 0.25  # of the clips: below this they are strangers, not a second group
_APART = 0.2  # how much less alike two people are than each with himself: 0.3; one voice in two rooms: below 0.18


def windows(samples_16k: Float, speech: Sequence[Span]) -> Float:
    """Mono samples [n] and where speech is in them -> mel power spectra float32 [k, 160, 40], k from 0 to 2.

    Windows of 1.6 s, evenly spaced over the speech; less speech than that is repeated. 0 windows without speech.
    """
    pieces = [samples_16k[round(s.start_s * RATE_HZ) : round(s.end_s * RATE_HZ)] for s in speech]
    voiced = np.concatenate([np.zeros(0, np.float32), *pieces]).astype(np.float32)
    power = float(np.mean(np.square(voiced, dtype=np.float64))) if len(voiced) else 0.0
    if power <= 0:
        return np.zeros((0, _FRAMES, _MELS), np.float32)
    voiced *= np.float32(10 ** (_LEVEL_DBFS / 20) / np.sqrt(power))
    size = _FRAMES * _HOP
    if len(voiced) < size:
        voiced = np.resize(voiced, size)
    count = min(_MOST_WINDOWS, -(-len(voiced) // size))
    starts = np.linspace(0, len(voiced) - size, count).astype(int) if count > 1 else [(len(voiced) - size) // 2]
    return np.stack([mel_power(voiced[start : start + size])[:_FRAMES] for start in starts])


def mel_power(samples: Float) -> Float:
    """[n] at 16 kHz -> [1 + n // 160, 40]; as librosa's melspectrogram, whose import takes seconds in every process."""
    padded = np.pad(samples, _FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FFT)[::_HOP]
    window = np.hanning(_FFT + 1)[:-1].astype(np.float32)
    power = np.square(np.abs(scipy.fft.rfft(frames * window, axis=1)))
    mel: Float = (power @ _mel_filters().T).astype(np.float32)
    return mel


@functools.cache
def _mel_filters() -> Float:
    """[40, 201]: triangles on Slaney's mel scale, linear to 1 kHz and logarithmic above, each of unit area."""
    top = 15 + 27 * np.log(RATE_HZ / 2 / 1000) / np.log(6.4)
    mels = np.linspace(0, top, _MELS + 2)
    hertz = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * np.log(6.4) / 27))
    bins = np.fft.rfftfreq(_FFT, 1 / RATE_HZ)
    rising = (bins - hertz[:-2, None]) / np.diff(hertz)[:-1, None]
    falling = (hertz[2:, None] - bins) / np.diff(hertz)[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling)) * (2 / (hertz[2:] - hertz[:-2]))[:, None]
    filters: Float = triangles.astype(np.float32)
    return filters


def embed(clips: Sequence[Float]) -> list[Float | None]:
    """The windows of many clips -> a unit vector float32 [256] for each; None for a clip without a window."""
    counts = [len(clip) for clip in clips]
    if not sum(counts):
        return [None] * len(clips)
    stacked = np.concatenate([clip for clip in clips if len(clip)])
    batches = [stacked[start : start + _BATCH] for start in range(0, len(stacked), _BATCH)]
    parts = np.concatenate([encoder.session().run(None, {"mel": batch})[0] for batch in batches])
    ends = np.cumsum(counts)
    return [
        _unit(parts[end - count : end].mean(axis=0)) if count else None for count, end in zip(counts, ends, strict=True)
    ]


def _unit(vector: Float) -> Float:
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def similarities(embeddings: Sequence[Float], speakers: Sequence[str]) -> list[float | None]:
    """Cosine of each clip with the centre of its speaker's other clips; None for a speaker with fewer than 3 clips.

    The centre is the mean of those clips that lie nearest to the most central one, half of all: strangers do not
    move it as long as they are fewer than half.
    """
    result: list[float | None] = [None] * len(embeddings)
    for speaker in set(speakers):
        members = [i for i, one in enumerate(speakers) if one == speaker]
        if len(members) >= MIN_CLIPS:
            for i, similarity in zip(members, _to_centre(np.stack([embeddings[i] for i in members])), strict=True):
                result[i] = similarity
    return result


def _to_centre(vectors: Float) -> list[float]:
    sample = vectors[np.linspace(0, len(vectors) - 1, min(len(vectors), _SAMPLE)).astype(int)]
    medoid = sample[np.argmax(np.median(sample @ sample.T, axis=1))]
    core = np.zeros(len(vectors), bool)
    core[np.argsort(-(vectors @ medoid), kind="stable")[: len(vectors) // 2 + 1]] = True
    total = vectors[core].sum(axis=0)
    return [
        float(vector @ _unit(total - vector if inside else total)) for vector, inside in zip(vectors, core, strict=True)
    ]


@dataclass(frozen=True)
class TwoVoices:
    """A speaker's clips in two groups, by position, the larger one first, and the cosine of the groups' centres."""

    larger: list[int]
    smaller: list[int]
    similarity: float


def two_voices(embeddings: Sequence[Float]) -> TwoVoices | None:
    """The clips of one speaker -> two groups if they are two people's, each with a quarter of the clips or more.

    With about half of the clips each, which of the two is the speaker cannot be told, and `similarities` goes by one.
    """
    if len(embeddings) < 2 * MIN_CLIPS:
        return None
    vectors = np.stack(list(embeddings))
    first = vectors[np.argmin(vectors @ vectors.mean(axis=0))]
    centres = np.stack([first, vectors[np.argmin(vectors @ first)]])
    for _ in range(20):
        nearest = np.argmax(vectors @ centres.T, axis=1)
        if min(np.bincount(nearest, minlength=2)) == 0:
            return None
        centres = np.stack([_unit(vectors[nearest == group].mean(axis=0)) for group in (0, 1)])
    groups = sorted((np.flatnonzero(nearest == group).tolist() for group in (0, 1)), key=len, reverse=True)
    within = float(np.mean(np.sum(vectors * centres[nearest], axis=1)))
    between = float(centres[0] @ centres[1])
    if len(groups[1]) < _SMALLER_SHARE * len(vectors) or within - between < _APART:
        return None
    return TwoVoices(groups[0], groups[1], between)
