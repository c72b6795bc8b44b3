"""A process that was started to train -> why it ended, in a file; and of several of them, what the user is to read.

One mistake is seen by many: the rank that made it, those that lose it, those that are told to end. Who has started them
speaks once, with the words of the one that knows.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cosytune import files
from cosytune.errors import UserError, explain, run_main
from cosytune.training import signals

DIRECTORY = "COSYTUNE_REPORTS"
"""Where the processes of a launcher leave their reports; not set for those that were started by hand."""


class Aftermath(UserError):  # noqa: N818 - the error is another's
    """The failure of another process, as this one saw it: no news where that one has said what it was."""


@dataclass(frozen=True)
class Report:
    """`at_s`: by the clock of that machine, since the epoch. Without messages there was a traceback, or a signal."""

    status: int
    at_s: float
    host: str
    messages: Sequence[str] = ()
    is_aftermath: bool = False


def run(main: Callable[[], int | None]) -> None:
    """As errors.run_main; for a launcher that has asked for reports, it is the launcher that says what went wrong."""
    directory = os.environ.get(DIRECTORY)
    if not directory:
        run_main(main)
        return

    def leave(status: int, messages: Sequence[str], is_aftermath: bool = False) -> None:
        write(Path(directory), Report(status, time.time(), socket.gethostname(), messages, is_aftermath))

    answer(main, leave)


def answer(main: Callable[[], int | None], leave: Callable[[int, Sequence[str], bool], None]) -> None:
    """Run `main` and end with its status; `leave` gets that, what the user has to know, and whether it is an aftermath.

    A traceback is ours, and printed.
    """
    try:
        status = main() or 0
    except UserError as mistake:
        leave(mistake.exit_status, mistake.messages, isinstance(mistake, Aftermath))
        status = mistake.exit_status
    except signals.Stopped as stopped:
        leave(stopped.exit_status, [], False)
        status = stopped.exit_status
    except OSError as failure:
        line = explain(failure)
        leave(1, [line] if line else [], False)
        if line is None:
            raise
        status = 1
    except Exception:
        leave(1, [], False)
        raise
    except SystemExit as end:
        if end.code:
            leave(end.code if isinstance(end.code, int) else 1, [], False)
        raise
    sys.exit(status)


def write(directory: Path, report: Report) -> None:
    files.write_json(directory / f"{report.host}-{os.getpid()}.json", asdict(report))


def read(directory: Path) -> list[Report]:
    """The first one first."""
    found = [Report(**json.loads(path.read_text(encoding="utf-8"))) for path in directory.glob("*.json")]
    return sorted(found, key=lambda report: report.at_s)


def stopped(found: Sequence[Report]) -> signals.Stopped | None:
    """The signal by which a process was asked to stop, if one was."""
    by_status = {status: number for number, status in signals.EXIT_STATUS.items()}
    return next((signals.Stopped(by_status[one.status]) for one in found if one.status in by_status), None)


def failure(found: Sequence[Report]) -> UserError | None:
    """The first mistake of a process; an aftermath where there is nothing else."""
    words = [one for one in found if one.messages]
    first = next((one for one in words if not one.is_aftermath), words[0] if words else None)
    if first is None:
        return None
    return (Aftermath if first.is_aftermath else UserError)(*first.messages, exit_status=first.status)
