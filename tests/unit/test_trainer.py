"""The loop: the same bytes twice, a resume that leaves no trace, and what it does when something goes wrong."""

from __future__ import annotations

import json
import math
import shutil
import signal
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cosytune import files
from cosytune.errors import UserError
from cosytune.features import cache
from cosytune.features.cache import FeatureCache
from cosytune.schema import LlmTrainConfig
from cosytune.training import checkpoint, machine, plan, trainer
from cosytune.training.distributed import Ranks
from cosytune.training.journal import Journal
from cosytune.training.position import Position
from cosytune.training.trainer import Stopped
from training_data import FAMILY, Disturbed, MakeJob, contents, history, in_training, terminate


def test_what_a_run_leaves_behind(job: MakeJob, capsys: pytest.CaptureFixture[str]) -> None:
    run = job("llm", "run")
    position = trainer.train(run)
    plan = files.read_json(run.directory / "plan.json")
    assert plan["clips"] == 6
    assert plan["total_updates"] == 3 * plan["updates_per_epoch"] == position.update >= 6
    lines = history(run)
    cv = [line for line in lines if line["kind"] == "cv"]
    assert [line["update"] for line in cv] == [number * plan["updates_per_epoch"] for number in range(4)]
    assert [line["epoch"] for line in cv] == [0, 1, 2, 3]
    assert cv[-1]["loss"] < cv[0]["loss"], "training has helped"
    train = [line for line in lines if line["kind"] == "train"]
    assert train[0]["update"] == 1
    assert all(line["learning_rate"] >= 0 and line["gradient_norm"] > 0 for line in train)
    found = checkpoint.find(run.directory)
    assert [item.update for item in found] == [line["update"] for line in cv[1:]]
    assert [item.cv_loss for item in found] == [line["loss"] for line in cv[1:]]
    assert position.best_update == min(found, key=lambda item: item.cv_loss).update
    assert {path.name for path in found[0].path.iterdir()} == {
        *("adapter_model.safetensors", "adapter_config.json", "state.pt", "manifest.json")
    }
    said = capsys.readouterr().out
    log = (run.directory / "train.log").read_text()
    for line in ("updates an epoch", "cv loss", "the untuned base", "updates/s", "left"):
        assert line in said
        assert line in log
    assert list((run.directory / "tensorboard").iterdir())


@pytest.mark.parametrize("name", ["llm", "flow"])
def test_one_seed_gives_the_same_bytes(name: str, job: MakeJob) -> None:
    runs = [job(name, directory, num_train_epochs=2) for directory in ("first", "second")]
    for run in runs:
        torch.manual_seed(len(run.directory.name))  # whatever the global generator was before
        trainer.train(run)
    assert contents(runs[0]) == contents(runs[1])
    assert any(name.endswith("adapter_model.safetensors") for name in contents(runs[0]))


@pytest.mark.parametrize(("name", "updates"), [("llm", 2), ("llm", 4), ("llm", 5), ("llm", 6), ("llm", 8), ("flow", 3)])
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(name: str, updates: int, job: MakeJob) -> None:
    settings = {"num_train_epochs": 2, "logging_steps": 3}
    through = job(name, "through", **settings)
    trainer.train(through)
    stopped = job(name, "stopped", **settings)
    with pytest.raises(Stopped) as caught:
        trainer.train(replace(stopped, task=Disturbed(stopped.task, updates, terminate, in_training)))
    assert caught.value.exit_status == 75
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    newest = checkpoint.find(stopped.directory)[-1]
    planned = files.read_json(stopped.directory / "plan.json")
    if name == "llm":
        assert newest.update == updates - 1, "the update on its way was dropped"
        assert math.isnan(newest.cv_loss) == (newest.update % planned["updates_per_epoch"] != 0)
    trainer.train(job(name, "stopped", **settings))
    assert contents(stopped) == contents(through)


@pytest.mark.parametrize("damage", ["removed", "tampered", "unfinished"])
def test_a_killed_run_goes_on_from_the_newest_sound_checkpoint(
    damage: str, job: MakeJob, capsys: pytest.CaptureFixture[str]
) -> None:
    run = job("llm", "run")
    trainer.train(run)
    before, lines = contents(run), history(run)
    newest = checkpoint.find(run.directory)[-1].path
    if damage == "removed":
        shutil.rmtree(newest)
    elif damage == "tampered":
        (newest / "state.pt").write_bytes(b"\0" + (newest / "state.pt").read_bytes()[1:])
    else:
        newest.rename(newest.with_name(f".{newest.name}.tmp"))
    with (run.directory / "history.jsonl").open("a") as stream:
        stream.write('{"update": 1')  # killed while it wrote
    capsys.readouterr()
    trainer.train(job("llm", "run"))
    said = capsys.readouterr().out
    assert ("state.pt was changed" in said) == (damage == "tampered")
    assert "goes on from update" in said
    assert history(run) == lines
    left = {name: digest for name, digest in contents(run).items() if ".damaged-" not in name}
    assert left == before


