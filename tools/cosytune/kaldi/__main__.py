"""Command line: a data directory -> `all is well`, or every problem and exit status 1."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from cosytune import kaldi
from cosytune.errors import UserError, run_main
from cosytune.kaldi.repair import repair


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=kaldi.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--repair", action="store_true", help="mend what needs no guess, after a backup; then check")
    given = parser.parse_args(arguments)
    directory: Path = given.directory
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory")
    if given.repair:
        print("\n".join(repair(directory)))
    if problems := kaldi.validate(directory, deep=True):
        raise UserError(*problems)
    data = kaldi.read(directory)
    total_s = sum(one.duration_s for one in data.utterances)
    print(
        f"{directory}: {len(data.utterances)} utterances, {len(data.speakers)} speakers, {total_s:.1f} s; all is well"
    )
    return 0


if __name__ == "__main__":
    run_main(main)
