"""SIGTERM, SIGINT or SIGHUP -> a request to stop at the next good place, and the exit status that says so."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

EXIT_STATUS = {signal.SIGTERM: 75, signal.SIGINT: 130, signal.SIGHUP: 129}
"""75 is EX_TEMPFAIL: the same command goes on later."""

_ECHO_S = 1.0
"""One wish may come several times: to a whole process group, and again through torchrun or the stage."""


@dataclass
class Request:
    """`received`: the signal that asked to stop, None while there is none."""

    received: signal.Signals | None = None


class Stopped(Exception):  # noqa: N818 - no error: what was asked for
    """A signal asked to stop, and what there was to save is saved: the same command goes on from it."""

    def __init__(self, received: signal.Signals) -> None:
        super().__init__(_farewell(received))
        self.exit_status = EXIT_STATUS[received]


def leave_at_once(quiet: bool = False) -> None:
    """Until somebody listens, a signal ends this process with its status: there is nothing to save yet.

    Not by an exception: one that is raised while a library is imported may be swallowed, or end in a traceback.
    `quiet`: without a line, for a process whose starter says it.
    """
    owner = os.getpid()

    def leave(number: int, _: FrameType | None) -> None:
        if os.getpid() != owner:
            return  # a forked worker: the process that it works for answers
        if not quiet:
            os.write(2, f"{_farewell(signal.Signals(number))}\n".encode())
        os._exit(EXIT_STATUS[signal.Signals(number)])

    for number in _heard():
        signal.signal(number, leave)


@contextmanager
def listening() -> Iterator[Request]:
    """Note the first of the signals; one that comes more than a second later does what it does everywhere else."""
    request = Request()
    owner, first_s = os.getpid(), 0.0
    before = {number: signal.getsignal(number) for number in _heard()}

    def note(number: int, _: FrameType | None) -> None:
        nonlocal first_s
        if os.getpid() != owner:
            return
        if request.received is None:
            request.received, first_s = signal.Signals(number), time.monotonic()
        elif time.monotonic() - first_s > _ECHO_S:
            restore()
            os.kill(owner, number)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield request
    finally:
        restore()


def die_with_parent(parent: int) -> None:
    """End this process when `parent`, which started it, is gone, however that ended: nobody else would stop it."""
    pr_set_pdeathsig = 1  # linux/prctl.h
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _heard() -> list[signal.Signals]:
    """Not a hang-up that nohup has told us to ignore."""
    ignores_hangup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [number for number in EXIT_STATUS if not (number == signal.SIGHUP and ignores_hangup)]


def _farewell(received: signal.Signals) -> str:
    return f"stopped by {received.name}; the same command goes on from here"
