"""When training evaluates, saves and ends; and that neither workers, nor reading late, nor an optimizer breaks it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from cosytune.training import checkpoint, distributed, machine, trainer
from cosytune.training.draws import Epoch
from cosytune.training.job import Job
from cosytune.training.trainer import Stopped
from training_data import Disturbed, MakeJob, contents, history, in_training, terminate


def cv_updates(run: Job) -> list[int]:
    return [line["update"] for line in history(run) if line["kind"] == "cv"]


def test_evaluations_every_few_updates(job: MakeJob) -> None:
    run = job("llm", "run", eval_strategy="steps", eval_steps=3, num_train_epochs=2)
    assert trainer.train(run).update == 8
    assert cv_updates(run) == [0, 3, 6, 8]
    assert [item.update for item in checkpoint.find(run.directory)] == [3, 6, 8]


def test_checkpoints_between_evaluations_are_there_to_resume_from(job: MakeJob) -> None:
    """The newest one stays until the next evaluation; those with a cv loss are counted apart."""
    settings = {"save_steps": 3, "num_train_epochs": 2}
    run = job("llm", "run", **settings)
    stopped = job("llm", "stopped", **settings)
    trainer.train(run)
    assert [item.update for item in checkpoint.find(run.directory)] == [4, 8]
    (stopped.directory / "x").parent.mkdir()
    with pytest.raises(Killed):
        trainer.train(replace(stopped, task=Disturbed(stopped.task, 8, die, in_training)))
    newest = checkpoint.find(stopped.directory)[-1]
    assert newest.update == 6
    assert math.isnan(newest.cv_loss)
    trainer.train(job("llm", "stopped", **settings))
    assert contents(stopped) == contents(run)


class Killed(BaseException):
    """As if the power had gone: nothing in the trainer answers it."""


def die() -> None:
    raise Killed


def begins_an_evaluation(epoch: Epoch) -> bool:
    """The flow's evaluations have several parts, of one micro-batch each."""
    return not in_training(epoch) and epoch.part == 0


@pytest.mark.parametrize("evaluations", [1, 2, 3])
def test_an_evaluation_that_was_stopped_is_made_by_the_next_run(evaluations: int, job: MakeJob) -> None:
    """The flow, whose evaluation has several micro-batches."""
    settings = {"num_train_epochs": 2}
    through, stopped = job("flow", "through", **settings), job("flow", "stopped", **settings)
    trainer.train(through)
    with pytest.raises(Stopped):
        trainer.train(replace(stopped, task=Disturbed(stopped.task, evaluations, terminate, begins_an_evaluation)))
    assert len(cv_updates(stopped)) == evaluations - 1
    trainer.train(job("flow", "stopped", **settings))
    assert contents(stopped) == contents(through)


def test_training_ends_at_the_loss_floor(job: MakeJob, capsys: pytest.CaptureFixture[str]) -> None:
    run = job("llm", "run", num_train_epochs=50, loss_floor=1000.0)
    assert trainer.train(run).update == 4, "the first evaluation after training"
    assert "the train loss reached loss_floor" in capsys.readouterr().out
    assert trainer.train(job("llm", "run", num_train_epochs=50, loss_floor=1000.0)).update == 4


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "adamw_8bit"])
def test_other_optimizers_learn_and_resume(optim: str, job: MakeJob) -> None:
    settings = {"optim": optim, "num_train_epochs": 2}
    through, stopped = job("llm", "through", **settings), job("llm", "stopped", **settings)
    trainer.train(through)
    losses = [line["loss"] for line in history(through) if line["kind"] == "cv"]
    assert losses[-1] < losses[0] - 1
    with pytest.raises(Killed):
        trainer.train(replace(stopped, task=Disturbed(stopped.task, 6, die, in_training)))
    trainer.train(job("llm", "stopped", **settings))
    assert contents(stopped) == contents(through)


@pytest.mark.parametrize(
    ("former", "now"), [("adamw_torch", "adamw_torch_fused"), ("adamw_torch_fused", "adamw_torch")]
)
def test_another_machine_goes_on_with_its_own_kernels(former: str, now: str, job: MakeJob) -> None:
    """optim: auto is fused on a GPU alone; not fused, it would not know there that an update has to be skipped."""
    former = {"adamw_torch": "adamw_torch_fused", "adamw_torch_fused": "adamw_torch"}[now]
    run = job("llm", "run", num_train_epochs=1, optim=former)
    trainer.train(run)
    other = replace(run, setup=replace(run.setup, optim=now))
    made = machine.assemble(
        other.model, other.task.loss, other.settings, other.setup, 8, torch.device("cpu"), distributed.Ranks()
    )
    made.restore(checkpoint.find(run.directory)[-1].path)
    assert [bool(group["fused"]) for group in made.optimizer.param_groups] == [now == "adamw_torch_fused"]


@pytest.mark.parametrize(
    ("kind", "more"),
    [("cosine_with_restarts", {"num_cycles": 2}), ("polynomial", {"power": 2.0}), ("inverse_sqrt", {}), ("linear", {})],
)
def test_schedules(kind: str, more: dict[str, float], job: MakeJob) -> None:
    settings = {"lr_scheduler_type": kind, "lr_scheduler_kwargs": more, "warmup_steps": 2, "logging_steps": 1}
    run = job("llm", kind, num_train_epochs=4, early_stopping_patience=9, **settings)
    trainer.train(run)
    rates = [line["learning_rate"] for line in history(run) if line["kind"] == "train"]
    assert rates[0] == 0
    assert rates[1] == pytest.approx(0.0015)
    assert rates[2] == pytest.approx(0.003), "after the warm-up"
    if kind == "cosine_with_restarts":
        assert rates[9] == pytest.approx(0.003), "up again in the middle"
    else:
        assert rates[-1] < rates[-2] < rates[3]


def test_workers_change_no_byte(job: MakeJob) -> None:
    runs = [job("flow", f"of{count}", num_train_epochs=1, dataloader_num_workers=count) for count in (0, 2)]
    for run in runs:
        trainer.train(run)
    assert contents(runs[0]) == contents(runs[1])


def test_reading_an_updates_figures_late_changes_no_byte(job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where the next update is under way when the figures of one are read."""
    settings = {"num_train_epochs": 2, "save_steps": 3, "logging_steps": 1}
    at_once, late = job("llm", "at_once", **settings), job("llm", "late", **settings)
    trainer.train(at_once)
    made = machine.Plain.__post_init__

    def asynchronous(self: machine.Plain) -> None:
        made(self)
        self.is_asynchronous = True

    monkeypatch.setattr(machine.Plain, "__post_init__", asynchronous)
    trainer.train(late)
    assert contents(late) == contents(at_once)
