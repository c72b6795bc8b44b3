"""Items -> the rows of all shards, in order: plan, run by the launcher what is not there yet, gather."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from cosytune.errors import UserError
from cosytune.layout import ROOT, Layout
from cosytune.progress import track
from cosytune.schema import Config
from cosytune.shards import cutting, results
from cosytune.shards import plan as plans
from cosytune.shards.job import Ended, Job
from cosytune.shards.plan import Plan
from cosytune.shards.step import Item, Step

_SHOWN = 10
_LAST_WORDS = 2000  # bytes of a log


@dataclass(frozen=True)
class Gathered:
    """One shard's rows, and the directory of its sound files."""

    table: pa.Table
    files: Path


def run(step: Step, config: Config, layout: Layout, items: Sequence[Item]) -> list[Gathered]:
    """The rows of every shard, in the order of the items; raises a UserError that names each shard that failed."""
    if not items:
        return []
    directory = layout.shards / step.name
    directory.mkdir(parents=True, exist_ok=True)
    plan = plans.make(step, config, items, cutting.count(config.shards, [item.seconds for item in items]), directory)
    _sweep(directory, plan)
    tables = {number: _read(step, plan, directory, number) for number in range(1, plan.nj + 1)}
    missing = [number for number, table in tables.items() if table is None]
    said = f"{plan.nj - len(missing)} there + {len(missing)} to run ({config.shards.launcher})"
    print(f"{step.name}: {len(items)} items in {plan.nj} shards = {said}")
    reasons = _run(step, config, layout, plan, missing) if missing else {}
    for number in missing:
        tables[number] = _read(step, plan, directory, number)
    if failed := [number for number, table in tables.items() if table is None]:
        raise UserError(*_explain(step, layout, plan, failed, reasons))
    return [Gathered(table, plan.files(directory, number)) for number, table in tables.items()]


def _run(step: Step, config: Config, layout: Layout, plan: Plan, missing: Sequence[int]) -> dict[int, str]:
    """-> number -> why the launcher thinks that it failed."""
    logs = layout.shards / step.name / "logs"
    logs.mkdir(exist_ok=True)
    jobs = [Job(number, command(layout, step.name, number), logs / f"{number}.log") for number in missing]
    ended = track(_launcher(step, config)(jobs), f"{step.name}, in shards", total=len(jobs), unit="shard")
    return {one.number: one.failure for one in ended if one.failure is not None}


def command(layout: Layout, step: str, number: int) -> list[str]:
    """What runs one shard alone."""
    return [sys.executable, "-m", "cosytune.shards", str(layout.config), step, str(number)]


def _launcher(step: Step, config: Config) -> Callable[[Sequence[Job]], Iterator[Ended]]:
    """Optional libraries are loaded for who asks for them."""
    settings = config.shards
    gpus = settings.gpus if step.on_gpu else 0
    if settings.launcher == "slurm":
        from cosytune.shards import slurm

        return lambda jobs: slurm.run(jobs, settings, step.name, gpus)
    if settings.launcher == "ray":
        from cosytune.shards import ray

        return lambda jobs: ray.run(jobs, settings, gpus)
    from cosytune.shards import pool

    # Several processes on one card would each load the model, and share its memory by chance.
    return lambda jobs: pool.run(jobs, step.cores(config), alone=step.on_gpu and _has_card(config))


def _has_card(config: Config) -> bool:
    import torch

    return config.features.provider != "cpu" and torch.cuda.is_available()


def _read(step: Step, plan: Plan, directory: Path, number: int) -> pa.Table | None:
    place = plan.file(directory, number)
    return results.read(place, step, plan.fingerprint(number), plan.files(directory, number))


def _sweep(directory: Path, plan: Plan) -> None:
    """What another plan left: shards of another nj, sound files of another fingerprint."""
    known = {plan.file(directory, number).name for number in range(1, plan.nj + 1)}
    for path in directory.glob("*-of-*.parquet"):
        if path.name not in known:
            path.unlink()
    wanted = {plan.files(directory, number).name for number in range(1, plan.nj + 1)}
    for path in (directory / "files").glob("*"):
        if path.name not in wanted:
            shutil.rmtree(path)


def _explain(step: Step, layout: Layout, plan: Plan, failed: Sequence[int], reasons: dict[int, str]) -> Iterator[str]:
    for number in failed[:_SHOWN]:
        log = layout.shards / step.name / "logs" / f"{number}.log"
        why = reasons.get(number, "left no result")
        alone = shlex.join(command(layout, step.name, number)[1:])
        yield (
            f"{log}: shard {number} of {plan.nj} of '{step.name}' {why}{_last_words(log)}; run it alone with "
            f"PYTHONPATH={ROOT / 'tools'} python {alone}, or the same run.sh again, which runs just what is missing"
        )
    if len(failed) > _SHOWN:
        yield f"... and {len(failed) - _SHOWN} more shards of '{step.name}'"


def _last_words(log: Path) -> str:
    """Its errors, or its last line."""
    if not log.is_file():
        return ""
    lines = log.read_bytes()[-_LAST_WORDS:].decode(errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    errors = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
    return f" ({'; '.join(errors or said[-1:])})" if said else ""
