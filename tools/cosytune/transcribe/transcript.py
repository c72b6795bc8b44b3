"""What goes into the transcription queue, and what comes out of it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cosytune.audio.span import Span, Word

SPACELESS = frozenset({"ja", "zh", "yue"})
"""Languages written without spaces: a word is one character."""


@dataclass(frozen=True)
class Job:
    """A recording to be heard. All times are seconds from its beginning.

    `name`: the recording in messages and results, unique. `digest`: sha256 of its audio. `chunks`: what is heard at
    once, in order, 30 s each at most (see `chunk`). `read`: a span -> float32 [n], mono, 16 kHz. `speech`: where the
    detector found speech; a word before a pause ends with the speech, not with the pause. `needs_words`: whether the
    times of its words are wanted.
    """

    name: str
    digest: str
    chunks: tuple[Span, ...]
    read: Callable[[Span], Any]
    speech: tuple[Span, ...] = ()
    needs_words: bool = True


@dataclass(frozen=True)
class Segment:
    """What was heard in one chunk; `text` is "" where nothing was.

    `avg_logprob`: Whisper's mean log-probability of a token. `words`: None where the times are not known (no align
    model, or the text and the sound do not go together); otherwise they are in order, do not overlap, lie in `span`
    and `join` to `text`.
    """

    span: Span
    text: str
    avg_logprob: float
    words: tuple[Word, ...] | None = None

    @property
    def compression_ratio(self) -> float:
        """How well zlib packs the text, as in Whisper: high when it repeats itself, as a decoder in a loop does."""
        data = self.text.encode()
        return len(data) / len(zlib.compress(data)) if data else 0.0


@dataclass(frozen=True)
class Transcript:
    """A recording's chunks as they were heard, in order; `language` as given or detected (ja, zh, en, ...)."""

    language: str
    segments: tuple[Segment, ...]

    @property
    def text(self) -> str:
        separator = "" if self.language in SPACELESS else " "
        return separator.join(segment.text for segment in self.segments if segment.text)

    @property
    def words(self) -> tuple[Word, ...] | None:
        """All words; None as soon as one chunk's are unknown: then look at `segments`."""
        found = [segment.words for segment in self.segments if segment.text]
        if None in found:
            return None
        return tuple(word for words in found for word in words or ())


def join(words: Sequence[Word], language: str) -> str:
    """The text of neighbouring words."""
    separator = "" if language in SPACELESS else " "
    return separator.join(word.text for word in words).strip()
