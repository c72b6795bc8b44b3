"""Sources -> takes: every recording decoded once to a working track, and where somebody speaks in it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cosytune.audio import decode, listen
from cosytune.audio.blocks import Blocks
from cosytune.audio.decode import Part, Rendered, Silent, Survey
from cosytune.audio.folder import printable
from cosytune.audio.listen import Heard
from cosytune.audio.loudness import SILENCE_DBFS
from cosytune.audio.probe import Broken, Probe, probe
from cosytune.audio.sources import Source
from cosytune.audio.span import Span
from cosytune.audio.track import Track
from cosytune.audio.vad import SpeechDetector
from cosytune.corpus.drop import Drop
from cosytune.parallel import Workers
from cosytune.quality.gates import Reason
from cosytune.schema import AudioConfig


@dataclass(frozen=True)
class Take:
    """A recording as it is worked on: its samples, and the speech in it."""

    source: Source
    track: Track
    heard: Heard

    @property
    def whole(self) -> Span:
        return Span(0.0, self.track.duration_s)


def probe_all(sources: Sequence[Source], workers: Workers) -> tuple[list[tuple[Source, Probe]], list[str]]:
    """The sources that can be read, and an error line for each one that cannot."""
    probes = workers.map(probe, [source.audio for source in sources], "reading headers", "recording")
    found, problems = [], []
    for source, result in zip(sources, probes, strict=True):
        if isinstance(result, Broken):
            problems.append(f"{printable(source.name)}: {result.reason}")
        else:
            found.append((source, result))
    return found, problems


def take_all(
    probed: Sequence[tuple[Source, Probe]], directory: Path, settings: AudioConfig, workers: Workers
) -> tuple[list[Take], list[Drop], list[str]]:
    """Takes in the order of the sources, silent recordings, and an error line for each broken one."""
    decoded = _decode_all(probed, directory, settings.sample_rate_hz, workers)
    tracks: list[tuple[Source, Track]] = []
    drops: list[Drop] = []
    problems: list[str] = []
    for (source, found), result in zip(probed, decoded, strict=True):
        if isinstance(result, Broken):
            problems.append(f"{printable(source.name)}: {result.reason}")
        elif isinstance(result, Silent):
            drops.append(Drop(source, source.name, Span(0.0, found.duration_s), (_silent(result.peak_dbfs),)))
        else:
            tracks.append((source, result))
    if problems:  # nothing will come of the others: the run stops
        return [], drops, problems
    heard = _listen_all([track for _, track in tracks], workers)
    return [Take(source, track, ear) for (source, track), ear in zip(tracks, heard, strict=True)], drops, []


def _silent(peak_dbfs: float) -> Reason:
    return Reason("silent", peak_dbfs, SILENCE_DBFS, f"peak below {SILENCE_DBFS:g} dBFS")


def _decode_all(
    probed: Sequence[tuple[Source, Probe]], directory: Path, rate_hz: int, workers: Workers
) -> list[Track | Silent | Broken]:
    """A short recording in one go; a long one is looked at first, and decoded in parts on all processor cores."""
    tasks = [(source.audio, found, directory / f"{number}.f32") for number, (source, found) in enumerate(probed)]
    results = list(workers.map(functools.partial(_begin, rate_hz), tasks, "decoding", "recording"))
    long = [(task, seen) for task, seen in zip(tasks, results, strict=True) if isinstance(seen, Survey)]
    renders = [(task, seen, part) for task, seen in long for part in decode.parts(task[1])]
    made = (
        workers.map(functools.partial(_render, rate_hz), renders, "decoding long ones", "part") if renders else iter(())
    )
    of_long: dict[Path, list[Rendered | Broken]] = {}
    for (task, _, _), part in zip(renders, made, strict=True):
        of_long.setdefault(task[2], []).append(part)
    return [
        _finish(of_long[task[2]], task, seen, rate_hz) if isinstance(seen, Survey) else seen
        for task, seen in zip(tasks, results, strict=True)
    ]


_Task = tuple[Path, Probe, Path]


def _begin(rate_hz: int, task: _Task) -> Track | Survey | Silent | Broken:
    audio, found, destination = task
    if len(decode.parts(found)) == 1:
        return decode.decode(audio, found, destination, rate_hz)
    return decode.survey(Blocks(audio, found))


def _render(rate_hz: int, task: tuple[_Task, Survey, Part]) -> Rendered | Broken:
    (audio, found, destination), seen, part = task
    return decode.render(decode.around(audio, found, part), found, seen, part, destination, rate_hz)


def _finish(made: Sequence[Rendered | Broken], task: _Task, seen: Survey, rate_hz: int) -> Track | Broken:
    broken = next((part for part in made if isinstance(part, Broken)), None)
    whole = [part for part in made if isinstance(part, Rendered)]
    return broken or decode.finish(whole, task[1], seen, task[2], rate_hz)


def _listen_all(tracks: Sequence[Track], workers: Workers) -> list[Heard]:
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
