"""A stretch of a recording, and a word that was found in one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Span:
    """From `start_s` to `end_s`, seconds from the recording's beginning."""

    start_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s

    def overlap_s(self, other: Span) -> float:
        return max(0.0, min(self.end_s, other.end_s) - max(self.start_s, other.start_s))


@dataclass(frozen=True)
class Word:
    """A word as it is written, with its punctuation (one character in Japanese and Chinese), and when it sounds."""

    text: str
    span: Span
