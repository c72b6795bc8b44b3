"""A data directory -> every problem in it, as one line each."""

from __future__ import annotations

from pathlib import Path

from cosytune.kaldi.checks import read_and_check


def validate(directory: Path) -> list[str]:
    """Every problem of `directory` as one line `file:line: what; remedy`; empty when all is well."""
    return read_and_check(directory)[1]
