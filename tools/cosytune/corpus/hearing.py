"""Takes -> drafts with their texts: the user's own, or what Whisper hears where there is none.

All recordings that Whisper has to hear go through one queue of batches: a long one in chunks of 30 s, so that context
helps, and cut afterwards between its words; clips with a transcript to compare the two.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cosytune import files, transcribe
from cosytune.audio.folder import printable
from cosytune.audio.sources import Source
from cosytune.audio.span import Span, Word
from cosytune.corpus import drafts as drafting
from cosytune.corpus.drafts import Draft
from cosytune.corpus.drop import Drop
from cosytune.corpus.takes import Take
from cosytune.errors import UserError
from cosytune.layout import Layout
from cosytune.quality.gates import Reason
from cosytune.schema import Config, TranscribeConfig
from cosytune.transcribe import Job, Models, Transcript

_SHOWN = 10  # names of recordings without a transcript in one message
_RATE_HZ = 16000

Drafted = tuple[list[Draft], list[Drop]]


@dataclass(frozen=True)
class Ears:
    """How this run comes to texts; without `models` nothing is heard."""

    config: Config
    layout: Layout
    models: Models | None

    @classmethod
    def find(cls, sources: Sequence[Source], config: Config, layout: Layout) -> tuple[Ears, list[str]]:
        """The models that the sources need, and error lines if they are not there."""
        settings = config.transcribe
        untold = [printable(source.name) for source in sources if source.text is None]
        is_wanted = bool(untold) or (settings.check_given == "always" and bool(sources))
        is_welcome = settings.check_given == "auto" and transcribe.is_there(settings)
        if settings.model == "none" or not (is_wanted or is_welcome):
            return cls(config, layout, None), []
        try:
            return cls(config, layout, transcribe.find_models(_wanted(config, bool(untold)), config.language)), []
        except UserError as mistake:
            more = f" and {len(untold) - _SHOWN} more" if len(untold) > _SHOWN else ""
            start = f"{', '.join(untold[:_SHOWN])}{more}: no transcript; " if untold else ""
            return cls(config, layout, None), [start + message for message in mistake.messages]

    @property
    def names(self) -> dict[str, str]:
        """What heard and what aligned."""
        if self.models is None:
            return {}
        align = {"align": self.models.align.name} if self.models.align else {}
        return {"whisper": self.models.whisper.name, **align}

    def draft_all(self, takes: Sequence[Take]) -> Drafted:
        """Every take becomes drafts, or a drop with its reason."""
        longest_s = self.config.audio.max_duration_s
        untold = [take for take in takes if take.source.text is None]
        told = [take for take in takes if take.source.text is not None]
        whole = [take for take in told if take.track.duration_s <= longest_s]
        transcripts = self._hear(untold, whole)
        results = [
            *(self._whole(take, transcripts) for take in whole),
            *self._cut_told([take for take in told if take.track.duration_s > longest_s]),
            *self._cut_untold(untold, transcripts),
        ]
        drafts = drafting.with_own_ids([draft for some, _ in results for draft in some])
        return sorted(drafts, key=lambda draft: draft.utt), [drop for _, some in results for drop in some]

    def _hear(self, untold: Sequence[Take], whole: Sequence[Take]) -> Mapping[str, Transcript]:
        """By the name of the recording; {} without models."""
        if self.models is None:
            return {}
        checked = whole if self.config.transcribe.check_given != "never" else ()
        jobs = [self._job(take, self._chunks(take)) for take in untold]
        jobs += [
            dataclasses.replace(self._job(take, transcribe.chunk(self._speech(take))), needs_words=False)
            for take in checked
        ]
        return self._transcribe(jobs, _wanted(self.config, bool(untold)))

    def _transcribe(self, jobs: Sequence[Job], settings: TranscribeConfig) -> Mapping[str, Transcript]:
        return transcribe.transcribe(jobs, settings, self.config.language, self.layout.transcripts)

    def _chunks(self, take: Take) -> tuple[Span, ...]:
        """30 s at once where words are found in them afterwards, else the clips as they are cut at pauses."""
        if self.config.transcribe.align_model != "none":
            return transcribe.chunk(self._speech(take))
        return tuple(draft.span for draft in self._pieces(take)[0])

    def _whole(self, take: Take, transcripts: Mapping[str, Transcript]) -> Drafted:
        draft = drafting.whole(take, self.config.audio.segment.speech_threshold, self.config.language)
        heard = transcripts.get(take.source.name)
        return [draft if heard is None else dataclasses.replace(draft, heard=heard.text, language=heard.language)], []

    def _cut_told(self, takes: Sequence[Take]) -> list[Drafted]:
        """Recordings longer than a clip whose text is known: cut between their words, if those can be found."""
        limit_s = self.config.audio.max_duration_s
        meaning = f"over audio.max_duration_s = {limit_s:g}, and no words to cut between were found"
        words: Mapping[str, Sequence[Word] | None] = {}
        jobs = [self._job(take, transcribe.chunk(self._speech(take))) for take in takes]
        texts = {take.source.name: take.source.text or "" for take in takes}
        settings, language = self.config.transcribe, self.config.language
        if jobs and settings.align_model != "none" and not transcribe.has_aligner(settings, language):
            # A few long ones among many clips are no reason to stop for a model.
            meaning = f"over audio.max_duration_s = {limit_s:g}; transcribe.align_model would cut it and is not there"
        elif jobs:
            words = transcribe.align_given(jobs, texts, settings, language, self.layout.transcripts)
        return [
            self._pieces(take, found)
            if (found := words.get(take.source.name)) is not None
            else ([], [_whole_drop(take, Reason("too_long", round(take.track.duration_s, 3), limit_s, meaning))])
            for take in takes
        ]

    def _cut_untold(self, takes: Sequence[Take], transcripts: Mapping[str, Transcript]) -> list[Drafted]:
        if self.models is None:
            return [self._pieces(take) for take in takes]
        if self.config.transcribe.align_model == "none":
            return [self._said_one_by_one(take, transcripts[take.source.name]) for take in takes]
        cut = [self._between_words(take, transcripts[take.source.name]) for take in takes]
        # Where Whisper heard something and nothing says when, the clips are heard again, each by itself.
        unplaced = [
            tuple(draft.span for draft in drafts if _is_within(draft, _unplaced(transcripts[take.source.name])))
            for take, (drafts, _) in zip(takes, cut, strict=True)
        ]
        jobs = [
            dataclasses.replace(self._job(take, spans), needs_words=False)
            for take, spans in zip(takes, unplaced, strict=True)
            if spans
        ]
        again = self._transcribe(jobs, _wanted(self.config, False)) if jobs else {}
        return [
            ([_say(draft, again[take.source.name]) if draft.span in spans else draft for draft in drafts], drops)
            for take, spans, (drafts, drops) in zip(takes, unplaced, cut, strict=True)
        ]

    def _said_one_by_one(self, take: Take, heard: Transcript) -> Drafted:
        drafts, drops = self._pieces(take, language=heard.language)
        return [_say(draft, heard) for draft in drafts], drops

    def _between_words(self, take: Take, heard: Transcript) -> Drafted:
        """Cut by the words of all chunks; a clip that lies in a chunk without words is left without a text."""
        words = [word for segment in heard.segments for word in segment.words or ()]
        drafts, drops = self._pieces(take, words, heard.language)
        unplaced = _unplaced(heard)
        return [
            dataclasses.replace(draft, text=None, written=None)  # a part of what is said would be worse than nothing
            if _is_within(draft, unplaced)
            else _judged(draft, heard)
            for draft in drafts
        ], drops

    def _pieces(self, take: Take, words: Sequence[Word] | None = None, language: str | None = None) -> Drafted:
        language = language or self.config.language
        return drafting.pieces(take, self.config.audio, language, words)

    def _speech(self, take: Take) -> tuple[Span, ...]:
        return tuple(take.heard.speech(self.config.audio.segment.speech_threshold))

    def _job(self, take: Take, chunks: tuple[Span, ...]) -> Job:
        track = take.track

        def read(span: Span) -> Any:
            import soxr

            return soxr.resample(track.read(span), track.rate_hz, _RATE_HZ)

        return Job(take.source.name, files.sha256(take.source.audio), chunks, read, self._speech(take))


def _whole_drop(take: Take, reason: Reason) -> Drop:
    return Drop(take.source, take.source.name, take.whole, (reason,))


def _wanted(config: Config, cuts: bool) -> TranscribeConfig:
    """The settings, without an aligner where nothing is cut."""
    settings = config.transcribe
    return settings if cuts else settings.model_copy(update={"align_model": "none"})


def _unplaced(heard: Transcript) -> list[Span]:
    """The chunks of which it is known what is said, and not when."""
    return [segment.span for segment in heard.segments if segment.text and segment.words is None]


def _is_within(draft: Draft, spans: Sequence[Span]) -> bool:
    return any(draft.span.overlap_s(span) > 0 for span in spans)


def _say(draft: Draft, heard: Transcript) -> Draft:
    """The text of a clip that was heard by itself."""
    text = next((segment.text for segment in heard.segments if segment.span == draft.span), "")
    return _judged(drafting.say(draft, text, heard.language), heard) if text else draft


def _judged(draft: Draft, heard: Transcript) -> Draft:
    """With the worst that can be said of what Whisper heard around it."""
    around = [one for one in heard.segments if one.text and one.span.overlap_s(draft.span) > 0]
    if not around:
        return draft
    logprob, repetition = min(one.avg_logprob for one in around), max(one.compression_ratio for one in around)
    return dataclasses.replace(draft, logprob=logprob, repetition=repetition)
