"""Files that are whole or not there: write beside, fsync, rename; and their sha256."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(destination: Path) -> Iterator[Path]:
    """A temporary path beside `destination`, with the same suffix; fsynced and renamed to it if the block succeeds.

    A killed or failed block leaves `destination` as it was.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=destination.parent, prefix=".", suffix=f".tmp{destination.suffix}")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes 0600: the result should be readable like any other file
        fsync(temporary)
        temporary.replace(destination)
        fsync(destination.parent)
    finally:
        temporary.unlink(missing_ok=True)


def fsync(path: Path) -> None:
    """Flush one file or directory to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
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
