"""Drafts -> clips: each one at one loudness in a WAV of its own, measured, its voice and its fingerprint taken."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cosytune.audio.clip import Clip as Written
from cosytune.corpus.crew import Crew, Stretch, Task
from cosytune.corpus.drafts import Draft
from cosytune.quality.duplicates import Fingerprint
from cosytune.quality.measure import Measured
from cosytune.quality.voices import Float

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


def make_all(drafts: Sequence[Draft], crew: Crew) -> list[Clip]:
    """The clips, take by take."""
    groups = [
        group
        for _, ones in itertools.groupby(drafts, key=lambda draft: draft.take.track.path)
        for group in _parted(list(ones))
    ]
    results = crew.make([_task(group) for group in groups])
    return [
        Clip(draft, made.wav, made.written, made.measured, made.fingerprint, made.voice)
        for group, several in zip(groups, results, strict=True)
        for draft, made in zip(group, several, strict=True)
    ]


def _parted(drafts: Sequence[Draft]) -> list[Sequence[Draft]]:
    return [drafts[start : start + _TOGETHER] for start in range(0, len(drafts), _TOGETHER)]


def _task(drafts: Sequence[Draft]) -> Task:
    track = drafts[0].take.track
    stretches = []
    for draft in drafts:
        start = max(0, round(draft.span.start_s * track.rate_hz))
        end = min(track.frames, round(draft.span.end_s * track.rate_hz))
        stretches.append(Stretch(start, end - start, draft.speech, track.original(draft.span)))
    return Task(track.path, track.frames, track.rate_hz, tuple(stretches))
