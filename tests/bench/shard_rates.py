"""python tests/bench/shard_rates.py [--clips N] [--hours H] [--shards N] [--model DIR]: rates for cost_table.py.

CPU seconds (all processes, imports included) of stage 0 on one recording of H hours and of stages 1 and 2 on N clips of
speech at the published sizes of both models (`full-random`), in one go and cut into shards by the launcher `pool`. What
a shard costs beside its work is the difference, by the number of shards. Both ways have to give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from compare_extraction import Bench, make_models
from compare_prepare import write_recording


@dataclass(frozen=True)
class Cost:
    cpu_s: float
    wall_s: float


def main() -> int:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=120)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    print(f"{psutil.cpu_count()} CPU cores; CPU seconds per hour of sound, imports included\n")
    print("| stage | hours | in one go, CPU s/h | in shards, CPU s/h | a shard by itself, CPU s | wall s |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name), arguments.hours, arguments.shards)
        model = (arguments.model or make_models(Path(name) / "model")).resolve()
        bench = Bench(Path(name), model, arguments.clips)
        hours = sum(one.duration_s for one in bench.utterances) / 3600
        for stage, step in (("embed", "embed"), ("tokenize", "tokenize")):
            row(bench.recipe, stage, hours, arguments.shards, ["data/features", "data/done", f"data/shards/{step}"])
    return 0


def prepare(place: Path, hours: float, shards: int) -> None:
    recipe = place / "stage0"
    (recipe / "audio").mkdir(parents=True)
    (recipe / "conf.yaml").write_text("base: random\nlanguage: en\ntranscribe: {model: none}\n")
    for number in range(shards):
        write_recording(recipe / "audio" / f"{number}.wav", hours / shards)
    row(recipe, "prepare", hours, shards, ["data"], steps=2)


def row(recipe: Path, stage: str, hours: float, shards: int, forget: list[str], steps: int = 1) -> None:
    costs, made = {}, {}
    for nj in (1, shards):
        for name in forget:
            shutil.rmtree(recipe / name, ignore_errors=True)
        costs[nj] = timed(recipe, stage, nj)
        made[nj] = digest(recipe)
    if made[1] != made[shards]:
        sys.exit(f"{stage}: other bytes in shards")
    one, cut = costs[1], costs[shards]
    own_s = (cut.cpu_s - one.cpu_s) / (shards * steps)
    print(
        f"| {stage} | {hours:.2f} | {one.cpu_s / hours:.1f} | {cut.cpu_s / hours:.1f} | {own_s:.1f} | "
        f"{one.wall_s:.1f}, {cut.wall_s:.1f} |"
    )


def timed(recipe: Path, stage: str, nj: int) -> Cost:
    """Stage 0 ends with status 1 here: no clip has a text."""
    command = [sys.executable, "-m", "cosytune.config", str(recipe), f"shards.nj={nj}"]
    frozen = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    before, started_s = used_s(), time.monotonic()
    done = subprocess.run([sys.executable, "-m", f"cosytune.stages.{stage}", frozen], capture_output=True, text=True)
    if done.returncode and "no clip is left" not in done.stderr:
        sys.exit(done.stderr)
    return Cost(used_s() - before, time.monotonic() - started_s)


def used_s() -> float:
    """CPU time of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def digest(recipe: Path) -> str:
    """Of everything that is a result: the data directory and the quarantine."""
    paths = sorted(path for name in ("all", "quarantine") for path in (recipe / "data" / name).rglob("*"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths if path.is_file())).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
