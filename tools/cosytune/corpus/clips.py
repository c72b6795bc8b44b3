"""Drafts -> clips: each one at one loudness in a WAV of its own, measured, its voice and its fingerprint taken."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cosytune.audio.clip import Clip as Written
from cosytune.audio.clip import write_clip
from cosytune.audio.span import Span
from cosytune.corpus.drafts import Draft
from cosytune.parallel import Workers
from cosytune.quality import duplicates, encoder, voices
from cosytune.quality.duplicates import Fingerprint
from cosytune.quality.measure import Measured, Original, measure
from cosytune.quality.voices import Float
from cosytune.schema import AudioConfig


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
class _Task:
    """What a worker needs of a draft; the take itself, with all that was heard in it, would be far more."""

    track: Path
    rate_hz: int
    start: int
    count: int
    speech: tuple[Span, ...]
    original: Original
    wav: Path


@dataclass(frozen=True)
class _Made:
    written: Written | None
    measured: Measured
    fingerprint: Fingerprint | None
    voice: Float | None


def make_all(drafts: Sequence[Draft], directory: Path, settings: AudioConfig, workers: Workers) -> list[Clip]:
    """The clips in the order of the drafts; their wavs go into `directory`."""
    encoder.ensure()  # once, not in every process
    tasks = [_task(draft, directory / f"{number}.wav") for number, draft in enumerate(drafts)]
    results = workers.map(functools.partial(_make, settings), tasks, "making clips", "clip")
    return [
        Clip(draft, task.wav, made.written, made.measured, made.fingerprint, made.voice)
        for draft, task, made in zip(drafts, tasks, results, strict=True)
    ]


def _task(draft: Draft, wav: Path) -> _Task:
    track, span = draft.take.track, draft.span
    start = max(0, round(span.start_s * track.rate_hz))
    end = min(track.frames, round(span.end_s * track.rate_hz))
    return _Task(track.path, track.rate_hz, start, end - start, draft.speech, track.original(span), wav)


def _make(settings: AudioConfig, task: _Task) -> _Made:
    """In a worker."""
    import soxr

    samples: NDArray[np.float32] = np.fromfile(task.track, "<f4", count=task.count, offset=4 * task.start)
    written = write_clip(samples, task.wav, settings)
    loudness_lufs = written.source_lufs if written else None
    measured = measure(samples, task.rate_hz, task.speech, task.original, loudness_lufs)
    windows = voices.windows(soxr.resample(samples, task.rate_hz, voices.RATE_HZ), task.speech)
    return _Made(written, measured, duplicates.fingerprint(samples, task.rate_hz), voices.embed([windows])[0])
