"""train.num_processes and train.side_by_side -> the processes that train the modules, one after the other or together.

The same adapters come out of each way; they differ in speed and memory alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from cosytune.errors import UserError
from cosytune.layout import ROOT, Layout
from cosytune.schema import Config, Module
from cosytune.training import job, launch, pace, trackers


def train(config: Config, layout: Layout) -> None:
    """Train what train.mode names. Raises signals.Stopped after a signal, UserError when a process failed."""
    names, count = config.train.modules, num_processes(config)
    for name in names:
        trackers.require(getattr(config.train, name).report_to, f"train.{name}")
    together = len(names) > 1 and side_by_side(config)
    if count == 1 and not together:
        job.run(config, layout, names)  # in this process: the second module finds all libraries loaded
        return
    rounds: list[tuple[Module, ...]] = [names] if together else [(name,) for name in names]
    for modules in rounds:
        threads = max(1, len(os.sched_getaffinity(0)) // (count * len(modules)))
        with ExitStack() as stack:
            programs: list[launch.Program] = []
            for name in modules:
                meeting = stack.enter_context(launch.meeting_point()) if count > 1 else {}
                environment = {**meeting, "PYTHONPATH": _python_path(), **({pace.LINES_ONLY: "1"} if together else {})}
                programs += launch.ranks(name, command(layout, name), count, threads, layout.module(name), environment)
            launch.run(programs)


def command(layout: Layout, name: str) -> Sequence[str]:
    return sys.executable, "-m", "cosytune.training", str(layout.config), name


def num_processes(config: Config) -> int:
    """Of each module; auto: one for each GPU, and one on a CPU."""
    asked, gpus = config.train.num_processes, _gpus(config)
    if asked == "auto":
        return max(1, gpus)
    if 0 < gpus < asked:
        raise UserError(f"train.num_processes = {asked}, and there are {gpus} GPUs; one process a GPU", exit_status=2)
    return asked


def side_by_side(config: Config) -> bool:
    """Whether both modules are trained at the same time; auto: one after the other."""
    asked = config.train.side_by_side
    return False if asked == "auto" else asked


def _gpus(config: Config) -> int:
    if config.device == "cpu":
        return 0
    import torch

    return torch.cuda.device_count()


def _python_path() -> str:
    return os.pathsep.join([str(ROOT / "tools"), *filter(None, [os.environ.get("PYTHONPATH")])])
