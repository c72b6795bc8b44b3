"""Files that are whole or not there: write beside, fsync, rename; and their sha256."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_TEMPORARY = ".tmp-"
_swept: set[Path] = set()


@contextmanager
def atomic_path(destination: Path) -> Iterator[Path]:
    """A temporary path beside `destination`, with the same suffix; fsynced and renamed to it if the block succeeds.

    A killed or failed block leaves `destination` as it was. What a killed one leaves half written is removed by the
    next process that writes in that directory.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    _sweep(destination.parent)
    handle, temporary = _begin(destination)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes 0600: the result should be readable like any other file
        fsync(temporary)
        temporary.replace(destination)
        fsync(destination.parent)
    finally:
        os.close(handle)
        temporary.unlink(missing_ok=True)


def _begin(destination: Path) -> tuple[int, Path]:
    """An empty temporary file, and the handle whose lock says that somebody is writing it."""
    while True:
        handle, name = tempfile.mkstemp(dir=destination.parent, prefix=_TEMPORARY, suffix=destination.suffix)
        _lock(handle)
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)  # another process has swept it before it was locked


def _sweep(directory: Path) -> None:
    """Remove, once a process, what killed ones have left in `directory`; the system has freed their locks."""
    if directory in _swept:
        return
    _swept.add(directory)
    for path in directory.glob(f"{_TEMPORARY}*"):
        try:
            handle = os.open(path, os.O_RDONLY)
        except OSError:  # finished in this moment, or another user's
            continue
        try:
            if _lock(handle):
                path.unlink(missing_ok=True)
        finally:
            os.close(handle)


def _lock(handle: int) -> bool:
    """Whether nobody else holds it; never on a file system that knows no locks, where nothing is swept."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def fsync(path: Path) -> None:
    """Flush one file or directory to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as failure:
        failure.filename = str(path)
        raise
    finally:
        os.close(handle)


def flush(directory: Path) -> None:
    """All of the file system that `directory` lies on, at once: for thousands of files, far faster than fsync."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        failed = ctypes.CDLL(None, use_errno=True).syncfs(handle)
        number = ctypes.get_errno()
    finally:
        os.close(handle)
    if failed and number in (errno.ENOSYS, errno.EINVAL):
        os.sync()
    elif failed:
        raise OSError(number, os.strerror(number), str(directory))


def write_bytes(path: Path, data: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Readable JSON: two spaces, UTF-8 kept as it is, keys in the order given."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_torch(path: Path, value: Any) -> None:
    """`torch.save`, atomically and with the same bytes for the same value.

    An open file is passed because torch writes a path's own name into the archive.
    """
    import torch

    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        try:
            torch.save(value, stream)
        except RuntimeError as failure:  # torch hides a full disk behind an error about its own archive
            if not isinstance(failure.__context__, OSError):
                raise
            failure.__context__.filename = str(path)
            raise failure.__context__ from None


def read_torch(path: Path) -> Any:
    """`torch.load` on the CPU, tensors and plain containers only."""
    import torch

    return torch.load(path, map_location="cpu", weights_only=True)


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
