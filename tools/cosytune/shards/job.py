"""What a launcher gets, and what it says of it."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """One shard: the command that runs it, and where its output goes."""

    number: int
    command: Sequence[str]
    log: Path

    def on(self, threads: int, *flags: str) -> list[str]:
        """The command for so many cores."""
        return [*self.command, "--threads", str(threads), *flags]


@dataclass(frozen=True)
class Ended:
    """A shard whose process is no more; `failure`: in words that follow its name."""

    number: int
    failure: str | None


def run_here(command: Sequence[str], log: str) -> int:
    """On the machine that a launcher chose: -> exit status, of a signal as its negative number."""
    with Path(log).open("wb") as stream:
        return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT).returncode


def ended(number: int, status: int) -> Ended:
    if status < 0:
        return Ended(number, f"was killed by signal {-status}")
    return Ended(number, f"ended with status {status}" if status else None)
