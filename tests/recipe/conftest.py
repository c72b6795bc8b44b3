"""One run of the demo, shared by every recipe test: a copy of egs/demo whose name has a space and Japanese letters."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from cosytune.layout import ROOT, Layout


@dataclass(frozen=True)
class Run:
    """A recipe that went through its stages, and what the run printed."""

    layout: Layout
    output: str


def run_recipe(recipe: Path, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """`./run.sh RECIPE ARGUMENTS` as a user calls it; stderr goes with stdout."""
    command: Sequence[str | Path] = [ROOT / "run.sh", recipe, *arguments]
    return subprocess.run(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL
    )


def copy_recipe(name: str, destination: Path) -> Path:
    """`egs/<name>` without what runs have made in it."""
    shutil.copytree(
        ROOT / "egs" / name, destination, ignore=shutil.ignore_patterns("data", "parquet", "exp", "voice", "report")
    )
    return destination


@pytest.fixture(scope="session")
def demo(shared_tmp: Path) -> Run:
    """The demo from stage -1 to 7."""
    recipe = shared_tmp / "recipes" / "デモ 'voice'"
    with FileLock(shared_tmp / "demo.lock"):
        log = shared_tmp / "demo.log"
        if not log.exists():
            copy_recipe("demo", recipe)
            run = run_recipe(recipe)
            assert run.returncode == 0, run.stdout
            log.write_text(run.stdout)
    return Run(Layout(recipe), log.read_text())
