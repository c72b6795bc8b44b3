"""A voice directory -> the next one, in its place: whole or not at all, the user's own files kept."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cosytune.errors import UserError
from cosytune.voice import bundle


@contextmanager
def replacing(destination: Path) -> Iterator[Path]:
    """An empty directory beside `destination` that takes its place if the block succeeds.

    A killed or failed block leaves the former bundle as it was; a run that was killed between the two renames is
    mended by the next one. Raises UserError when something else than a bundle stands there.
    """
    made, former = (destination.with_name(f".{destination.name}.{what}") for what in ("new", "former"))
    if former.exists() and not destination.exists():
        former.rename(destination)
    _discard(former, destination)
    if destination.exists() and not (destination / bundle.MANIFEST).is_file() and any(destination.iterdir()):
        raise UserError(f"{destination}: there, but not a voice bundle; move it away and run the same command again")
    shutil.rmtree(made, ignore_errors=True)  # of a run that was killed: never a finished bundle
    made.mkdir(parents=True)
    try:
        yield made
        if destination.exists():
            destination.rename(former)
        made.rename(destination)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    _discard(former, destination)


def _discard(former: Path, destination: Path) -> None:
    """Delete the former bundle, unless files in it are the user's: then it becomes `voice.former-N`."""
    if not former.exists():
        return
    if not (former / bundle.MANIFEST).is_file() or bundle.check(former).ok:
        shutil.rmtree(former)
        return
    number = 1
    while (kept := destination.with_name(f"{destination.name}.former-{number}")).exists():
        number += 1
    former.rename(kept)
    print(f"{kept}: the former voice, kept because files in it were changed or added by hand")
