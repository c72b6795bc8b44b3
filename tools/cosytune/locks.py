"""One process at a time where a recipe's data is written: stages, and the review page beside them."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


def _take(handle: int, until_s: float) -> None:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= until_s:
                raise
            time.sleep(_AGAIN_S)