def test_a_best_checkpoint_that_was_damaged_is_trained_again(job: MakeJob) -> None:
    settings = {"learning_rate": 0.03, "lr_scheduler_type": "constant", "early_stopping_patience": 100}
    settings |= {"num_train_epochs": _epochs_until_worse(job, settings), "save_total_limit": 2}
    run = job("llm", "run", **settings)
    position = trainer.train(run)
    before = contents(run)
    assert position.best_update is not None
    assert position.best_update < position.update
    best = run.directory / f"checkpoint-{position.best_update:06d}" / "adapter_model.safetensors"
    best.write_bytes(best.read_bytes()[:-1])
    trainer.train(job("llm", "run", **settings))
    left = {name: digest for name, digest in contents(run).items() if ".damaged-" not in name}
    assert left == before


def _epochs_until_worse(job: MakeJob, settings: dict[str, Any]) -> int:
    """Epochs after which the last one is not the best: which one it is depends on the machine's rounding."""
    probe = job("llm", "probe", num_train_epochs=25, **settings)
    trainer.train(probe)
    history = [json.loads(line) for line in (probe.directory / "history.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in history if line["kind"] == "cv"]
    return next(epoch for epoch in range(1, len(losses)) if losses[epoch] > min(losses[:epoch]))


def test_a_finished_run_is_not_trained_further(job: MakeJob) -> None:
    run = job("llm", "run", num_train_epochs=2)
    trainer.train(run)
    before = contents(run)
    again = trainer.train(job("llm", "run", num_train_epochs=2))
    assert again.update == files.read_json(run.directory / "plan.json")["total_updates"]
    assert contents(run) == before


def test_training_stops_early_without_a_gain(job: MakeJob, capsys: pytest.CaptureFixture[str]) -> None:
    run = job("llm", "run", num_train_epochs=50, early_stopping_patience=2, early_stopping_threshold=1000.0)
    position = trainer.train(run)
    per_epoch = files.read_json(run.directory / "plan.json")["updates_per_epoch"]
    assert position.update == 3 * per_epoch, "one epoch that is better than none, two without a gain"
    assert "ended early: 2 evaluations without a better cv loss" in capsys.readouterr().out
    assert trainer.train(job("llm", "run", **run.settings.model_dump())).update == position.update


def test_only_the_newest_checkpoints_and_the_best_are_kept(job: MakeJob) -> None:
    run = job("llm", "run", num_train_epochs=5, learning_rate=3.0, save_total_limit=1, early_stopping_patience=10)
    position = trainer.train(run)
    cv = {line["update"]: line["loss"] for line in history(run) if line["kind"] == "cv" and line["update"]}
    assert len(cv) == 5
    assert position.best_update == min(cv, key=lambda update: cv[update])
    kept = [item.update for item in checkpoint.find(run.directory)]
    assert kept == sorted({position.best_update, position.update})


def test_the_best_epoch_has_the_lowest_finite_loss_and_patience_counts_from_the_last_gain() -> None:
    settings = LlmTrainConfig(early_stopping_threshold=0.1)
    position = Position()
    seen = []
    for update, loss in enumerate([math.nan, 5.0, 4.95, 4.0, math.inf, math.nan, 3.95], start=1):
        position.update = update
        is_best = position.was_evaluated(loss, 9.0, settings)
        seen.append((is_best, position.best_update, position.evaluations_without_gain))
    assert seen == [
        (False, None, 1),
        (True, 2, 0),
        (True, 3, 1),  # the best so far, yet not by the threshold
        (True, 4, 0),
        (False, 4, 1),
        (False, 4, 2),
        (True, 7, 3),
    ]


def test_max_steps_may_end_within_an_epoch(job: MakeJob) -> None:
    run = job("llm", "run", max_steps=3)
    assert trainer.train(run).update == 3
    assert [line["update"] for line in history(run) if line["kind"] == "cv"][-1] == 3
    assert checkpoint.find(run.directory)[-1].update == 3


def test_an_update_is_divided_by_the_targets_of_all_its_micro_batches(job: MakeJob) -> None:
    """Clips in micro-batches of unequal size give the gradient that they give in one."""
    outcomes = []
    for cuts in ([0, 4], [0, 1, 4]):
        run = job("llm", f"{cuts}", lr_scheduler_type="constant")
        for part in run.model.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
        cpu = torch.device("cpu")
        tools = machine.assemble(run.model, run.task.loss, run.settings, run.setup, 10, cpu, Ranks())
        clips = [run.train[index] for index in range(4)]
        groups = [clips[start:end] for start, end in pairwise(cuts)]
        micro_batches = [run.task.batch(group, trainer.Epoch(1, 0)) for group in groups]
        outcomes.append(tools.update(micro_batches, lambda: False).read())
    whole, parts = outcomes
    assert whole.targets == parts.targets
    assert parts.total == pytest.approx(whole.total, rel=1e-5)
    assert parts.gradient_norm == pytest.approx(whole.gradient_norm, rel=1e-4)


def _with_nan(features: FeatureCache, destination: Path, utts: set[str]) -> FeatureCache:
    rows = [vars(features[index]) for index in range(len(features))]
    for row in rows:
        if row["utt"] in utts:
            row["mel"] = np.full_like(row["mel"], np.nan)
    cache.write(destination, rows)
    return cache.open(destination)


def test_an_update_that_is_not_finite_is_skipped_and_counted(job: MakeJob, tmp_path: Path) -> None:
    run = job("flow", "run", num_train_epochs=1, max_tokens_per_batch=50)
    bad = run.train.utts[1]
    run = replace(run, train=_with_nan(run.train, tmp_path / "bad.arrow", {bad}))
    position = trainer.train(run)
    assert position.skipped == 1
    assert position.update >= 2
    assert math.isfinite(position.best_cv_loss)
    assert all(torch.isfinite(part).all() for part in run.model.parameters())
    assert "skipped: loss nan" in (run.directory / "train.log").read_text()


def test_five_updates_in_a_row_that_are_not_finite_name_the_clips(job: MakeJob, tmp_path: Path) -> None:
    run = job("flow", "run", num_train_epochs=10, early_stopping_patience=10)
    run = replace(run, train=_with_nan(run.train, tmp_path / "bad.arrow", set(run.train.utts)))
    with pytest.raises(UserError, match=r"not finite in 5 updates in a row") as caught:
        trainer.train(run)
    assert all(f"'{utt}'" in str(caught.value) for utt in run.train.utts)
    assert "train.flow.learning_rate" in str(caught.value)


def test_a_base_without_a_finite_cv_loss_is_an_error(job: MakeJob, tmp_path: Path) -> None:
    run = job("flow", "run")
    run = replace(run, cv=_with_nan(run.cv, tmp_path / "bad.arrow", set(run.cv.utts)))
    with pytest.raises(UserError, match=r"flow: the untuned base's cv loss is nan.*stage 3"):
        trainer.train(run)


def test_training_without_a_finite_cv_loss_is_an_error(job: MakeJob) -> None:
    run = job("llm", "run", num_train_epochs=1, learning_rate=1e30, warmup_ratio=0.0)
    with pytest.raises(UserError, match=r"llm: no evaluation had a finite cv loss.*train\.llm\.learning_rate"):
        trainer.train(run)
    assert [item.update for item in checkpoint.find(run.directory)], "what there is, is kept"


def test_history_has_no_line_that_json_cannot_hold(job: MakeJob) -> None:
    run = job("llm", "run")
    run.directory.mkdir()
    with Journal(run.directory, "llm", plan.make(["a", "b"], [9, 9], LlmTrainConfig(), 100, "train.llm"), 0) as journal:
        journal.cv(1, math.nan, None, "diverged")
        journal.train(1, 2.5, None, 0.1, math.inf, 100)
    assert history(run) == [
        {"update": 1, "epoch": 1, "kind": "train", "loss": 2.5, "learning_rate": 0.1, "gradient_norm": None}
    ]
    assert "cv loss nan: diverged" in (run.directory / "train.log").read_text()


def test_a_clip_draws_the_same_in_any_company(job: MakeJob) -> None:
    run, epoch = job("flow", "run", streaming_probability=0.0), trainer.Epoch(3, 2)
    clips = [run.train[index] for index in range(3)]
    together, alone = run.task.batch(clips, epoch), run.task.batch(clips[1:2], epoch)
    frames = alone.noise.shape[1]
    assert torch.equal(together.noise[1, :frames], alone.noise[0])
    for name in ("time", "prompt_frames", "guided"):
        assert getattr(together, name)[1] == getattr(alone, name)[0]
    assert not torch.equal(alone.noise, run.task.batch(clips[1:2], trainer.Epoch(3, 3)).noise)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_the_llms_coin_interleaves(probability: float, job: MakeJob) -> None:
    """After every turn of 5 text tokens the model says that it wants text again."""
    run = job("llm", "run", bistream_probability=probability)
    clips = [run.train[index] for index in range(6)]
    able = [clip for clip in clips if len(clip.speech_token) > 3 * len(clip.text_token)]
    turns = sum(len(clip.text_token) // 5 for clip in able)
    assert turns >= 3
    fill = FAMILY.speech_token_size + 2
    batch = run.task.batch(clips, trainer.Epoch(1, 0))
    assert (batch.target == fill).sum().item() == probability * turns


def test_too_few_updates_are_an_error_before_anything_is_written(job: MakeJob) -> None:
    run = job("llm", "run", tokens_per_update=100000)
    with pytest.raises(UserError, match=r"6 clips make fewer than 2 updates an epoch.*set train\.llm\.tokens_per_up"):
        trainer.train(run)
    assert not run.directory.exists()


def test_bf16_trains_and_keeps_adapters_in_fp32(job: MakeJob) -> None:
    run = job("llm", "run", num_train_epochs=1, bf16=True)
    trainer.train(run)
    assert all(part.dtype == torch.float32 for part in run.model.parameters())
    cv = [line["loss"] for line in history(run) if line["kind"] == "cv"]
    other = job("llm", "other", num_train_epochs=1, bf16=False, fp16=False)  # in the same process, at another precision
    trainer.train(other)
    exact = [line["loss"] for line in history(other) if line["kind"] == "cv"]
    assert cv != exact
    assert cv == pytest.approx(exact, rel=0.02)
