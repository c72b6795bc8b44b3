"""python tests/bench/data_time.py [--clips 298] [--recipe egs/demo] [--rounds 5]: seconds of data work per epoch.

Upstream's own data pipeline (read parquet, decode, resample, mel, tokenize, sort, batch, pad) in one process, once
over the clips, beside CosyTune's: plan, draws, batches from mapped features, for the LLM and the flow; interleaved,
the median of the rounds. Then how many clips upstream serves for each unique one at 0 to 8 workers, and CosyTune.

The clips are noise of 2 to 8 s (yardsticks/corpus.py), which costs what speech costs; `--recipe DIR` takes those that
stage 3 packed there. Imports and the first reading are not counted.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from yardsticks import corpus as corpora
from yardsticks import ours, theirs
from yardsticks.corpus import Corpus

from cosytune import families
from cosytune.base import text
from cosytune.features import cache
from cosytune.schema import FlowTrainConfig, LlmTrainConfig, ModuleTrainConfig
from cosytune.training import loader, plan
from cosytune.training.draws import Epoch

FAMILY = families.get("cosyvoice2-0.5b")
GOALS = {"llm": 100, "flow": 40}
WORKERS = (0, 1, 2, 4, 8)
BUDGET = 2000


def main() -> int:
    """Measure, and print Markdown for RESULTS.md."""
    options = _options()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of upstream's and torchaudio's old calls, here and in workers
    with tempfile.TemporaryDirectory() as name:
        corpus = _corpus(options, Path(name))
        print(f"`python {' '.join(['tests/bench/data_time.py', *sys.argv[1:]])}`: {len(corpus.features)} clips.\n")
        sides: dict[str, Callable[[int], int]] = {
            "upstream": lambda number: _upstream_epoch(corpus, workers=0),
            "llm": partial(_our_epoch, corpus, LlmTrainConfig(), 0),
            "flow": partial(_our_epoch, corpus, FlowTrainConfig(), 0),
        }
        for side in sides.values():
            side(0)
        rounds = [{label: _timed(side, number) for label, side in sides.items()} for number in range(options.rounds)]
        _print_times(rounds)
        _print_served(corpus)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=298)
    parser.add_argument("--recipe", type=Path, help="a recipe's directory after stage 3, instead of noise")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def _corpus(options: argparse.Namespace, scratch: Path) -> Corpus:
    if options.recipe is None:
        return corpora.make(scratch / "corpus", FAMILY, corpora.spread(options.clips, 2.0, 8.0))
    text.write_tokenizer(scratch / "tokenizer")
    packed = options.recipe / "parquet" / "train"
    return Corpus(packed / "data.list", scratch / "tokenizer", cache.open(packed / "features.arrow"))


def _timed(side: Callable[[int], int], number: int) -> float:
    started_s = time.monotonic()
    side(number)
    return time.monotonic() - started_s


def _upstream_epoch(corpus: Corpus, workers: int) -> int:
    """Clips served."""
    loaded = theirs.loader(corpus, FAMILY, workers, max_frames=BUDGET)
    return sum(len(batch["utts"]) for batch in loaded)


def _our_epoch(corpus: Corpus, settings: ModuleTrainConfig, workers: int, number: int) -> int:
    """Plan, draws and micro-batches of one epoch; clips served."""
    task, features, epoch = ours.make_task(settings, FAMILY), corpus.features, Epoch(0, number)
    lengths = [task.length(length) for length in features.lengths]
    planned = plan.make(features.utts, lengths, settings, BUDGET, "train")
    updates = [planned.micro_batches(update) for update in planned.epoch(epoch, partial(task.coin, epoch))]
    with loader.load(task, features, updates, epoch, workers, pin_memory=False) as parts:
        return sum(
            len(batch.kind if hasattr(batch, "kind") else batch.mel) for part in parts for batch in part.micro_batches
        )


def _print_times(rounds: list[dict[str, float]]) -> None:
    medians = {label: statistics.median(one[label] for one in rounds) for label in rounds[0]}
    print("| data work, s per epoch | median (smallest to largest) | upstream / it | goal |\n|---|---|---|---|")
    for label, median in medians.items():
        values = [one[label] for one in rounds]
        goal = f">= {GOALS[label]}x" if label in GOALS else ""
        ratio = f"{medians['upstream'] / median:.1f}x"
        print(f"| {label} | {median:.4g} ({min(values):.4g} to {max(values):.4g}) | {ratio} | {goal} |")


def _print_served(corpus: Corpus) -> None:
    unique = len(corpus.features)
    print("\n| workers | upstream: served / unique | CosyTune | goal |\n|---|---|---|---|")
    for workers in WORKERS:
        served = _upstream_epoch(corpus, workers) / unique
        mine = _our_epoch(corpus, LlmTrainConfig(), workers, 0) / unique
        print(f"| {workers} | {served:.2f} | {mine:.2f} | 1.00 |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
