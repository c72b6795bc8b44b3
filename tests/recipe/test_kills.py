"""kill -9 for each stage at work, in the demo: the same command goes on and ends with the same bytes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import kills
from cosytune.layout import ROOT, Layout
from cosytune.record import Record, path_of
from cosytune.stages import STAGES, Stage
from cosytune.training import checkpoint
from recipe.conftest import Run, run_recipe

PATIENCE_S = 240


@dataclass(frozen=True)
class Case:
    """A stage, what it writes beside its recorded outputs, and the sign that it is in the middle of its work."""

    name: str
    more: tuple[str, ...]
    is_at_work: Callable[[Layout], bool]
    last: int | None = None
    """The rerun goes on to this stage, where what a killed run left matters to it."""

    @property
    def stage(self) -> Stage:
        return next(stage for stage in STAGES if stage.name == self.name)


def _has(pattern: str) -> Callable[[Layout], bool]:
    return lambda layout: any(layout.recipe.glob(pattern))


def _has_lines(name: str, count: int) -> Callable[[Layout], bool]:
    def holds(layout: Layout) -> bool:
        path = layout.features / name
        return path.is_file() and path.read_bytes().count(b"\n") > count

    return holds


CASES = (
    Case("prepare", ("data/all/text",), _has("data/.prepare-*/*.wav")),
    Case("embed", ("data/features/embeddings.txt",), _has_lines("embeddings.txt", 3), last=2),
    Case("tokenize", ("data/features/tokens.txt",), _has_lines("tokens.txt", 3)),
    Case("pack", (), _has("parquet/train/parquet_*.tar")),
    Case("train", ("exp/default/llm",), _has("exp/default/llm/checkpoint-*")),
    Case("select", (), lambda layout: True),
    Case("export", ("voice",), _has(".voice.new/*")),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_stage_that_was_killed_is_done_by_the_same_command(case: Case, demo: Run, tmp_path: Path) -> None:
    recipe = shutil.copytree(demo.layout.recipe, tmp_path / demo.layout.recipe.name)
    layout, stage = Layout(recipe), case.stage
    whole = kills.contents(demo.layout.recipe)
    _kill_at_work(case, layout)
    if case.name == "train":
        assert checkpoint.find(layout.module("llm")), "what was trained is not lost"
    rerun = run_recipe(recipe, "--stage", str(stage.number), "--stop_stage", str(case.last or stage.number))
    assert rerun.returncode == 0, rerun.stdout
    assert ("llm: goes on from update" in rerun.stdout) == (case.name == "train")
    assert kills.differences(kills.contents(recipe, demo.layout.recipe), whole) == []


def _kill_at_work(case: Case, layout: Layout) -> None:
    """Stage 5 takes a few milliseconds, so it may have ended before the signal comes."""
    stage = case.stage
    command = [ROOT / "run.sh", layout.recipe, "--stage", str(stage.number), "--stop_stage", str(stage.number)]
    outputs = (Record.read(layout, stage) or pytest.fail("the demo is finished")).outputs
    for attempt in range(10):
        _undo(case, layout, outputs)
        started = kills.start(command, layout.recipe.with_name(f"output {attempt}.txt"))
        try:
            deadline_s = time.monotonic() + PATIENCE_S
            while not (Record.has_begun(layout, stage) and case.is_at_work(layout)) and started.poll() is None:
                assert time.monotonic() < deadline_s
        finally:
            kills.kill(started)
        if Record.has_begun(layout, stage):
            return
    pytest.fail(f"{case.name}: it always ended before it could be killed")


def _undo(case: Case, layout: Layout, outputs: dict[str, object]) -> None:
    """As if the stage had never run."""
    for name in outputs:
        if "/flow/" not in name:  # the LLM, which comes first, is killed
            path_of(layout, name).unlink(missing_ok=True)
    for path in (layout.recipe / name for name in case.more):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    Record.path(layout, case.stage).unlink(missing_ok=True)
