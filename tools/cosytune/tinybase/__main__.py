"""The tiny base from nothing: its corpus, its parts, its judges.

python -m cosytune.tinybase make [--dir DIR] [--device cpu|cuda] [--only PART] [--scale F]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path

import torch

from cosytune.errors import run_main
from cosytune.layout import ROOT

PARTS = ("corpus", "tokenizer", "speaker_encoder", "verifier", "recogniser", "vocoder", "llm", "flow", "graphs")
"""Of `make.PARTS`, whose module takes seconds to import."""


def main() -> None:
    arguments = _parser().parse_args()
    if arguments.command == "make":
        _make(arguments)
    elif arguments.command == "pack":
        _pack(arguments.dir)
    else:
        _score(arguments)


def _make(arguments: argparse.Namespace) -> None:
    from cosytune.tinybase import make  # upstream's classes, seconds

    what = make.Making(arguments.dir, arguments.device, arguments.scale)
    if arguments.only:
        make.make_part(what, arguments.only)
    else:
        make.make_all(what)


def _pack(directory: Path) -> None:
    from cosytune.tinybase import pack

    sizes = pack.ship(directory)
    for name, size in sizes.items():
        print(f"{name}: {size / 1e6:.2f} MB")
    print(f"together {sum(sizes.values()) / 1e6:.2f} MB")
    print("delete pretrained_models/CosyVoice2-0.5B-tiny; ./run.sh --stage -1 --stop_stage -1 makes it of these")


def _score(arguments: argparse.Namespace) -> None:
    from cosytune import base, schema
    from cosytune.tinybase import score
    from cosytune.tinybase.corpus import Corpus

    corpus = Corpus.open(arguments.dir / "corpus")
    model_dir = base.locate(schema.Config(base="tiny"))
    with contextlib.redirect_stdout(sys.stderr):  # the judges say what they run on; stdout is JSON alone
        found = score.score(model_dir, corpus, score.voices(arguments.dir, corpus))
    print(json.dumps(found, ensure_ascii=False, indent=2))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cosytune.tinybase", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="make what is not there yet")
    making.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    making.add_argument("--only", choices=PARTS, help="one part; what it needs has to be there")
    making.add_argument("--scale", type=float, default=1.0, help="of all steps; 0.01 tries the machinery")
    packing = commands.add_parser("pack", help="write the files that are shipped, from all parts")
    scoring = commands.add_parser("score", help="let pretrained_models/ speak, and let the judges hear it")
    for command in (making, packing, scoring):
        command.add_argument("--dir", type=Path, default=ROOT / "tinybase", help="where everything is made")
    return parser


if __name__ == "__main__":
    run_main(main)
