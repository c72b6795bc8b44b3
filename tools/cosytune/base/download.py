"""The published files that a model directory lacks -> fetched beside it, compared, and only then moved in.

    ./run.sh egs/lj --stage -1 --stop_stage -1 download.source=modelscope

What is there is neither fetched nor touched. What was fetched in part stays in `.<model>.download` beside the model
directory, where nothing reads it but the next attempt, which goes on from there.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cosytune import errors, files
from cosytune.base import hubs, verify
from cosytune.errors import UserError
from cosytune.families import Family, Published
from cosytune.schema import DownloadConfig

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def fetch(family: Family, settings: DownloadConfig, model_dir: Path) -> None:
    """Bring every published file that is not in `model_dir`; all of them move in together, each whole and right.

    Raises UserError when one cannot be had: the directory is then as it was.
    """
    if not _missing(family, model_dir):
        return
    place = model_dir.resolve()  # may be a link to another disk, where the files are to be renamed
    _refuse_others(family, place)
    if settings.source != "path" and (setting := hubs.is_offline(settings)):
        raise UserError(
            *(f"{model_dir / name}: missing" for name in _missing(family, place)),
            f"{setting}: nothing is downloaded; copy these files there, or name a directory that has them: "
            "download.source=path download.path=DIR",
        )
    with _alone(place) as workshop:
        if not (missing := _missing(family, place)):  # another process was faster
            return
        source = hubs.source(family, settings, missing)
        known = verify.known(place, family)
        expected = {name: Published(file.size, known.get(name)) for name, file in family.published.items()}
        wanted = [name for name in missing if not _is_right(workshop / name, expected[name])]
        size = sum(expected[name].size for name in wanted)
        _need_space(workshop, size - _begun(workshop))
        print(f"{family.title}: {len(wanted)} files, {size / 1e6:,.0f} MB, from {source.where}", flush=True)
        for name in wanted:
            _bring(source, name, workshop, expected[name].size)
            _compare(source, name, workshop / name, expected[name])
        _move_in(missing, workshop, place)
        shutil.rmtree(workshop)


def _missing(family: Family, model_dir: Path) -> list[str]:
    return [name for name in family.published if not (model_dir / name).is_file()]


def _refuse_others(family: Family, place: Path) -> None:
    """A file of another size would be found when 4 GB are here. What is in the way is the user's and stays."""
    faults = []
    for name, file in family.published.items():
        path = place / name
        if path.is_file():
            if path.stat().st_size != file.size:
                faults.append(f"{path}: {path.stat().st_size} bytes, the published file has {file.size}; move it away")
        elif os.path.lexists(path):
            faults.append(f"{path}: in the way, and no file; move it away")
    if faults:
        raise UserError(*faults)


@contextmanager
def _alone(place: Path) -> Iterator[Path]:
    """The directory for what is not finished, held by this process; two recipes share a model and may start at once."""
    workshop = place.parent / f".{place.name}.download"
    workshop.mkdir(parents=True, exist_ok=True)
    lock = FileLock(workshop.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{place.name}: another process downloads it; waiting for it", flush=True)
        lock.acquire()
    try:
        workshop.mkdir(exist_ok=True)  # the other one has removed it
        yield workshop
    finally:
        lock.release()


def _need_space(workshop: Path, size: float) -> None:
    free = shutil.disk_usage(workshop).free
    if free < size:
        raise UserError(
            f"{workshop.parent}: {free / 1e6:,.0f} MB free, the download needs {size / 1e6:,.0f} MB; free some disk "
            "space, or make the model's directory a link to a larger disk"
        )


def _bring(source: hubs.Source, name: str, workshop: Path, size: int) -> None:
    """Fetch one file; a connection that breaks is taken up again as long as each attempt brings something."""
    while True:
        before = _begun(workshop)
        try:
            source.get(name, workshop)
            return
        except source.errors as failure:
            _raise_if_of_the_disk(failure, workshop)
            _drop_longer(workshop, size)
            if _begun(workshop) <= before:
                raise UserError(hubs.explain(failure, source, name)) from None
            print(f"{name}: the connection broke; going on after {_begun(workshop):,} bytes", flush=True)


def _begun(workshop: Path) -> int:
    """Bytes of the files that are not finished."""
    return sum(path.stat().st_size for path in _unfinished(workshop))


def _unfinished(workshop: Path) -> Iterator[Path]:
    yield from workshop.rglob("*.incomplete")  # both libraries name them so


def _drop_longer(workshop: Path, size: int) -> None:
    """No server can go on after the end of a file: kept, it would be refused for ever."""
    for path in _unfinished(workshop):
        if path.stat().st_size > size:
            path.unlink()


def _raise_if_of_the_disk(failure: Exception, workshop: Path) -> None:
    for error in hubs.chain(failure):
        if isinstance(error, OSError) and error.errno in _FULL:
            line = errors.explain(OSError(error.errno, os.strerror(error.errno), str(workshop)))
            raise UserError(f"{line}; it goes on from what has come") from None
        if isinstance(error, OSError) and error.errno and error.filename:  # rights; a connection has no file name
            raise error from None


def _is_right(path: Path, expected: Published) -> bool:
    """Whether an earlier attempt has fetched it whole."""
    return path.is_file() and path.stat().st_size == expected.size and files.sha256(path) == expected.sha256


def _compare(source: hubs.Source, name: str, path: Path, expected: Published) -> None:
    """Throw away what is not the published file: it is ours, and kept it would be taken for fetched."""
    size, digest = path.stat().st_size, files.sha256(path)
    if (size, digest) == (expected.size, expected.sha256 or digest):
        is_new = "" if expected.sha256 else " (not known before, recorded)"
        revision = f", revision {source.revision}" if source.revision else ""
        print(f"{name}: {size} bytes, sha256 {digest}{is_new}{revision}", flush=True)
        return
    path.unlink()
    if size != expected.size:
        fault = f"{size} bytes, the published file has {expected.size}"
    else:
        fault = f"not the published file (sha256 {digest[:12]}, expected {str(expected.sha256)[:12]})"
    raise UserError(
        f"{source.where}: {name}: {fault}; it was not used; run the same command again, or take {hubs.OTHERWISE}"
    )


def _move_in(names: list[str], workshop: Path, place: Path) -> None:
    for name in names:
        files.fsync(workshop / name)
    for name in names:
        target = place / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(target):
            raise UserError(f"{target}: in the way, it came during the download; move it away and run stage -1 again")
        (workshop / name).rename(target)
        files.fsync(target.parent)
