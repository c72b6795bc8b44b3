"""train.num_processes and train.side_by_side -> the processes that train the modules, one after the other or together.

The same adapters come out of each way; they differ in speed and memory alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from cosytune import base
from cosytune.errors import UserError
from cosytune.layout import ROOT, Layout
from cosytune.schema import Config, Module
from cosytune.training import hardware, job, launch, pace
from cosytune.training.hardware import Card, Setup


def train(config: Config, layout: Layout) -> None:
    """Train what train.mode names. Raises signals.Stopped after a signal, UserError when a process failed."""
    names, count = config.train.modules, num_processes(config)
    share = _share(config)
    together = len(names) > 1 and share < 1
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
                program = command(layout, name, share)
                programs += launch.ranks(name, program, count, threads, layout.module(name), environment)
            launch.run(programs)


def command(layout: Layout, name: str, share: float = 1.0) -> Sequence[str]:
    """`share`: of the GPU's memory, for this module."""
    return sys.executable, "-m", "cosytune.training", str(layout.config), name, f"--share={share:.3f}"


def num_processes(config: Config) -> int:
    """Of each module; auto: one for each GPU, and one on a CPU."""
    asked, gpus = config.train.num_processes, _gpus(config)
    if asked == "auto":
        return max(1, gpus)
    if 0 < gpus < asked:
        raise UserError(f"train.num_processes = {asked}, and there are {gpus} GPUs; one process a GPU", exit_status=2)
    return asked


def _share(config: Config) -> float:
    """Of each GPU's memory, for each module: below 1 where both are trained at the same time.

    auto: side by side where both have room for good batches beside each other, on a GPU. Two modules on one CPU would
    only take each other's cores.
    """
    asked = config.train.side_by_side
    if asked is False or len(config.train.modules) < 2:
        return 1.0
    found = _gpu() if _gpus(config) else None
    share = 0.5 * found.free_gb / found.card.memory_gb if found else 0.5
    if asked is True:
        return share
    return share if found and _have_room(config, found.card, share) else 1.0


def _have_room(config: Config, card: Card, share: float) -> bool:
    """Whether neither module has to compute activations twice, or to take smaller batches, for the other's sake."""
    for name in config.train.modules:
        parameters = (base.locate(config) / job.weights(config, name)).stat().st_size // 4  # the file is fp32
        settings = getattr(config.train, name)
        alone, beside = (
            hardware.settle(name, settings, config.train, config.low_memory, card, parameters, part)
            for part in (1.0, share)
        )
        good_tokens = min(alone.max_tokens_per_batch, Setup.max_tokens_per_batch)
        is_as_good = beside.max_tokens_per_batch >= good_tokens
        if not is_as_good or beside.gradient_checkpointing != alone.gradient_checkpointing:
            return False
        if hardware.needs_gb(name, replace(beside, max_tokens_per_batch=good_tokens), parameters) > (
            share * card.memory_gb
        ):
            return False
    return True


@dataclass(frozen=True)
class _Gpu:
    card: Card
    free_gb: float


def _gpu() -> _Gpu:
    """The first GPU. Asked in a process of its own: who asks takes some hundred MB of it, and keeps them."""
    program = (
        "import json, torch; p = torch.cuda.get_device_properties(0); "
        "print(json.dumps([p.name, p.total_memory / 1e9, [p.major, p.minor], torch.cuda.mem_get_info(0)[0] / 1e9]))"
    )
    asked = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    name, memory_gb, capability, free_gb = json.loads(asked.stdout)
    return _Gpu(Card(name, memory_gb, tuple(capability)), free_gb)


def has_gpu() -> bool:
    """Whether there is one to use at all; takes no memory of it."""
    import torch

    return torch.cuda.is_available()


def _gpus(config: Config) -> int:
    if config.device == "cpu":
        return 0
    import torch

    return torch.cuda.device_count()


def _python_path() -> str:
    return os.pathsep.join([str(ROOT / "tools"), *filter(None, [os.environ.get("PYTHONPATH")])])
