"""What is not used, and why: the other half of every count."""

from __future__ import annotations

from dataclasses import dataclass

from cosytune.audio.sources import Source
from cosytune.audio.span import Span
from cosytune.quality.gates import Reason


@dataclass(frozen=True)
class Drop:
    """A recording, or a stretch of one, of which no clip was made. `name`: as `Draft.name`."""

    source: Source
    name: str
    span: Span
    reasons: tuple[Reason, ...]


def piece_name(source: Source, span: Span) -> str:
    """What a piece of a long recording is called for ever, whatever its id is in this run."""
    return f"{source.name}@{span.start_s:.2f}-{span.end_s:.2f}"
