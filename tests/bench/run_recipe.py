"""python tests/bench/run_recipe.py egs/demo [arguments of run.sh]: seconds of every stage, peak memory of all.

The recipe is copied to a temporary directory first, so that every stage has its work to do.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
MADE_BY_RUNS = ("data", "parquet", "exp", "voice", "report")


def main() -> int:
    """Run, sample the process tree's resident memory five times a second, print a Markdown table."""
    recipe = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / recipe.name
        shutil.copytree(recipe, copy, ignore=shutil.ignore_patterns(*MADE_BY_RUNS))
        log = Path(directory) / "run.log"
        started_s = time.monotonic()
        with log.open("w") as output:
            run = subprocess.Popen([ROOT / "run.sh", copy, *sys.argv[2:]], stdout=output, stderr=subprocess.STDOUT)
            peak_bytes = sample_peak(run)
        wall_s = time.monotonic() - started_s
        text = log.read_text()
    if run.returncode != 0:
        print(text)
        return run.returncode
    print("| stage | s |\n|---|---|")
    for name, seconds in re.findall(r"^stage (-?\d+ \(\w+\)): done in ([\d.]+) s$", text, re.MULTILINE):
        print(f"| {name} | {seconds} |")
    print(
        f"| whole run, imports included | {wall_s:.1f} |\n\npeak memory of the process tree: {peak_bytes / 1e9:.2f} GB"
    )
    return 0


def sample_peak(run: subprocess.Popen[bytes]) -> int:
    """The largest sum of resident bytes over the process and its children until it ends."""
    peak_bytes = 0
    parent = psutil.Process(run.pid)
    while run.poll() is None:
        resident = 0
        for process in [parent, *parent.children(recursive=True)]:
            try:
                resident += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue  # it ended between the listing and the reading
        peak_bytes = max(peak_bytes, resident)
        time.sleep(0.2)
    return peak_bytes


if __name__ == "__main__":
    sys.exit(main())
