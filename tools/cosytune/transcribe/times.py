"""Texts of stretches of recordings -> when each word sounds, recording by recording, each cached when it is done."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cosytune.audio.span import Span, Word
from cosytune.progress import track
from cosytune.schema import TranscribeConfig
from cosytune.transcribe import models
from cosytune.transcribe.cache import Cache, key
from cosytune.transcribe.transcript import Job

Words = tuple[Word, ...]

LONGEST_GIVEN_S = 300.0
"""A text is not aligned with more sound than this: one passage that was not read aloud spoils all that follows."""


@dataclass(frozen=True)
class Spoken:
    """A recording whose text is known span by span ("" where there is none)."""

    job: Job
    language: str
    spans: tuple[Span, ...]
    texts: tuple[str, ...]


def align_given(
    jobs: Sequence[Job], texts: Mapping[str, str], settings: TranscribeConfig, language: str, cache: Path
) -> dict[str, Words | None]:
    """Name -> the words of the text that the user gave to this recording, so that it can be cut between them.

    None for a recording of more than LONGEST_GIVEN_S of sound (from the first chunk to the last), without speech, or
    whose text cannot be aligned; for all when `align_model` is none. Raises UserError when the model is missing.
    """
    whole = {job.name: Span(job.chunks[0].start_s, job.chunks[-1].end_s) for job in jobs if job.chunks}
    spoken = [
        Spoken(job, language, (whole[job.name],), (texts[job.name],))
        for job in jobs
        if job.name in whole and whole[job.name].duration_s <= LONGEST_GIVEN_S
    ]
    found = find_times(spoken, settings, Cache(cache))
    return {job.name: found[job.name][0] if job.name in found else None for job in jobs}


def find_times(
    spoken: Sequence[Spoken], settings: TranscribeConfig, store: Cache
) -> dict[str, tuple[Words | None, ...]]:
    """Name -> the words of each span; None for a span without text, or whose words' times cannot be found."""
    directories = models.find_aligners(settings, {one.language for one in spoken if any(one.texts)})
    found: dict[str, tuple[Words | None, ...]] = {}
    new: dict[str, list[Spoken]] = defaultdict(list)
    for one in spoken:
        directory = directories.get(one.language)
        if directory is None or not any(one.texts):
            found[one.job.name] = (None,) * len(one.spans)
        elif known := store.get(_key(one, directory), partial(_parse, one)):
            found[one.job.name] = known
        else:
            new[one.language].append(one)
    queue = [one for some in new.values() for one in some for _ in one.spans]
    done: dict[str, list[Words | None]] = defaultdict(list)
    if queue:
        results = track(_align(new, directories, settings), "word times", total=len(queue), unit="chunk")
        for words, one in zip(results, queue, strict=True):
            name = one.job.name
            done[name].append(words)
            if len(done[name]) == len(one.spans):
                found[name] = tuple(done.pop(name))
                store.put(_key(one, directories[one.language]), [_as_json(some) for some in found[name]])
    return found


def _align(
    spoken: Mapping[str, Sequence[Spoken]], directories: Mapping[str, Path], settings: TranscribeConfig
) -> Iterator[Words | None]:
    """The words of span after span, language after language: one model at a time in memory."""
    from cosytune.transcribe import align

    for language, some in spoken.items():
        aligner = align.load(directories[language], settings, language)
        for one in some:
            for span, text in zip(one.spans, one.texts, strict=True):
                yield aligner.words(one.job.read(span), text, span, one.job.speech) if text else None


def _key(one: Spoken, directory: Path) -> str:
    spans, speech = ([[span.start_s, span.end_s] for span in some] for some in (one.spans, one.job.speech))
    return key("words", one.job.digest, one.language, spans, one.texts, speech, models.identity(directory))


def _as_json(words: Words | None) -> list[list[str | float]] | None:
    return None if words is None else [[word.text, word.span.start_s, word.span.end_s] for word in words]


def _parse(one: Spoken, value: Any) -> tuple[Words | None, ...]:
    if len(value) != len(one.spans):
        raise ValueError(f"{one.job.name}: not one list of words for each span")
    return tuple(
        None if words is None else tuple(Word(str(text), Span(float(start), float(end))) for text, start, end in words)
        for words in value
    )
