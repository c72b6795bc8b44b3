"""Takes -> drafts: which stretches become clips, and what is said in each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from cosytune.audio import ids
from cosytune.audio.cut import Piece, cut
from cosytune.audio.sources import Source
from cosytune.audio.span import Span, Word
from cosytune.corpus.drop import Drop, piece_name
from cosytune.corpus.takes import Take
from cosytune.quality.gates import Reason
from cosytune.schema import AudioConfig
from cosytune.text import normalize
from cosytune.transcribe.transcript import join


@dataclass(frozen=True)
class Draft:
    """A clip before it is made.

    `name` names it for ever: the recording's, with seconds for a piece of a longer one. `span`: in the recording;
    `speech`: in the clip's own time. `text`: normalised, None while nobody has said what it says; `written`: as it was
    typed or heard. `heard`: what Whisper makes of a clip that has a transcript. `logprob`, `repetition`: the worst of
    what Whisper heard around a text of its own (see `transcribe.Segment`).
    """

    take: Take
    name: str
    utt: str
    span: Span
    speech: tuple[Span, ...]
    text: str | None
    written: str | None
    language: str
    heard: str | None = None
    logprob: float | None = None
    repetition: float | None = None

    @property
    def source(self) -> Source:
        return self.take.source

    @property
    def is_whole(self) -> bool:
        return self.name == self.source.name


def whole(take: Take, threshold: float, language: str) -> Draft:
    """A recording that is one clip as it was given."""
    source = take.source
    speech = tuple(take.heard.speech(threshold))
    return Draft(take, source.name, source.utt, take.whole, speech, source.text, source.written, language)


def pieces(
    take: Take, settings: AudioConfig, language: str, words: Sequence[Word] | None = None
) -> tuple[list[Draft], list[Drop]]:
    """A recording cut into clips; with `words`, each one says what its words say."""
    cuts = cut(take.heard, settings.segment, settings.min_duration_s, words)
    drafts = [_draft(take, piece, len(cuts.pieces), settings, language) for piece in cuts.pieces]
    if words is not None:
        drafts = [
            say(draft, join(piece.words, language), language) for draft, piece in zip(drafts, cuts.pieces, strict=True)
        ]
    drops = [_drop(take.source, span, "too_short", settings.min_duration_s) for span in cuts.too_short]
    drops += [_drop(take.source, span, "too_long", settings.segment.max_s) for span in cuts.too_long]
    if not drafts and not drops:
        drops.append(Drop(take.source, take.source.name, take.whole, (NO_SPEECH,)))
    return drafts, drops


def _drop(source: Source, span: Span, reason: str, threshold: float) -> Drop:
    meaning = {
        "too_short": f"speech on its own, under audio.min_duration_s = {threshold:g}",
        "too_long": f"a single word, over audio.segment.max_s = {threshold:g}",
    }[reason]
    return Drop(
        source, piece_name(source, span), span, (Reason(reason, round(span.duration_s, 2), threshold, meaning),)
    )


NO_SPEECH = Reason("no_speech", None, None, "the detector heard nobody speak")


def _draft(take: Take, piece: Piece, count: int, settings: AudioConfig, language: str) -> Draft:
    """A short recording of one piece keeps its name: it is only trimmed."""
    source, span = take.source, piece.span
    speech = tuple(Span(one.start_s - span.start_s, one.end_s - span.start_s) for one in piece.speech)
    if count == 1 and take.track.duration_s <= settings.segment.max_s:
        return Draft(take, source.name, source.utt, span, speech, None, None, language)
    utt = f"{source.utt}-{round(span.start_s * 100):07d}-{round(span.end_s * 100):07d}"  # as Kaldi names segments
    return Draft(take, piece_name(source, span), utt, span, speech, None, None, language)


def say(draft: Draft, written: str, language: str) -> Draft:
    """The draft with a text."""
    text = normalize(written, language) or None
    return dataclasses.replace(draft, text=text, written=written, language=language)


def with_own_ids(drafts: Sequence[Draft]) -> list[Draft]:
    """A piece may have the id of a clip that was given: somebody copied it back into audio/."""
    utts = ids.make_unique([draft.utt for draft in drafts], [draft.name for draft in drafts])
    return [dataclasses.replace(draft, utt=utt) for draft, utt in zip(drafts, utts, strict=True)]
