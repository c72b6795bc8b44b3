"""Cached features and a module with adapters -> checkpoints, history.jsonl, plan.json: the training loop.

The unit of everything is one update: planned as a whole, seeded by (seed, epoch, update), divided by the targets of all
its micro-batches. So a run that was stopped and resumed equals one that was not, bit for bit on a CPU.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cosytune import files
from cosytune.errors import UserError
from cosytune.features.cache import FeatureCache
from cosytune.schema import ModuleTrainConfig
from cosytune.training import checkpoint, draws, machine, plan, signals
from cosytune.training.batches import Batch
from cosytune.training.draws import Epoch
from cosytune.training.journal import Journal
from cosytune.training.machine import Machine
from cosytune.training.plan import MicroBatch, Plan
from cosytune.training.position import Mean, Position
from cosytune.training.tasks import Task

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True)
class Job:
    """One module to train. `name` (llm, flow) is its section in the config; `directory` gets what training makes."""

    name: str
    directory: Path
    model: PeftModel
    task: Task
    settings: ModuleTrainConfig
    seed: int
    device: str
    train: FeatureCache
    cv: FeatureCache

    @property
    def key(self) -> str:
        return f"train.{self.name}"


class Stopped(Exception):  # noqa: N818 - no error: what was asked for
    """A signal asked to stop; a checkpoint was written, and the same command goes on from it."""

    def __init__(self, received: signal.Signals) -> None:
        super().__init__(f"stopped by {received.name}; the same command goes on from here")
        self.exit_status = signals.EXIT_STATUS[received]


def train(job: Job) -> Position:
    """Train to the end, from the newest sound checkpoint if there is one.

    Raises Stopped after a signal; UserError when there is too little data, no disk space, or no finite loss.
    """
    planned = _plan(job)
    tools = machine.assemble(job.model, job.task.loss, job.settings, planned.total_updates, job.device, job.key)
    position = _resume(job, tools)
    with Journal(job.directory, job.name, planned, position.update) as journal, signals.listening() as stop:
        _announce(job, planned, position, journal)
        if position.update == 0:
            journal.cv(0, _untuned_loss(job, tools, planned), "the untuned base")
        while not _finished(position, planned, job.settings):
            epoch = Epoch(job.seed, position.update // planned.updates_per_epoch)
            updates = _updates(job, planned, epoch)
            for update in updates[position.update % planned.updates_per_epoch :]:
                _update(job, tools, position, epoch, update, journal)
                if _ends_epoch(position, planned):
                    break
                if stop.received:
                    _save(job, tools, position, epoch, math.nan, math.nan)
                    raise Stopped(stop.received)
            _end_epoch(job, tools, planned, position, epoch, journal)
            if stop.received:
                raise Stopped(stop.received)
        if position.best_update is None:
            raise UserError(
                f"{job.name}: no epoch had a finite cv loss: the adapters diverged; lower {job.key}.learning_rate"
            )
        journal.say(_outcome(position))
    return position


def _update(
    job: Job, tools: Machine, position: Position, epoch: Epoch, update: Sequence[MicroBatch], journal: Journal
) -> None:
    torch.manual_seed(draws.torch_seed(epoch, position.update))  # dropout
    micro_batches = _batches(job.task, job.train, update, epoch)
    learning_rate = tools.learning_rate
    outcome = tools.update(micro_batches)
    if outcome.is_sound:
        position.trained(outcome.total, outcome.targets)
    else:
        journal.say(f"update {position.update + 1} skipped: loss {outcome.total}, gradient {outcome.gradient_norm}")
        position.failed([job.train.utts[index] for indices in update for index in indices], job.key)
    if position.since_log.targets and (position.update == 1 or position.update % job.settings.logging_steps == 0):
        journal.train(position.update, position.since_log.take(), learning_rate, outcome.gradient_norm)
    else:
        journal.alive(position.update)


def _end_epoch(job: Job, tools: Machine, planned: Plan, position: Position, epoch: Epoch, journal: Journal) -> None:
    train_loss = position.in_epoch.take()
    cv_loss = _cv_loss(job, tools, planned)
    is_best = position.ended_epoch(cv_loss, job.settings)
    remark = "the best so far" if is_best else f"the best is still update {position.best_update}"
    journal.cv(position.update, cv_loss, f"epoch {epoch.number + 1}, train loss {train_loss:.4f}, {remark}")
    _save(job, tools, position, epoch, cv_loss, train_loss)
    checkpoint.prune(job.directory, job.settings.save_total_limit, position.best_update)


def _cv_loss(job: Job, tools: Machine, planned: Plan) -> float:
    """The mean loss over the cv clips, with the same draws every time."""
    lengths = [job.task.length(length) for length in job.cv.lengths]
    micro_batches = []
    for epoch in draws.cv_epochs(job.task.cv_parts):
        coin = partial(job.task.coin, epoch)
        cut = plan.cv_batches(job.cv.utts, lengths, planned.max_tokens_per_batch, coin)
        micro_batches += _batches(job.task, job.cv, cut, epoch)
    return tools.loss(micro_batches)


def _untuned_loss(job: Job, tools: Machine, planned: Plan) -> float:
    cv_loss = _cv_loss(job, tools, planned)
    if not math.isfinite(cv_loss):
        raise UserError(
            f"{job.name}: the untuned base's cv loss is {cv_loss}: the features of a cv clip or the base's weights are "
            f"damaged; run stage 3 (pack) again, or set {job.key}.precision=fp32"
        )
    return cv_loss


def _batches(task: Task, features: FeatureCache, update: Sequence[MicroBatch], epoch: Epoch) -> list[Batch]:
    return [task.batch([features[index] for index in indices], epoch) for indices in update]


def _plan(job: Job) -> Plan:
    settings = job.settings
    return plan.make(
        utts=job.train.utts,
        lengths=[job.task.length(length) for length in job.train.lengths],
        max_tokens_per_batch=settings.max_tokens_per_batch,
        accumulation=1 if settings.gradient_accumulation_steps == "auto" else settings.gradient_accumulation_steps,
        num_epochs=settings.num_train_epochs,
        max_steps=settings.max_steps,
        key=job.key,
    )


def _updates(job: Job, planned: Plan, epoch: Epoch) -> list[plan.Update]:
    return planned.epoch(epoch, partial(job.task.coin, epoch))


def _resume(job: Job, tools: Machine) -> Position:
    checkpoint.remove_leftovers(job.directory)
    found = checkpoint.find(job.directory)
    updates = {one.update for one in found}
    # One that calls a damaged checkpoint the best is no place to go on from: the best would be lost without a word.
    usable = [one for one in found if machine.position(one.path)["best_update"] in updates | {None}]
    for late in found[found.index(usable[-1]) + 1 if usable else 0 :]:
        print(f"set aside: {late.path}: its best checkpoint is damaged or gone, and is trained again")
        checkpoint.set_aside(late.path)
    if not usable:
        return Position()
    values = tools.restore(usable[-1].path)
    means = {name: Mean(**values[name]) for name in ("since_log", "in_epoch")}
    return Position(**{**values, **means})


def _save(job: Job, tools: Machine, position: Position, epoch: Epoch, cv_loss: float, train_loss: float) -> None:
    contents = tools.contents(asdict(position))
    checkpoint.write(job.directory, contents, position.update, epoch.number + 1, cv_loss, train_loss)


def _ends_epoch(position: Position, planned: Plan) -> bool:
    return position.update % planned.updates_per_epoch == 0 or position.update == planned.total_updates


def _finished(position: Position, planned: Plan, settings: ModuleTrainConfig) -> bool:
    is_through = position.update >= planned.total_updates
    return is_through or position.epochs_without_gain >= settings.early_stopping_patience


def _announce(job: Job, planned: Plan, position: Position, journal: Journal) -> None:
    """Say, and write to plan.json, what training will do."""
    first = _updates(job, planned, Epoch(job.seed, 0))
    summary: dict[str, Any] = {
        "module": job.name,
        "clips": len(planned.utts),
        "tokens": sum(planned.lengths),
        "cv_clips": len(job.cv),
        "max_tokens_per_batch": planned.max_tokens_per_batch,
        "gradient_accumulation_steps": planned.accumulation,
        "micro_batches_per_epoch": sum(len(update) for update in first),
        "updates_per_epoch": planned.updates_per_epoch,
        "epochs": planned.epochs,
        "total_updates": planned.total_updates,
        "padding_share": round(planned.padding_share(first), 4),
    }
    files.write_json(job.directory / "plan.json", summary)
    journal.say(
        "{clips} clips, {tokens} tokens, {micro_batches_per_epoch} micro-batches of at most {max_tokens_per_batch} "
        "({padding_share:.1%} padding), {updates_per_epoch} updates an epoch, {total_updates} in {epochs} epochs; "
        "{cv_clips} clips for cross-validation".format(**summary)
    )
    if position.update:
        journal.say(f"goes on from update {position.update}")


def _outcome(position: Position) -> str:
    skipped = f"; {position.skipped} updates skipped" if position.skipped else ""
    return f"best: update {position.best_update}, cv loss {position.best_cv_loss:.4f}{skipped}"
