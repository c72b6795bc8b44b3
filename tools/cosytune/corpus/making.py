"""The work itself: recordings -> tracks and what is heard in them; stretches of tracks -> clips."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from cosytune.audio import decode, listen
from cosytune.audio.blocks import Blocks
from cosytune.audio.clip import write_clips
from cosytune.audio.decode import Part, Rendered, Silent, Survey
from cosytune.audio.listen import Heard
from cosytune.audio.probe import Broken
from cosytune.audio.span import Span
from cosytune.audio.track import Track
from cosytune.audio.vad import SpeechDetector
from cosytune.corpus.crew import Decoded, Made, Recording, Task
from cosytune.parallel import Workers
from cosytune.quality import duplicates, encoder, voices
from cosytune.quality.measure import measure
from cosytune.quality.voices import Float
from cosytune.schema import AudioConfig

_Job = tuple[Recording, Path]


class OnThisMachine:
    """Processes of this machine; tracks and clips lie in `directory` and go with it."""

    def __init__(self, directory: Path, settings: AudioConfig, workers: Workers) -> None:
        self._directory, self._settings, self._workers = directory, settings, workers

    def hear(self, recordings: Sequence[Recording]) -> tuple[list[Decoded], list[Heard]]:
        tracks = [self._directory / f"{number}.f32" for number in range(len(recordings))]
        decoded = decode_all(recordings, tracks, self._settings.sample_rate_hz, self._workers)
        if any(isinstance(one, Broken) for one in decoded):  # the run stops
            return decoded, []
        return decoded, listen_all([one for one in decoded if isinstance(one, Track)], self._workers)

    def make(self, tasks: Sequence[Task]) -> Iterator[list[Made]]:
        numbers = itertools.count()
        wavs = [[self._directory / f"{next(numbers)}.wav" for _ in task.stretches] for task in tasks]
        return make_all(tasks, wavs, self._settings, self._workers)

    def forget_tracks(self) -> None:
        for track in self._directory.glob("*.f32"):  # or they would be written to the disk with the clips
            track.unlink()


def decode_all(
    recordings: Sequence[Recording], tracks: Sequence[Path], rate_hz: int, workers: Workers
) -> list[Decoded]:
    """A short recording in one go; a long one is looked at first, and decoded in parts on all processor cores."""
    jobs = list(zip(recordings, tracks, strict=True))
    results = list(workers.map(functools.partial(_begin, rate_hz), jobs, "decoding", "recording"))
    long = [(job, seen) for job, seen in zip(jobs, results, strict=True) if isinstance(seen, Survey)]
    renders = [(job, seen, part) for job, seen in long for part in decode.parts(job[0].found)]
    made = (
        workers.map(functools.partial(_render, rate_hz), renders, "decoding long ones", "part") if renders else iter(())
    )
    of_long: dict[Path, list[Rendered | Broken]] = {}
    for ((_, track), _, _), part in zip(renders, made, strict=True):
        of_long.setdefault(track, []).append(part)
    return [
        _finish(of_long[job[1]], job, seen, rate_hz) if isinstance(seen, Survey) else seen
        for job, seen in zip(jobs, results, strict=True)
    ]


def _begin(rate_hz: int, job: _Job) -> Track | Survey | Silent | Broken:
    recording, track = job
    if len(decode.parts(recording.found)) == 1:
        return decode.decode(recording.audio, recording.found, track, rate_hz)
    return decode.survey(Blocks(recording.audio, recording.found))


def _render(rate_hz: int, task: tuple[_Job, Survey, Part]) -> Rendered | Broken:
    (recording, track), seen, part = task
    blocks = decode.around(recording.audio, recording.found, part)
    return decode.render(blocks, recording.found, seen, part, track, rate_hz)


def _finish(made: Sequence[Rendered | Broken], job: _Job, seen: Survey, rate_hz: int) -> Track | Broken:
    recording, track = job
    broken = next((part for part in made if isinstance(part, Broken)), None)
    whole = [part for part in made if isinstance(part, Rendered)]
    return broken or decode.finish(whole, recording.found, seen, track, rate_hz)


def listen_all(tracks: Sequence[Track], workers: Workers) -> list[Heard]:
    """Long recordings are listened to in parts, so that one of them keeps every processor core at work."""
    parts = [(index, part) for index, track in enumerate(tracks) for part in listen.parts(track.frames, track.rate_hz)]
    tasks = [(tracks[index].path, tracks[index].rate_hz, start, end) for index, (start, end) in parts]
    pieces: list[list[Heard]] = [[] for _ in tracks]
    for (index, _), heard in zip(parts, workers.map(_listen, tasks, "finding speech", "part"), strict=True):
        pieces[index].append(heard)
    return [listen.join(ones) for ones in pieces]


def _listen(task: tuple[Path, int, int, int]) -> Heard:
    return listen.listen(*task, _detector())


@functools.cache
def _detector() -> SpeechDetector:
    """One for each process."""
    return SpeechDetector()


def make_all(
    tasks: Sequence[Task], wavs: Sequence[Sequence[Path]], settings: AudioConfig, workers: Workers
) -> Iterator[list[Made]]:
    """The clips of each task, at one loudness in a WAV of its own, measured; `wavs`: where each one goes."""
    encoder.ensure()  # once, not in every process
    return workers.map(functools.partial(_make, settings), list(zip(tasks, wavs, strict=True)), "making clips", "part")


def _make(settings: AudioConfig, job: tuple[Task, Sequence[Path]]) -> list[Made]:
    task, wavs = job
    clips: list[NDArray[np.float32]] = [
        np.fromfile(task.track, "<f4", count=one.count, offset=4 * one.start) for one in task.stretches
    ]
    written = write_clips(clips, wavs, settings)
    heard = voices.embed(
        [_windows(samples, task.rate_hz, one.speech) for samples, one in zip(clips, task.stretches, strict=True)]
    )
    return [
        Made(
            wav,
            file,
            measure(samples, task.rate_hz, one.speech, one.original, file.source_lufs if file else None),
            duplicates.fingerprint(samples, task.rate_hz),
            voice,
        )
        for wav, samples, one, file, voice in zip(wavs, clips, task.stretches, written, heard, strict=True)
    ]


def _windows(samples: NDArray[np.float32], rate_hz: int, speech: Sequence[Span]) -> Float:
    return voices.windows(soxr.resample(samples, rate_hz, voices.RATE_HZ), speech)
