"""`[work(item) for item in items]` on several processor cores, in order, as the results come, with progress."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Literal, TypeVar

import threadpoolctl

from cosytune.errors import UserError
from cosytune.progress import track

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 4  # results that wait for each process: the reader may be slow, and memory is not to grow with the work


class Workers:
    """Processes that live for several rounds of work, so that each one loads its libraries and models once."""

    def __init__(self, nj: int | Literal["auto"]) -> None:
        self._count = len(os.sched_getaffinity(0)) if nj == "auto" else nj
        self._pool = ProcessPoolExecutor(self._count, initializer=_prepare)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def map(self, work: Callable[[Item], Result], items: Sequence[Item], label: str, unit: str) -> Iterator[Result]:
        """The results in order; raises a UserError with a remedy when a process was killed."""
        try:
            yield from track(self._in_order(work, items), label, total=len(items), unit=unit)
        except BrokenProcessPool:
            raise UserError(
                f"{label}: one of {self._count} worker processes was killed, most likely for lack of memory; free "
                "some, or use fewer processes with audio.nj=1"
            ) from None

    def _in_order(self, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        waiting: list[Future[Result]] = []
        for item in items:
            waiting.append(self._pool.submit(work, item))
            if len(waiting) >= _AHEAD * self._count:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


def _prepare() -> None:
    """A worker waits for its next task for ever if the stage is killed: nobody would close the pipe between them."""
    threadpoolctl.threadpool_limits(1)  # one core each: threads of theirs on all cores made them twice as slow
    pr_set_pdeathsig = 1  # linux/prctl.h
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a signal may reach the whole group: the stage alone answers it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
