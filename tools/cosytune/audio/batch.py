"""Many sources -> many clips: probe all, drop what the thresholds refuse, convert the rest, on all processor cores."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cosytune.audio.convert import Clip, Silent, convert
from cosytune.audio.folder import printable
from cosytune.audio.loudness import SILENCE_DBFS
from cosytune.audio.probe import Broken, Probe, probe
from cosytune.audio.sources import Source
from cosytune.errors import UserError
from cosytune.progress import track
from cosytune.schema import AudioConfig

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Kept:
    """A clip that was written to `wav`."""

    source: Source
    wav: Path
    clip: Clip


@dataclass(frozen=True)
class Dropped:
    """A source that is not used: why, what was measured, and the threshold; `meaning`: the same for people."""

    source: Source
    reason: str
    value: float | None
    threshold: float | None
    meaning: str


def probe_all(sources: Sequence[Source]) -> tuple[list[tuple[Source, Probe]], list[str]]:
    """The sources that can be read, and an error line for each one that cannot."""
    probes = _in_parallel(probe, [source.audio for source in sources], "reading headers")
    return _sort_out(list(zip(sources, probes, strict=True)))


def convert_all(
    probed: Sequence[tuple[Source, Probe]], data: Path, settings: AudioConfig
) -> tuple[list[Kept | Dropped], list[str]]:
    """What became of every source, in order, and an error line for each one whose samples turned out to be broken."""
    refused = [_refusal(source, found, settings) for source, found in probed]
    accepted = [pair for pair, drop in zip(probed, refused, strict=True) if drop is None]
    tasks = [(source.audio, found, data / "wav" / f"{source.utt}.wav") for source, found in accepted]
    clips = _in_parallel(functools.partial(_convert, settings), tasks, "converting")
    converted: list[tuple[Source, Clip | Silent]]
    converted, problems = _sort_out([(source, clip) for (source, _), clip in zip(accepted, clips, strict=True)])
    outcomes: list[Kept | Dropped] = [drop for drop in refused if drop is not None]
    for source, clip in converted:
        if isinstance(clip, Silent):
            outcomes.append(
                Dropped(source, "silent", clip.peak_dbfs, SILENCE_DBFS, f"peak below {SILENCE_DBFS:g} dBFS")
            )
        else:
            outcomes.append(Kept(source, data / "wav" / f"{source.utt}.wav", clip))
    return outcomes, problems


def _refusal(source: Source, found: Probe, settings: AudioConfig) -> Dropped | None:
    """Why a source is not even converted."""
    if source.text is None:
        return Dropped(source, "no_transcript", None, None, "audio.skip_untranscribed")
    shortest, longest, value = settings.min_duration_s, settings.max_duration_s, round(found.duration_s, 6)
    if value < shortest:
        return Dropped(source, "too_short", value, shortest, f"under audio.min_duration_s = {shortest:g}")
    if value > longest:
        return Dropped(source, "too_long", value, longest, f"over audio.max_duration_s = {longest:g}")
    return None


def _convert(settings: AudioConfig, task: tuple[Path, Probe, Path]) -> Clip | Silent | Broken:
    return convert(*task, settings)


def _sort_out(pairs: Sequence[tuple[Source, Result | Broken]]) -> tuple[list[tuple[Source, Result]], list[str]]:
    good, problems = [], []
    for source, result in pairs:
        if isinstance(result, Broken):
            problems.append(f"{printable(source.name)}: {result.reason}")
        else:
            good.append((source, result))
    return good, problems


def _in_parallel(work: Callable[[Item], Result], items: Sequence[Item], label: str) -> list[Result]:
    """`[work(item) for item in items]` on as many processes as this one may use, with progress."""
    if not items:
        return []
    workers = min(len(items), len(os.sched_getaffinity(0)))
    try:
        with ProcessPoolExecutor(workers, initializer=_die_with_parent) as pool:
            return list(track(pool.map(work, items), label, total=len(items), unit="clip"))
    except BrokenProcessPool:
        raise UserError(
            f"{label}: one of {workers} worker processes was killed, most likely for lack of memory; free some, or "
            "give the stage fewer processor cores (taskset -c 0)"
        ) from None


def _die_with_parent() -> None:
    """A worker waits for its next task for ever if the stage is killed: nobody would close the pipe between them."""
    pr_set_pdeathsig = 1  # linux/prctl.h
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
