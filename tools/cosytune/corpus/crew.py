"""Who does the costly parts of stage 0, which look at one recording or a few clips at a time, and what they hand over.

`making.OnThisMachine` is the usual crew; `cosytune.shards.crew` has one that works on many machines. What they hand
over is the same, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cosytune.audio.clip import Clip as Written
from cosytune.audio.decode import Silent
from cosytune.audio.listen import Heard
from cosytune.audio.probe import Broken, Probe
from cosytune.audio.span import Span
from cosytune.audio.track import Track
from cosytune.quality.duplicates import Fingerprint
from cosytune.quality.measure import Measured, Original
from cosytune.quality.voices import Float


@dataclass(frozen=True)
class Recording:
    """A file that can be decoded."""

    audio: Path
    found: Probe


Decoded = Track | Silent | Broken


@dataclass(frozen=True)
class Stretch:
    """What making a clip takes of a draft; the take itself, with all that was heard in it, would be far more.

    `start`, `count`: samples of the track. `speech`: in the clip's own time.
    """

    start: int
    count: int
    speech: tuple[Span, ...]
    original: Original


@dataclass(frozen=True)
class Task:
    """Neighbours in one track: what is dithered and encoded at once."""

    track: Path
    track_frames: int
    rate_hz: int
    stretches: tuple[Stretch, ...]

    @property
    def duration_s(self) -> float:
        return sum(one.count for one in self.stretches) / self.rate_hz


@dataclass(frozen=True)
class Made:
    """A clip; `written` is None, and there is no `wav`, for silence. `voice`: unit vector float32 [256]."""

    wav: Path
    written: Written | None
    measured: Measured
    fingerprint: Fingerprint | None
    voice: Float | None


class Crew(Protocol):
    """All results come in the order of what was asked."""

    def hear(self, recordings: Sequence[Recording]) -> tuple[list[Decoded], list[Heard]]:
        """Each recording decoded, and what is heard in each track; nothing is heard if a recording is broken."""

    def make(self, tasks: Sequence[Task]) -> Iterator[list[Made]]:
        """The clips of each task."""

    def forget_tracks(self) -> None:
        """All clips are made: what was decoded is of no more use."""
