"""The tiny base from nothing: its corpus, its parts, its judges.

python -m cosytune.tinybase make [--dir DIR] [--device cpu|cuda] [--only PART] [--scale F]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from cosytune.errors import run_main
from cosytune.layout import ROOT


def main() -> None:
    from cosytune.tinybase import make  # upstream's classes, seconds

    parser = argparse.ArgumentParser(prog="python -m cosytune.tinybase", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="make what is not there yet")
    making.add_argument("--dir", type=Path, default=ROOT / "tinybase")
    making.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    making.add_argument("--only", choices=list(make.PARTS), help="one part; what it needs has to be there")
    making.add_argument("--scale", type=float, default=1.0, help="of all steps; 0.01 tries the machinery")
    arguments = parser.parse_args()
    what = make.Making(arguments.dir, arguments.device, arguments.scale)
    if arguments.only:
        make.make_part(what, arguments.only)
    else:
        make.make_all(what)


if __name__ == "__main__":
    run_main(main)
