"""Mistakes of a user -> one line each on stderr and an exit status; our own mistakes keep their traceback."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence

_DISK_REMEDIES = {
    errno.ENOSPC: "no disk space left; free some, or move the recipe to a larger disk, and run the same command again",
    errno.EDQUOT: "disk quota used up; free some space and run the same command again",
    errno.EROFS: "the file system is read-only; use a writable directory",
    errno.EACCES: "permission denied; make it writable (chmod u+w) or use another directory",
    errno.EPERM: "operation not permitted; make it writable or use another directory",
}


class UserError(Exception):
    """Something that the user can mend. Every message names the place, the value and the remedy.

    `exit_status` is 2 for mistakes on the command line or in a config, 1 for everything else.
    """

    def __init__(self, *messages: str, exit_status: int = 1) -> None:
        super().__init__("\n".join(messages))
        self.messages: Sequence[str] = messages
        self.exit_status = exit_status


def run_main(main: Callable[[], int | None]) -> None:
    """Run `main` and leave the process with its status; a UserError or a full disk becomes a line on stderr."""
    signal.signal(signal.SIGTERM, _leave)
    try:
        status = main() or 0
        sys.stdout.flush()
    except UserError as mistake:
        for message in mistake.messages:
            print(f"error: {message}", file=sys.stderr)
        status = mistake.exit_status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # the reader of our output went away (`... | head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the flush at exit fails, with status 120
        status = 141
    except OSError as failure:
        remedy = _DISK_REMEDIES.get(failure.errno or 0)
        if remedy is None:
            raise
        print(f"error: {failure.filename or 'output'}: {remedy}", file=sys.stderr)
        status = 1
    sys.exit(status)


def _leave(number: int, _frame: object) -> None:
    """SIGTERM as an exception, so that temporary files go and `finally` runs; the status is the shell's for it."""
    print("stopped", file=sys.stderr)
    sys.exit(128 + number)
