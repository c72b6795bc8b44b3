"""Drafts -> clips: each one at one loudness in a WAV of its own, measured, its voice and its fingerprint taken."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from cosytune.audio.clip import Clip as Written
from cosytune.audio.clip import write_clips
from cosytune.audio.span import Span
from cosytune.corpus.drafts import Draft
from cosytune.parallel import Workers
from cosytune.quality import duplicates, encoder, voices
from cosytune.quality.duplicates import Fingerprint
from cosytune.quality.measure import Measured, Original, measure
from cosytune.quality.voices import Float
from cosytune.schema import AudioConfig

_TOGETHER = 16


@dataclass(frozen=True)
class Clip:
    """A draft that was made. `wav` lies in the working directory; `written` is None, and there is no wav, for silence.

    `voice`: unit vector float32 [256], None without speech.
    """

    draft: Draft
    wav: Path
    written: Written | None
    measured: Measured
    fingerprint: Fingerprint | None
    voice: Float | None


@dataclass(frozen=True)
class _Stretch:
    """What a worker needs of a draft; the take itself, with all that was heard in it, would be far more."""

    start: int
    count: int
    speech: tuple[Span, ...]
    original: Original
    wav: Path


@dataclass(frozen=True)
class _Task:
    """Neighbours in one track: what is dithered and encoded at once."""

    track: Path
    rate_hz: int
    stretches: tuple[_Stretch, ...]


@dataclass(frozen=True)
class _Made:
    written: Written | None
    measured: Measured
    fingerprint: Fingerprint | None
    voice: Float | None


def make_all(drafts: Sequence[Draft], directory: Path, settings: AudioConfig, workers: Workers) -> list[Clip]:
    """The clips, take by take; their wavs go into `directory`."""
    encoder.ensure()  # once, not in every process
    groups = [
        group
        for _, ones in itertools.groupby(drafts, key=lambda draft: draft.take.track.path)
        for group in _parted(list(ones))
    ]
    numbers = itertools.count()
    tasks = [_task(group, [directory / f"{next(numbers)}.wav" for _ in group]) for group in groups]
    results = workers.map(functools.partial(_make, settings), tasks, "making clips", "part")
    return [
        Clip(draft, stretch.wav, made.written, made.measured, made.fingerprint, made.voice)
        for group, task, several in zip(groups, tasks, results, strict=True)
        for draft, stretch, made in zip(group, task.stretches, several, strict=True)
    ]


def _parted(drafts: Sequence[Draft]) -> list[Sequence[Draft]]:
    return [drafts[start : start + _TOGETHER] for start in range(0, len(drafts), _TOGETHER)]


def _task(drafts: Sequence[Draft], wavs: Sequence[Path]) -> _Task:
    track = drafts[0].take.track
    stretches = []
    for draft, wav in zip(drafts, wavs, strict=True):
        start = max(0, round(draft.span.start_s * track.rate_hz))
        end = min(track.frames, round(draft.span.end_s * track.rate_hz))
        stretches.append(_Stretch(start, end - start, draft.speech, track.original(draft.span), wav))
    return _Task(track.path, track.rate_hz, tuple(stretches))


def _make(settings: AudioConfig, task: _Task) -> list[_Made]:
    """In a worker."""
    clips: list[NDArray[np.float32]] = [
        np.fromfile(task.track, "<f4", count=one.count, offset=4 * one.start) for one in task.stretches
    ]
    written = write_clips(clips, [one.wav for one in task.stretches], settings)
    heard = voices.embed(
        [_windows(samples, task.rate_hz, one.speech) for samples, one in zip(clips, task.stretches, strict=True)]
    )
    return [
        _Made(
            file,
            measure(samples, task.rate_hz, one.speech, one.original, file.source_lufs if file else None),
            duplicates.fingerprint(samples, task.rate_hz),
            voice,
        )
        for samples, one, file, voice in zip(clips, task.stretches, written, heard, strict=True)
    ]


def _windows(samples: NDArray[np.float32], rate_hz: int, speech: Sequence[Span]) -> Float:
    return voices.windows(soxr.resample(samples, rate_hz, voices.RATE_HZ), speech)
