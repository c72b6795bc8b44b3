"""One shard, alone: what every launcher calls, and anybody may.

    python -m cosytune.shards egs/mine/exp/default/config.yaml embed 3

reads   the frozen config, data/shards/<step>/plan.parquet, which the stage wrote, and the files that the items name
writes  data/shards/<step>/3-of-<nj>.parquet, unless it is there and right. Exit status 0: it is; 2: there is no such
        step, plan or shard; 1: anything else, with a line that says what
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Literal

import filelock

from cosytune import config as configs
from cosytune import files
from cosytune.errors import UserError, run_main
from cosytune.layout import Layout
from cosytune.schema import Config
from cosytune.shards import plan as plans
from cosytune.shards import pool, results, steps
from cosytune.shards.plan import Plan
from cosytune.shards.step import Shard, Step
from cosytune.training import signals


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m cosytune.shards", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, help="exp/<name>/config.yaml, as run.sh froze it")
    parser.add_argument("step", help=", ".join(steps.NAMES))
    parser.add_argument("shard", type=int, help="its number, from 1")
    parser.add_argument("--threads", type=int, help="processor cores; default: as audio.nj or features.threads says")
    parser.add_argument(pool.DIE_WITH_PARENT, action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.die_with_parent:
        signals.die_with_parent(os.getppid())  # else the next run would have to wait for this shard
    config, layout = configs.load(arguments.config)
    step = steps.get(arguments.step)
    run(step, config, layout, arguments.shard, arguments.threads)
    return 0


def run(step: Step, config: Config, layout: Layout, number: int, threads: int | None = None) -> None:
    """Do the shard, if nobody has; while somebody else is at it, wait."""
    directory = layout.shards / step.name
    plan = plans.read(directory)
    if not 1 <= number <= plan.nj:
        raise UserError(f"{directory}: shard {number}: there are 1 to {plan.nj}", exit_status=2)
    if plan.step != step.name or plan.maker != plans.maker_of(step, config):
        raise UserError(
            f"{directory}: planned with other settings, models or code than this machine has; bring them together, "
            "and run the stage again"
        )
    place, beside = plan.file(directory, number), plan.files(directory, number)
    title = f"{step.name}: shard {number} of {plan.nj}"
    with filelock.FileLock(place.with_suffix(".lock")):
        if results.read(place, step, plan.fingerprint(number), beside) is not None:
            print(f"{title}: there already")
            return
        items = plans.items(directory, plan, number)
        _work(Shard(config, layout, items, beside, _count(step, config, threads)), step, plan, number)


def _work(shard: Shard, step: Step, plan: Plan, number: int) -> None:
    started_s = time.monotonic()
    directory = shard.layout.shards / step.name
    place = plan.file(directory, number)
    place.unlink(missing_ok=True)  # of former files: what is written beside it from here on is not theirs
    rows = list(step.work(shard))
    if shard.directory.exists():
        files.flush(shard.directory)  # the sound files are whole before the rows that name them are
    table = results.write(place, step, rows, plan.fingerprint(number))
    said = f"{len(shard.items)} items, {table.num_rows} rows"
    print(f"{step.name}: shard {number} of {plan.nj}: {said} in {time.monotonic() - started_s:.1f} s")


def _count(step: Step, config: Config, threads: int | None) -> int:
    count: int | Literal["auto"] = threads or step.cores(config)
    return len(os.sched_getaffinity(0)) if count == "auto" else count


if __name__ == "__main__":
    run_main(main)
