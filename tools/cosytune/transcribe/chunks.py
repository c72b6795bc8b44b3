"""Speech spans of a recording -> the chunks that Whisper hears at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cosytune.audio.span import Span

LONGEST_S = 30.0
"""What Whisper hears at once."""


def chunk(speech: Sequence[Span], longest_s: float = LONGEST_S) -> tuple[Span, ...]:
    """Neighbouring spans merged while they last `longest_s` together, pauses included: context helps Whisper.

    A single longer span is halved until it fits, for there is no pause in it to cut at. `speech` is in order.
    """
    chunks: list[Span] = []
    for span in (part for whole in speech for part in _halves(whole, longest_s)):
        if chunks and span.end_s - chunks[-1].start_s <= longest_s:
            chunks[-1] = Span(chunks[-1].start_s, span.end_s)
        else:
            chunks.append(span)
    return tuple(chunks)


def _halves(span: Span, longest_s: float) -> Iterator[Span]:
    if span.duration_s <= longest_s:
        yield span
        return
    middle_s = (span.start_s + span.end_s) / 2
    yield from _halves(Span(span.start_s, middle_s), longest_s)
    yield from _halves(Span(middle_s, span.end_s), longest_s)
