"""Mistakes of a user -> one line each on stderr and an exit status; our own mistakes keep their traceback."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

_DISK_REMEDIES = {
    errno.ENOSPC: "no disk space left; free some, or move the recipe to a larger disk, and run the same command again",
    errno.EDQUOT: "disk quota used up; free some space and run the same command again",
    errno.EROFS: "the file system is read-only; use a writable directory",
    errno.EFBIG: (
        "a file is larger than the limit of this shell or disk; raise it (ulimit -f unlimited) and run the same "
        "command again"
    ),
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
    """Run `main` and leave the process with its status; a UserError or a disk that refuses becomes a line."""
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:  # training answers it in its own way
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
        line = explain(failure)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        status = 1
    sys.exit(status)


def explain(failure: OSError) -> str | None:
    """The place and the remedy, in a line; None for what is no matter of disks and rights."""
    name = failure.filename if isinstance(failure.filename, str | bytes) else _open_file(failure)
    place = _nearest(Path(os.fsdecode(name))) if name else None
    if failure.errno == errno.EACCES and place:
        return _denied(place)
    remedy = _DISK_REMEDIES.get(failure.errno or 0)
    return remedy and f"{place or 'output'}: {remedy}"


def _open_file(failure: OSError) -> str | None:
    """The name that write() does not tell: of the file that is open in the innermost function that has one."""
    for frame, _ in reversed(list(traceback.walk_tb(failure.__traceback__))):
        for value in frame.f_locals.values():
            name = getattr(value, "name", None) if isinstance(value, io.IOBase) else None
            if isinstance(name, str) and not name.startswith("<"):  # <stdout>
                return name
    return None


def _nearest(path: Path) -> Path:
    """`path`, or the directory that it would be in: a temporary file is gone when the user reads its name."""
    return next((one for one in (path, *path.parents) if os.access(one, os.F_OK)), path)


def _denied(place: Path) -> str:
    """Which right is missing, and of what: files are made and removed by the right to write in their directory."""
    is_directory = place.is_dir()
    if not os.access(place, os.R_OK | os.X_OK if is_directory else os.R_OK):
        return f"{place}: permission denied; make it readable (chmod u+r{'x' if is_directory else ''})"
    closed = next((one for one in (place, place.parent) if not os.access(one, os.W_OK)), place)
    return f"{closed}: permission denied; make it writable (chmod u+w) or use another directory"


def _leave(number: int, _frame: object) -> None:
    """SIGTERM as an exception, so that temporary files go and `finally` runs; the status is the shell's for it."""
    print("stopped", file=sys.stderr)
    sys.exit(128 + number)
