"""Any checkout of upstream -> what it is, patched, or back as it was.

    python -m cosytune.upstream fetch                          # brings the tree that the stages use, as stage -1 does
    python -m cosytune.upstream status                         # what it is
    python -m cosytune.upstream apply --dir ~/CosyVoice        # a checkout of your own
    python -m cosytune.upstream revert --dir ~/CosyVoice

Exit status 0 only where all is well: status of a pristine or a patched checkout, or apply and revert that did it
(or had nothing to do). A half-applied or hand-edited checkout or another version: 1, the files are named, nothing is
changed. `record` is for the maintainers of the patches: it writes series.sha256 anew from a pristine checkout.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cosytune import files
from cosytune.errors import UserError, run_main
from cosytune.layout import UPSTREAM
from cosytune.schema import UpstreamConfig
from cosytune.upstream import patch, tree
from cosytune.upstream.manifest import PINNED, Pin
from cosytune.upstream.status import State, Status, inspect


def main(arguments: list[str] | None = None, pin: Pin = PINNED) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m cosytune.upstream", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("fetch", "status", "apply", "revert", "record"))
    parser.add_argument("--dir", type=Path, default=UPSTREAM / pin.name, help="the top of the checkout")
    options = parser.parse_args(arguments)
    if options.command == "fetch":
        if options.dir.name != pin.name:
            raise UserError(f"{options.dir}: fetch makes a directory of the name {pin.name}", exit_status=2)
        print(f"{tree.ensure(UpstreamConfig(), directory=options.dir.parent, pin=pin)}: verified and patched")
        return 0
    if not options.dir.is_dir():
        raise UserError(f"{options.dir}: no such directory; give the top of a CosyVoice checkout", exit_status=2)
    if options.command == "record":
        files.write_text(pin.recorded, patch.record(options.dir, pin))
        print(f"{pin.recorded}: written")
        return 0
    status = inspect(options.dir, pin)
    if not status.fine:
        raise UserError(*status.lines)
    if options.command == "status":
        print("\n".join(status.lines))
    else:
        _switch(status, State.PATCHED if options.command == "apply" else State.PRISTINE, pin)
    return 0


def _switch(status: Status, wanted: State, pin: Pin) -> None:
    """Apply or take off the whole series."""
    if status.state is wanted:
        print(f"{status.checkout}: {wanted.value} already: nothing to do")
        return
    (patch.apply if wanted is State.PATCHED else patch.revert)(status.checkout, pin)
    print("\n".join(inspect(status.checkout, pin).lines))


if __name__ == "__main__":
    run_main(main)
