"""Two processes over gloo train as one does: the same losses, whoever has how many micro-batches; and stop together."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

import rank_runs
from cosytune.training import checkpoint
from rank_runs import Start, finish


@pytest.fixture
def start(random_model: Path, training_features: Path, tmp_path: Path) -> Start:
    return rank_runs.starter(random_model, training_features, tmp_path)


@pytest.mark.parametrize("name", ["llm", "flow"])
def test_two_ranks_follow_the_losses_of_one(name: str, start: Start, tmp_path: Path) -> None:
    settings = {"tokens_per_update": 200, "max_tokens_per_batch": 110} if name == "llm" else {}
    runs = [finish(start(name, f"of{ranks}", ranks, **settings), tmp_path / f"of{ranks}") for ranks in (1, 2)]
    for run in runs:
        assert run.status == 0, run.output
    one, two = runs
    assert len(one.losses("train")) >= 4
    assert two.losses("train") == pytest.approx(one.losses("train"), rel=1e-4)
    assert two.losses("cv") == pytest.approx(one.losses("cv"), rel=1e-4)
    assert one.losses("cv")[-1] < one.losses("cv")[0]
    assert two.output.count("best: update") == 1, "one of them speaks"
    assert [item.update for item in checkpoint.find(two.directory)] == [
        item.update for item in checkpoint.find(one.directory)
    ]


def test_ranks_stop_together_and_go_on_as_if_nothing_had_happened(start: Start, tmp_path: Path) -> None:
    """SIGTERM to torchrun, as from a scheduler: it passes it on to the ranks."""
    settings = {"num_train_epochs": 60, "early_stopping_patience": 60, "save_total_limit": 100}
    through = finish(start("llm", "through", 2, dropout=True, **settings), tmp_path / "through")
    assert through.status == 0, through.output
    process = start("llm", "stopped", 2, dropout=True, **settings)
    history, deadline = tmp_path / "stopped" / "history.jsonl", time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if history.is_file() and '"update": 9,' in history.read_text():
            process.send_signal(signal.SIGTERM)
            break
        time.sleep(0.02)
    stopped = finish(process, tmp_path / "stopped")
    assert stopped.status != 0
    newest = checkpoint.find(stopped.directory)[-1].update
    assert 9 <= newest < len(through.losses("train")), stopped.output
    again = finish(start("llm", "stopped", 2, dropout=True, **settings), tmp_path / "stopped")
    assert again.status == 0, again.output
    assert f"goes on from update {newest}" in again.output
    for file in ("history.jsonl", "plan.json"):
        assert (again.directory / file).read_bytes() == (through.directory / file).read_bytes()
    best = checkpoint.find(through.directory)[-1].path.name
    for file in ("adapter_model.safetensors", "state.pt"):
        assert (again.directory / best / file).read_bytes() == (through.directory / best / file).read_bytes()


_LATE = """
import os, time
from datetime import timedelta
import one_rank
from cosytune.errors import run_main
from cosytune.training import distributed, journal

is_first = os.environ["RANK"] == "0"
distributed._STEP_TIMEOUT = timedelta(seconds=4)
opened = journal.open

def slowly(*arguments):
    if is_first:
        time.sleep(6)
    return opened(*arguments)

journal.open = slowly
if not is_first:
    time.sleep(6)
run_main(one_rank.main)
"""


def test_ranks_wait_for_one_that_has_work_of_its_own(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One reads the base's weights from a slower disk; the first one has trackers that answer slowly."""
    late = tmp_path / "late.py"
    late.write_text(_LATE)
    monkeypatch.setattr(rank_runs, "ONE_RANK", late)
    run = finish(start("llm", "late", 2, num_train_epochs=1), tmp_path / "late")
    assert run.status == 0, run.output
