"""A thread that may hang for ever in a library's call -> an end of the process, said in a line.

torch's store waits without a limit for a machine that has lost its power: no packet comes, not even a refusal. Python
answers no signal in such a call, so another thread has to.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Watchdog:
    """Ends the process with status 1 and `message` when nobody calls `pat` for `patience_s`; `clean` before that."""

    patience_s: float
    message: str
    clean: Callable[[], None]
    _patted: threading.Event = field(default_factory=threading.Event)
    _is_over: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        threading.Thread(target=self._watch, daemon=True).start()

    def pat(self) -> None:
        self._patted.set()

    def stop(self) -> None:
        self._is_over.set()
        self._patted.set()

    def _watch(self) -> None:
        while self._patted.wait(self.patience_s):
            if self._is_over.is_set():
                return
            self._patted.clear()
            self._is_over.wait(0.1)  # pats come faster than anybody has to look
        print(f"error: {self.message}", file=sys.stderr, flush=True)
        self.clean()
        os._exit(1)
