"""Whether a step is cut into shards, and into how many. Light: a small corpus on one machine asks for no more."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cosytune.layout import Layout
from cosytune.schema import Config, ShardsConfig

if TYPE_CHECKING:
    from cosytune.features.extract import Clip, Compute, Outcome

_HOURS = {"pool": 10.0, "slurm": 1.0, "ray": 1.0}
"""Of sound in a shard, for nj: auto. On one machine nothing waits in a queue, and every shard loads its libraries."""
_MOST = 1000
"""Shards for nj: auto; the largest array of jobs that Slurm takes as it comes is 1001."""


def count(settings: ShardsConfig, seconds: Sequence[float]) -> int:
    """How many shards; `seconds`: of sound in each item."""
    hours = sum(seconds) / 3600
    wanted = min(_MOST, int(hours / _HOURS[settings.launcher])) if settings.nj == "auto" else settings.nj
    return max(1, min(wanted, len(seconds)))


def is_wanted(settings: ShardsConfig, seconds: Sequence[float]) -> bool:
    """One shard on this machine is what the stage does without any."""
    return settings.launcher != "pool" or count(settings, seconds) > 1


def compute(
    step: str, config: Config, layout: Layout, clips: Sequence[Clip], here: Compute, again: bool
) -> Iterable[Outcome]:
    """The outcome of every clip: by `here`, or in shards where there are several, or other machines than this one."""
    if again:
        forget(layout, step)
    if not is_wanted(config.shards, [clip.utterance.duration_s for clip in clips]):
        return here(clips)
    from cosytune.shards import features, steps

    return features.compute(steps.get(step), config, layout, clips)


def forget(layout: Layout, *steps: str) -> None:
    """Everything that the shards of these steps left."""
    for step in steps:
        if (directory := layout.shards / step).exists():
            shutil.rmtree(directory)
    if layout.shards.is_dir() and not any(layout.shards.iterdir()):
        layout.shards.rmdir()
