"""Sources -> takes: every recording decoded once to a working track, and where somebody speaks in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cosytune.audio.decode import Silent
from cosytune.audio.folder import printable
from cosytune.audio.listen import Heard
from cosytune.audio.loudness import SILENCE_DBFS
from cosytune.audio.probe import Broken, Probe, probe
from cosytune.audio.sources import Source
from cosytune.audio.span import Span
from cosytune.audio.track import Track
from cosytune.corpus.crew import Crew, Recording
from cosytune.corpus.drop import Drop
from cosytune.parallel import Workers
from cosytune.quality.gates import Reason


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


def take_all(probed: Sequence[tuple[Source, Probe]], crew: Crew) -> tuple[list[Take], list[Drop], list[str]]:
    """Takes in the order of the sources, silent recordings, and an error line for each broken one."""
    decoded, heard = crew.hear([Recording(source.audio, found) for source, found in probed])
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
    return [Take(source, track, ear) for (source, track), ear in zip(tracks, heard, strict=True)], drops, []


def _silent(peak_dbfs: float) -> Reason:
    return Reason("silent", peak_dbfs, SILENCE_DBFS, f"peak below {SILENCE_DBFS:g} dBFS")
