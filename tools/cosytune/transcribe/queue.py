"""Recordings -> transcripts: one queue of chunks for all of them, each recording cached as soon as it is done."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cosytune.progress import track
from cosytune.schema import TranscribeConfig
from cosytune.transcribe import models
from cosytune.transcribe.cache import Cache, key
from cosytune.transcribe.times import Spoken, find_times
from cosytune.transcribe.transcript import Job, Segment, Transcript


@dataclass(frozen=True)
class Heard:
    """A recording as Whisper heard it: the text of each chunk and the mean log-probability of its tokens."""

    language: str
    texts: tuple[str, ...]
    scores: tuple[float, ...]


def transcribe(jobs: Sequence[Job], settings: TranscribeConfig, language: str, cache: Path) -> dict[str, Transcript]:
    """Name -> transcript, for all jobs. `language` is the recipe's; `cache`: a directory of our own, made if needed.

    What is in the cache costs nothing, not even the loading of a model; a killed run goes on after the last recording
    that was done. Raises UserError when a model is missing, before anything is heard.
    """
    found = models.find_models(settings, language)
    store = Cache(cache)
    heard = _hear_all(jobs, settings, language, found.whisper, store)
    spoken = [Spoken(job, heard[job.name].language, job.chunks, heard[job.name].texts) for job in jobs]
    times = find_times(spoken, settings, store)
    return {
        job.name: Transcript(
            heard[job.name].language,
            tuple(
                Segment(span, text, score, words)
                for span, text, score, words in zip(
                    job.chunks, heard[job.name].texts, heard[job.name].scores, times[job.name], strict=True
                )
            ),
        )
        for job in jobs
    }


def _hear_all(
    jobs: Sequence[Job], settings: TranscribeConfig, language: str, directory: Path, store: Cache
) -> dict[str, Heard]:
    identity = models.identity(directory)
    wanted = language if settings.language == "recipe" else "detect"
    keys = {job.name: _key(job, settings, wanted, identity) for job in jobs}
    heard = {job.name: Heard(language, (), ()) for job in jobs if not job.chunks}
    new = []
    for job in jobs:
        if job.chunks and (known := store.get(keys[job.name], partial(_parse, job))):
            heard[job.name] = known
        elif job.chunks:
            new.append(job)
    if new:
        for name, result in _hear_new(new, settings, language, directory):
            store.put(keys[name], {"language": result.language, "texts": result.texts, "scores": result.scores})
            heard[name] = result
    return heard


def _hear_new(
    jobs: Sequence[Job], settings: TranscribeConfig, language: str, directory: Path
) -> Iterator[tuple[str, Heard]]:
    """Each recording as soon as its last chunk is heard."""
    from cosytune.transcribe.hear import Whisper

    whisper = Whisper(directory, settings)
    languages = {job.name: language for job in jobs}
    if settings.language == "detect":
        longest = (job.read(max(job.chunks, key=lambda span: span.duration_s)) for job in jobs)
        found = track(whisper.detect(longest), "languages", total=len(jobs), unit="recording")
        languages = {job.name: code for job, code in zip(jobs, found, strict=True)}
        models.find_aligners(settings, languages.values())  # what is missing is said now, not after hours
    grouped = sorted(jobs, key=lambda job: languages[job.name])  # batches are of one language, and stay full
    queue = [(job, index) for job in grouped for index in range(len(job.chunks))]
    done: dict[str, list[tuple[str, float]]] = defaultdict(list)
    results = track(_hear_queue(whisper, queue, languages), "transcribe", total=len(queue), unit="chunk")
    for result, (job, _) in zip(results, queue, strict=True):
        done[job.name].append(result)
        if len(done[job.name]) == len(job.chunks):
            texts, scores = zip(*done.pop(job.name), strict=True)
            yield job.name, Heard(languages[job.name], texts, scores)
    whisper.close()


def _hear_queue(
    whisper: Any, queue: Sequence[tuple[Job, int]], languages: Mapping[str, str]
) -> Iterator[tuple[str, float]]:
    for language in dict.fromkeys(languages[job.name] for job, _ in queue):
        of_language = (job.read(job.chunks[index]) for job, index in queue if languages[job.name] == language)
        yield from whisper.hear(of_language, language)


def _key(job: Job, settings: TranscribeConfig, language: str, identity: Sequence[str | int]) -> str:
    chunks = [[span.start_s, span.end_s] for span in job.chunks]
    return key("heard", job.digest, chunks, identity, language, settings.beam_size, settings.compute_type)


def _parse(job: Job, value: Any) -> Heard:
    heard = Heard(str(value["language"]), tuple(map(str, value["texts"])), tuple(map(float, value["scores"])))
    if not len(heard.texts) == len(heard.scores) == len(job.chunks):
        raise ValueError(f"{job.name}: not one text for each chunk")
    return heard
