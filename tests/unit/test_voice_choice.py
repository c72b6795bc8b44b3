"""Which checkpoint is chosen, and what is said about it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from cosytune.errors import UserError
from cosytune.training.checkpoint import Checkpoint
from cosytune.voice import choice


def candidate(update: int, cv_loss: float) -> Checkpoint:
    path = Path("llm") / f"checkpoint-{update:06d}"
    return Checkpoint(path=path, update=update, epoch=update // 10, cv_loss=cv_loss, train_loss=1.0)


def test_the_lowest_cv_loss_wins_and_all_candidates_are_listed() -> None:
    entry = choice.choose([candidate(10, 3.0), candidate(20, 2.5), candidate(30, 2.9)], untuned=4.0)
    assert entry["chosen"] == "checkpoint-000020"
    assert [one["cv_loss"] for one in entry["candidates"]] == [3.0, 2.5, 2.9]
    assert entry["untuned_cv_loss"] == 4.0
    assert "2.5000, below the untuned base's 4.0000" in entry["why"]
    assert "not yet by what it says" in entry["why"]


def test_of_equal_losses_the_earlier_one_wins() -> None:
    assert choice.choose([candidate(30, 2.0), candidate(10, 2.0)], 4.0)["chosen"] == "checkpoint-000010"


def test_a_diverged_checkpoint_never_wins() -> None:
    entry = choice.choose([candidate(10, math.nan), candidate(20, 9.0)], 4.0)
    assert entry["chosen"] == "checkpoint-000020"
    assert json.loads(json.dumps(entry, allow_nan=False))["candidates"][0]["cv_loss"] is None
    with pytest.raises(UserError, match="learning_rate"):
        choice.choose([candidate(10, math.nan), candidate(20, math.inf)], 4.0)


def test_a_tuning_that_did_not_help_is_said_plainly() -> None:
    assert "NOT below" in choice.choose([candidate(10, 4.5)], untuned=4.0)["why"]


def test_the_untuned_loss_is_the_cv_loss_of_update_0(tmp_path: Path) -> None:
    lines = [
        {"update": 1, "epoch": 0, "kind": "train", "loss": 9.0},
        {"update": 0, "epoch": 0, "kind": "cv", "loss": 8.5},
        {"update": 5, "epoch": 1, "kind": "cv", "loss": 7.0},
    ]
    history = tmp_path / "history.jsonl"
    history.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    assert choice.untuned_loss(history) == 8.5
    history.write_text(json.dumps(lines[0]) + "\n")
    with pytest.raises(UserError, match="--stage 4"):
        choice.untuned_loss(history)


def test_incomplete_checkpoints_are_no_candidates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cosytune.stages.select import _candidates

    (tmp_path / "checkpoint-000010").mkdir()
    (tmp_path / "checkpoint-000010" / "adapter_model.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match=r"no complete checkpoint; run stage 4 \(train\) first"):
        _candidates(tmp_path)
    assert "incomplete" in capsys.readouterr().out
