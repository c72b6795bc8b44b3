"""One process at a time where a recipe's data is written: stages, and the review page beside them."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cosytune.errors import UserError

_AGAIN_S = 0.05


@contextmanager
def alone(directory: Path, patience_s: float = 0.0) -> Iterator[None]:
    """Hold the lock of `directory`, which is made if needed. It ends with the process, however that ends.

    Raises BlockingIOError when somebody else still holds it after `patience_s`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    handle = os.open(directory, os.O_RDONLY)
    try:
        _take(handle, time.monotonic() + patience_s)
        yield
    finally:
        os.close(handle)


@contextmanager
def nobody_else(shown: Path, *directories: Path, patience_s: float = 0.0) -> Iterator[None]:
    """Hold the locks of all `directories`; raises a UserError about `shown` when a run is at work in one of them.

    A BlockingIOError of the block itself, as for lack of processes, is not taken for that.
    """
    with ExitStack() as held:
        try:
            for directory in directories:
                held.enter_context(alone(directory, patience_s))
        except BlockingIOError:
            raise UserError(f"{shown}: another run is at work there; wait for it, or stop it") from None
        yield


def _take(handle: int, until_s: float) -> None:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= until_s:
                raise
            time.sleep(_AGAIN_S)
