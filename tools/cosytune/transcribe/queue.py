"""Recordings -> transcripts: one queue of chunks for all of them, cached recording by recording as it moves on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosytune.audio.span import Span
from cosytune.progress import track
from cosytune.schema import TranscribeConfig
from cosytune.transcribe import models
from cosytune.transcribe.cache import Cache, key
from cosytune.transcribe.times import Spoken, Words, find_times
from cosytune.transcribe.transcript import Job, Segment, Transcript

if TYPE_CHECKING:
    from cosytune.transcribe.hear import Whisper


@dataclass(frozen=True)
class Heard:
    """A recording as far as Whisper heard it: the text of each chunk and the mean log-probability of its tokens."""

    language: str
    texts: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()

    def grown(self, text: str, score: float) -> Heard:
        return Heard(self.language, (*self.texts, text), (*self.scores, score))


def transcribe(jobs: Sequence[Job], settings: TranscribeConfig, language: str, cache: Path) -> dict[str, Transcript]:
    """Name -> transcript, for all jobs. `language` is the recipe's; `cache`: a directory of our own, made if needed.

    What is in the cache costs nothing, not even the loading of a model; a killed run goes on where it was, but for a
    batch's worth of chunks. Raises UserError when a model is missing, before anything is heard.
    """
    assert len({job.name for job in jobs}) == len(jobs), "two jobs of one name"
    found = models.find_models(settings, language)
    store = Cache(cache)
    heard = _hear_all(jobs, settings, language, found.whisper, store)
    wanted = [job for job in jobs if job.needs_words]
    spoken = [Spoken(job, heard[job.name].language, job.chunks, heard[job.name].texts) for job in wanted]
    times = find_times(spoken, settings, store)
    unknown = {job.name: (None,) * len(job.chunks) for job in jobs}
    return {job.name: _transcript(job, heard[job.name], (unknown | times)[job.name]) for job in jobs}


def _transcript(job: Job, heard: Heard, times: Sequence[Words | None]) -> Transcript:
    chunks = zip(job.chunks, heard.texts, heard.scores, times, strict=True)
    return Transcript(heard.language, tuple(Segment(*parts) for parts in chunks))


def _hear_all(
    jobs: Sequence[Job], settings: TranscribeConfig, language: str, directory: Path, store: Cache
) -> dict[str, Heard]:
    identity = models.identity(directory)
    wanted = language if settings.language == "recipe" else "detect"
    keys = {job.name: _key(job, settings, wanted, identity) for job in jobs}
    heard = {job.name: store.get(keys[job.name], partial(_parse, job)) or Heard(language) for job in jobs}
    new = [job for job in jobs if len(heard[job.name].texts) < len(job.chunks)]
    if new:
        for name, result in _hear_new(new, heard, settings, directory):
            store.put(keys[name], {"language": result.language, "texts": result.texts, "scores": result.scores})
            heard[name] = result
    return heard


def _hear_new(
    jobs: Sequence[Job], known: Mapping[str, Heard], settings: TranscribeConfig, directory: Path
) -> Iterator[tuple[str, Heard]]:
    """Each recording when its last chunk is heard, and a long one on the way there, a batch's worth of chunks apart."""
    from cosytune.transcribe.hear import Whisper

    whisper = Whisper(directory, settings)
    heard = {job.name: known[job.name] for job in jobs}
    if settings.language == "detect":
        heard |= _detect([job for job in jobs if not heard[job.name].texts], whisper)  # a begun one has its language
        models.find_aligners(settings, (one.language for one in heard.values()))  # said now, not after hours
    grouped = sorted(jobs, key=lambda job: heard[job.name].language)  # batches are of one language, and stay full
    queue = [(job, span) for job in grouped for span in job.chunks[len(heard[job.name].texts) :]]
    languages = {name: one.language for name, one in heard.items()}
    results = track(_hear_queue(whisper, queue, languages), "transcribe", total=len(queue), unit="chunk")
    for result, (job, _) in zip(results, queue, strict=True):
        one = heard[job.name] = heard[job.name].grown(*result)
        if len(one.texts) == len(job.chunks) or len(one.texts) % settings.batch_size == 0:
            yield job.name, one
    whisper.close()


def _detect(jobs: Sequence[Job], whisper: Whisper) -> dict[str, Heard]:
    """The language of each recording, by its longest chunk."""
    longest = (job.read(max(job.chunks, key=lambda span: span.duration_s)) for job in jobs)
    found = track(whisper.detect(longest), "languages", total=len(jobs), unit="recording") if jobs else ()
    return {job.name: Heard(language) for job, language in zip(jobs, found, strict=True)}


def _hear_queue(
    whisper: Whisper, queue: Sequence[tuple[Job, Span]], languages: Mapping[str, str]
) -> Iterator[tuple[str, float]]:
    for language in dict.fromkeys(languages[job.name] for job, _ in queue):
        yield from whisper.hear((job.read(span) for job, span in queue if languages[job.name] == language), language)


def _key(job: Job, settings: TranscribeConfig, language: str, identity: Sequence[str | int]) -> str:
    chunks = [[span.start_s, span.end_s] for span in job.chunks]
    return key("heard", job.digest, chunks, identity, language, settings.beam_size, settings.compute_type)


def _parse(job: Job, value: Any) -> Heard:
    heard = Heard(str(value["language"]), tuple(map(str, value["texts"])), tuple(map(float, value["scores"])))
    if not len(heard.texts) == len(heard.scores) <= len(job.chunks):
        raise ValueError(f"{job.name}: not one text for each chunk")
    return heard
