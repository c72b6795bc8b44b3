"""SIGTERM, SIGINT or SIGHUP -> a request to stop at the next good place, and the exit status that says so."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

EXIT_STATUS = {signal.SIGTERM: 75, signal.SIGINT: 130, signal.SIGHUP: 129}
"""75 is EX_TEMPFAIL: the same command goes on later."""


@dataclass
class Request:
    """`received`: the signal that asked to stop, None while there is none."""

    received: signal.Signals | None = None


@contextmanager
def listening() -> Iterator[Request]:
    """Note the first of the signals; a second one does what it does everywhere else."""
    request = Request()
    before = {number: signal.getsignal(number) for number in EXIT_STATUS}

    def note(number: int, _: FrameType | None) -> None:
        request.received = signal.Signals(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
