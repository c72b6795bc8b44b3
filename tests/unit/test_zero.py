"""DeepSpeed's ZeRO 2 makes the updates that training without it makes, failed ones too; each rank holds its part."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import rank_runs
from cosytune.errors import UserError
from cosytune.layout import ROOT
from cosytune.schema import LoraConfig
from cosytune.training import checkpoint, trainer, zero
from cosytune.training.distributed import Ranks
from cosytune.training.hardware import Setup
from rank_runs import finish
from training_data import MakeJob, drop_nothing, history

Reports = list[dict[str, Any]]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Reports:
    """What two processes of tests/zero_rank.py have written."""
    directory = tmp_path_factory.mktemp("zero")
    run = finish(rank_runs.launch(2, ROOT / "tests" / "zero_rank.py", directory), directory)
    assert run.status == 0, run.output
    return [json.loads((directory / f"rank-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 1e-2), ("fp16", 1e-2)])
def test_updates_are_those_of_training_without_deepspeed(precision: str, tolerance: float, reports: Reports) -> None:
    for report in (report[precision] for report in reports):
        assert len(report["zero"]) == len(report["plain"]) == 16
        for mine, expected in zip(report["zero"], report["plain"], strict=True):
            assert comparable(mine) == pytest.approx(comparable(expected), rel=tolerance, nan_ok=True)
        assert [report["zero"].count(failure) for failure in ("OutOfMemory", "Interrupted")] == [1, 1]
        assert [values[4] for values in report["zero"] if isinstance(values, list)].count(False) == 1
    assert reports[0][precision]["zero"] == reports[1][precision]["zero"]


def comparable(result: Any) -> list[float]:
    """A norm that overflowed is infinite to one, and not a number to the other. Failures are numbers, too."""
    if isinstance(result, str):
        return [["OutOfMemory", "Interrupted"].index(result)]
    values = result if isinstance(result, list) else [result]
    return [float(value) if math.isfinite(value) else math.nan for value in values]


def test_the_scale_of_fp16_follows_overflows(reports: Reports) -> None:
    without, with_deepspeed = reports[0]["fp16"]["scales"]
    assert with_deepspeed == without < 65536
    assert [value[3] for value in reports[0]["fp16"]["zero"] if isinstance(value, list)].count(math.inf) >= 2


def test_each_rank_holds_half_of_the_optimizer(reports: Reports) -> None:
    for report in reports:
        assert report["trained"] <= report["held"] < 1.1 * report["trained"], "two moments of half the parameters"


def test_a_checkpoint_resumes_bit_for_bit_and_without_deepspeed_too(reports: Reports) -> None:
    for report in reports:
        through, resumed, without = report["tails"]
        assert resumed == through
        for mine, expected in zip(without, through, strict=True):
            assert comparable(mine) == pytest.approx(comparable(expected), rel=1e-5)
        assert report["same bytes"]


def test_two_ranks_follow_the_losses_of_one_and_resume(
    job: MakeJob, random_model: Path, training_features: Path, tmp_path: Path
) -> None:
    settings = {"tokens_per_update": 200, "max_tokens_per_batch": 110}
    one = job("llm", tmp_path / "one", lora=LoraConfig(r=4, lora_dropout=0.0), **rank_runs.DEFAULTS, **settings)
    drop_nothing(one)
    trainer.train(one)
    start = rank_runs.starter(random_model, training_features, tmp_path)
    two = finish(start("llm", "two", 2, distributed="deepspeed", **settings), tmp_path / "two")
    assert two.status == 0, two.output
    for kind in ("train", "cv"):
        losses = [line["loss"] for line in history(one) if line["kind"] == kind]
        assert two.losses(kind) == pytest.approx(losses, rel=1e-4)
    assert len(two.losses("train")) >= 4

    shutil.copytree(tmp_path / "two", tmp_path / "again")
    first, *_, last = checkpoint.find(tmp_path / "again")
    shutil.rmtree(last.path)
    again = finish(start("llm", "again", 2, distributed="deepspeed", **settings), tmp_path / "again")
    assert again.status == 0, again.output
    assert f"goes on from update {first.update}" in again.output
    for path in ("history.jsonl", f"{last.path.name}/adapter_model.safetensors", f"{last.path.name}/state.pt"):
        assert (tmp_path / "again" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()


def test_one_process_trains_without_deepspeed(job: MakeJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = job("llm", tmp_path)
    tools = zero.assemble(made.model, made.task.loss, made.settings, made.setup, 4, torch.device("cpu"), Ranks())
    assert not isinstance(tools, zero.Zero)
    assert "one process" in capsys.readouterr().out


def test_an_optimizer_that_cannot_be_cut_is_refused(job: MakeJob, tmp_path: Path) -> None:
    made, ranks = job("llm", tmp_path), Ranks(rank=0, size=2)
    with pytest.raises(UserError, match=r"adamw_8bit.*train.distributed=ddp"):
        setup = Setup(optim="adamw_8bit")
        zero.assemble(made.model, made.task.loss, made.settings, setup, 4, torch.device("cpu"), ranks)
