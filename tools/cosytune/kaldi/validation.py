"""A data directory -> every problem in it, as one line each."""

from __future__ import annotations

from pathlib import Path

from cosytune.kaldi import form, headers, optional
from cosytune.kaldi.checks import read_and_check
from cosytune.kaldi.model import ORIGINALS


def validate(directory: Path, *, deep: bool = False) -> list[str]:
    """Every problem of `directory` as one line `file:line: what; remedy`; empty when all is well.

    `deep`: also what stages can live with and other programs cannot, files that only Kaldi reads, and the audio.
    """
    tables, problems = read_and_check(directory)
    if deep and tables:
        for name in (*tables, *optional.NAMES):
            if name != ORIGINALS and (directory / name).is_file():  # that one is as somebody typed it
                problems += form.check_bytes(directory / name)
        problems += form.check_tables(directory, tables)
        problems += optional.check(directory, tables)
        problems += headers.check(directory, tables)
    return problems
