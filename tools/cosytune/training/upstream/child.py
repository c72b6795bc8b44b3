"""A command that trains -> a child process with its whole output in a file, read as it grows, and ended with all of it.

torchrun gives every worker a session of its own, so that a signal to one process group never reaches them all.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

_PATIENCE_S = 3.0
"""A stopped stage has 8 s in all."""
_PR_SET_PDEATHSIG = 1


class Child:
    """`lines` gives what was written since it was last asked; half a line waits for its rest."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], directory: Path, log: Path) -> None:
        with log.open("ab") as stream:
            self._reader = log.open("rb")
            self._reader.seek(0, os.SEEK_END)
            self._rest = b""
            self._process = subprocess.Popen(
                command,
                env=dict(environment),
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    def lines(self) -> list[str]:
        *whole, self._rest = (self._rest + self._reader.read()).split(b"\n")
        return [line.decode("utf-8", errors="replace") for line in whole]

    def status(self) -> int | None:
        """The exit status, None while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """End it and all that it started, by SIGTERM, and what is left after some seconds by SIGKILL."""
        started = self._family()
        self._process.terminate()  # torchrun ends its workers
        _, left = psutil.wait_procs(started, timeout=_PATIENCE_S)
        for process in {*left, *self._family()}:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self._process.wait()

    def close(self) -> None:
        """Leave nothing running, whatever happened."""
        if self.status() is None:
            self.stop()
        self._reader.close()

    def _family(self) -> list[psutil.Process]:
        try:
            itself = psutil.Process(self._process.pid)
            return [*itself.children(recursive=True), itself]
        except psutil.NoSuchProcess:
            return []


def _end_with_parent() -> None:
    """A stage that is killed outright tells nobody: the kernel then ends torchrun, or two runs would share files."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
