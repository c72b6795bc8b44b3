"""One measurement of one variant, in a process forked for it: seconds of a pass, peak memory, a checkpoint.

The parent imports everything and builds the module once, with one thread, and never computes with more; a child shares
its pages until it writes to them. So a measurement starts in a tenth of a second, in a process that has trained nothing
yet and whose peak memory is its own; and only one variant is in memory at a time, beside the parent's base weights.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cosytune.families import Family
from cosytune.training import signals

from . import corpus as corpora
from . import ours, theirs
from .corpus import Corpus

VARIANTS = ("a", "b", "ours")


@dataclass(frozen=True)
class Bench:
    """What is measured for one module. warm_up: a corpus of a few clips, one update. workers: upstream's."""

    name: str
    family: Family
    corpus: Corpus
    warm_up: Corpus
    max_frames: int
    max_tokens_per_batch: int
    workers: int
    threads: int
    device: str
    scratch: Path


@dataclass(frozen=True)
class Figures:
    """pass_s: once through what was served. cpu_s: of all threads of the training process, which other work on
    the machine disturbs less. peak_bytes: resident, on a GPU what torch reserved there.
    """

    pass_s: float
    cpu_s: float
    served: int
    updates: int
    peak_bytes: int
    save_s: float
    saved_bytes: int


def in_child(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns in a forked process; ends this one when that one fails."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(os.getpid(), sender, function, arguments))
    child.start()
    sender.close()
    try:
        answer = receiver.recv()
    except EOFError:
        answer = None
    child.join()
    if answer is None:
        sys.exit(f"{function.__name__}{arguments[:1]}: the process ended with status {child.exitcode}; out of memory?")
    return answer


def _answer(parent: int, sender: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    signals.die_with_parent(parent)
    try:
        sender.send(function(*arguments))
    except Exception:
        traceback.print_exc()
        sys.exit(1)


def run(variant: str, module: nn.Module, bench: Bench, number: int) -> Figures:
    """Warm up with one update, then one pass over the corpus, then a checkpoint. To be called in a child.

    `number`: of the round; another one has other draws.
    """
    warnings.simplefilter("ignore")  # of upstream's and torchaudio's old calls
    torch.set_num_threads(bench.threads)
    torch.manual_seed(number)
    random.seed(number)
    device = torch.device(bench.device)
    scratch = bench.scratch / variant
    scratch.mkdir()
    try:
        one_pass, save = _sides(variant, module, bench, number, device, scratch)
        one_pass(bench.warm_up)
        if device.type == "cuda":  # every shape once: torch reserves memory and picks kernels by shape
            one_pass(bench.corpus)
        wait(device)
        started_s, cpu_started_s = time.monotonic(), time.process_time()
        served = one_pass(bench.corpus)
        wait(device)
        pass_s, cpu_s = time.monotonic() - started_s, time.process_time() - cpu_started_s
        started_s = time.monotonic()
        (scratch / "saved").mkdir()
        written = save(scratch / "saved")
        save_s = time.monotonic() - started_s
        saved_bytes = sum(path.stat().st_size for path in written)
        count = len(_updates(bench, bench.corpus)) * served // len(bench.corpus.features)
        return Figures(pass_s, cpu_s, served, count, _peak_bytes(device), save_s, saved_bytes)
    finally:
        shutil.rmtree(scratch)


def _sides(
    variant: str, module: nn.Module, bench: Bench, number: int, device: torch.device, scratch: Path
) -> tuple[Callable[[Corpus], int], Callable[[Path], list[Path]]]:
    """How this variant passes over a corpus, and how it saves."""
    if variant == "ours":
        mine = ours.build(module, bench.name, bench.family, device, bench.max_tokens_per_batch)
        return lambda corpus: mine.epoch(corpus, _updates(bench, corpus), number), mine.save
    if variant == "b":
        module = theirs.inject(module, bench.name, bench.family)
    side = theirs.build(module, bench.family, device, scratch)
    workers = bench.workers if variant == "a" else 1

    def one_pass(corpus: Corpus) -> int:
        is_warm_up = corpus is bench.warm_up
        frames = max(corpora.frames(corpus)) if is_warm_up else bench.max_frames
        loader = theirs.loader(
            corpus, bench.family, 1 if is_warm_up else workers, frames, pin_memory=device.type == "cuda"
        )
        return side.epoch(loader)

    return one_pass, side.save


def _updates(bench: Bench, corpus: Corpus) -> list[list[int]]:
    frames = corpora.frames(corpus)
    max_frames = max(frames) if corpus is bench.warm_up else bench.max_frames
    return corpora.updates(frames, max_frames, theirs.ACCUM_GRAD)


def wait(device: torch.device) -> None:
    """Until a GPU has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
