"""Cached features and a module with adapters -> checkpoints, history.jsonl, plan.json: the training loop.

The unit of everything is one update: planned as a whole, seeded by (seed, epoch, update), divided by the targets of all
its micro-batches. So a run that was stopped and resumed equals one that was not, bit for bit on a CPU.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import partial

import torch

from cosytune import files
from cosytune.errors import UserError
from cosytune.features.cache import FeatureCache
from cosytune.training import (
    checkpoint,
    distributed,
    draws,
    journal,
    loader,
    machine,
    plan,
    resume,
    shortage,
    signals,
    zero,
)
from cosytune.training.draws import Epoch
from cosytune.training.job import Job
from cosytune.training.journal import Journal, Silent
from cosytune.training.loader import Part
from cosytune.training.machine import Interrupted, Machine, Outcome, OutOfMemory, Values
from cosytune.training.plan import MicroBatch, Plan, Update
from cosytune.training.position import Position
from cosytune.training.signals import Request, Stopped


def train(job: Job) -> Position:
    """Train to the end, from the newest sound checkpoint if there is one; in every process that torchrun started.

    Raises Stopped after a signal; UserError when there is too little data, no disk space, no memory for one clip, or
    no finite loss.
    """
    with signals.listening() as stop:
        device = torch.device("cuda" if job.device != "cpu" and torch.cuda.is_available() else "cpu")
        ranks = distributed.join(device)
        planned = job.plan()
        assemble = zero.assemble if job.distributed == "deepspeed" else machine.assemble
        tools = assemble(job.model, job.task.loss, job.settings, job.setup, planned.total_updates, device, ranks)
        found = ranks.from_first(partial(resume.find, job.directory, job.settings.save_total_limit))
        position = Position.read(tools.restore(found)) if found else Position()
        with journal.open(job.directory, job.name, planned, position, job.settings.report_to, ranks.is_first) as notes:
            ranks.wait()  # a tracker may answer slowly
            return Run(job, tools, planned, position, notes, stop).go()


@dataclass(frozen=True)
class _Launched:
    """An update whose figures were not read yet, and the learning rate that it was made with."""

    outcome: Outcome
    clips: list[int]
    learning_rate: float


@dataclass
class Run:
    """One training run on its way.

    waiting: updates whose figures were not read yet. tokens: trained on since the last line that said how fast. saved:
    the update of the newest checkpoint.
    """

    job: Job
    tools: Machine
    plan: Plan
    position: Position
    notes: Journal | Silent
    stop: Request
    waiting: list[_Launched] = field(default_factory=list)
    tokens: int = 0
    saved: int = field(init=False)

    def __post_init__(self) -> None:
        self.saved = self.position.update

    def go(self) -> Position:
        """From where the position is to the end."""
        self._announce()
        try:
            if 0 < self.position.update == self.position.evaluated:
                self._listen(unless_heard=True)  # the former run may have been stopped before
            while True:
                if self.position.evaluated < self.position.update and self._is_border(self.position.update):
                    self._evaluate()
                if self._is_finished():
                    break
                self._to_the_next_border()
        except Interrupted:
            self._settle()
            if self.saved < self.position.update:
                self._save()
        if received := self.tools.ranks.most(self.stop.received or 0, self.tools.device):
            raise Stopped(signal.Signals(received))
        if self.position.best_update is None:
            raise UserError(
                f"{self.job.name}: no evaluation had a finite cv loss: the adapters diverged; "
                f"lower {self.job.key}.learning_rate"
            )
        self.notes.say(_outcome(self.position, self.plan.total_updates))
        return self.position

    def _to_the_next_border(self) -> None:
        """Train until an evaluation is due, or the epoch has ended, or memory ran short."""
        first, settings = self.position.update, self.job.settings
        epoch = Epoch(self.job.seed, first // self.plan.updates_per_epoch)
        updates = self.job.updates(self.plan, epoch)[first % self.plan.updates_per_epoch :]
        with self._parts(updates, epoch) as parts:
            for number, (update, part) in enumerate(zip(updates, parts, strict=False), start=first + 1):
                try:
                    self._launch(epoch, number, update, part)
                except OutOfMemory:
                    self._settle()
                    self._cut_budget(plan.within(update, self.plan.lengths, self._budget), self.job.train, "training")
                    return
                if self._is_border(number):
                    break
                if settings.save_steps and number % settings.save_steps == 0:
                    self._settle()
                    self._save()
        self._settle()

    def _parts(self, updates: Sequence[Update], epoch: Epoch) -> AbstractContextManager[Iterator[Part]]:
        """What this rank does of each update."""
        job, ranks = self.job, self.tools.ranks
        shares = [plan.share(update, self.plan.lengths, self._budget, ranks.size)[ranks.rank] for update in updates]
        is_on_gpu = self.tools.device.type == "cuda"
        return loader.load(job.task, job.train, shares, epoch, job.setup.num_workers, pin_memory=is_on_gpu)

    def _launch(self, epoch: Epoch, number: int, update: Update, part: Part) -> None:
        """Start one update; read what came of the one before it, or of this one where nothing runs ahead."""
        torch.manual_seed(draws.torch_seed(epoch, number) + self.tools.ranks.rank)  # dropout
        learning_rate = self.tools.learning_rate
        outcome = self.tools.update(part.micro_batches, self._should_stop)
        clips = [index for batch in update for index in batch]
        self.waiting.append(_Launched(outcome, clips, learning_rate))
        self._settle(keep=1 if self.tools.is_asynchronous else 0)

    def _settle(self, keep: int = 0) -> None:
        """Take the figures of launched updates in, of all but the last `keep`."""
        while len(self.waiting) > keep:
            self._take_in(self.waiting.pop(0))

    def _take_in(self, launched: _Launched) -> None:
        values = launched.outcome.read()
        position, job = self.position, self.job
        self.tokens += sum(self.plan.lengths[index] for index in launched.clips)
        if values.is_sound:
            position.trained(values)
        else:
            self.notes.skipped(position.update + 1, f"loss {values.total}, gradient {values.gradient_norm}")
            position.failed([job.train.utts[index] for index in launched.clips], job.key)
        is_due = position.update == 1 or position.update % job.settings.logging_steps == 0
        if is_due and position.since_log.targets:
            mean, tokens, self.tokens = position.since_log.take(), self.tokens, 0
            rate = launched.learning_rate
            self.notes.train(position.update, mean.loss, mean.accuracy, rate, values.gradient_norm, tokens)
        else:
            self.notes.alive(position.update)

    def _evaluate(self) -> None:
        """The loss over the cv clips, a checkpoint, and something to hear."""
        values = self._cv()
        position, cv_loss = self.position, values.total / values.targets
        accuracy = None if values.correct is None else values.correct / values.targets
        if position.update == 0:
            self._require_finite(cv_loss)
            position.evaluated = 0
            self.notes.cv(0, cv_loss, accuracy, "the untuned base")
        else:
            train_loss = position.since_evaluation.take().loss
            is_best = position.was_evaluated(cv_loss, train_loss, self.job.settings)
            remark = "the best so far" if is_best else f"the best is still update {position.best_update}"
            said = f"epoch {self._epoch}, train loss {train_loss:.4f}, {remark}"
            self.notes.cv(position.update, cv_loss, accuracy, said)
            self._save(cv_loss, train_loss)
        self._listen()

    def _listen(self, unless_heard: bool = False) -> None:
        update = self.position.update
        is_heard = unless_heard and self.notes.has_samples(update)
        if self.job.listen and self.tools.ranks.is_first and not is_heard:
            self.job.listen(self.job.model, update, self.notes, self._should_stop)
        self.tools.ranks.wait()

    def _cv(self) -> Values:
        """With the same draws every time, so that two losses can be compared."""
        ranks = self.tools.ranks
        while True:
            cuts = self.job.cv_batches(self._budget)
            make = [partial(loader.batch_of, self.job.task, self.job.cv, indices, epoch) for indices, epoch in cuts]
            try:
                return self.tools.evaluate(make[ranks.rank :: ranks.size], self._should_stop)
            except OutOfMemory:
                self._cut_budget([indices for indices, _ in cuts], self.job.cv, "cross-validation")

    def _save(self, cv_loss: float = math.nan, train_loss: float = math.nan) -> None:
        """A checkpoint; without losses it is there to resume from alone."""
        job, update, epoch = self.job, self.position.update, self._epoch
        contents = self.tools.contents(asdict(self.position))

        def write() -> None:
            self.notes.sync()
            checkpoint.write(job.directory, contents, update, epoch, cv_loss, train_loss)
            checkpoint.prune(job.directory, job.settings.save_total_limit, self.position.best_update)

        self.tools.ranks.from_first(write)
        self.saved = update

    def _cut_budget(self, batches: Sequence[MicroBatch], features: FeatureCache, what: str) -> None:
        """Half the micro-batches' size. The updates stay what they are, so only the speed changes."""
        lengths = self.job.lengths(features)
        self.position.budget = shortage.halved(batches, features.utts, lengths, self._budget, self.job.name, what)
        self.notes.say(f"out of memory in {what}: micro-batches of {self.position.budget} tokens from now on")
        shortage.release(self.tools.device)

    def _announce(self) -> None:
        """Say, and write to plan.json, what training will do."""
        first = self.job.updates(self.plan, Epoch(self.job.seed, 0))
        summary = self.plan.summary(self.job.name, len(self.job.cv), first)
        if self.tools.ranks.is_first:
            files.write_json(self.job.directory / "plan.json", summary)
        self.notes.say(plan.SUMMARY.format(**summary))
        setup, processes = self.job.setup, self.tools.ranks.size
        self.notes.say(
            f"{self.tools.device.type}, {setup.precision}, {setup.optim}, at most {self._budget} tokens at once"
            + (", activations computed twice" if setup.gradient_checkpointing else "")
            + (f", {processes} processes" if processes > 1 else "")
        )
        if self.position.update:
            self.notes.say(f"goes on from update {self.position.update}")

    def _require_finite(self, cv_loss: float) -> None:
        if not math.isfinite(cv_loss):
            raise UserError(
                f"{self.job.name}: the untuned base's cv loss is {cv_loss}: the features of a cv clip or the base's "
                f"weights are damaged; run stage 3 (pack) again, or set {self.job.key}.bf16=false "
                f"{self.job.key}.fp16=false"
            )

    def _is_border(self, update: int) -> bool:
        """Whether an evaluation is due after this update."""
        every = {"epoch": self.plan.updates_per_epoch, "steps": self.job.settings.eval_steps}
        return update % every[self.job.settings.eval_strategy] == 0 or update == self.plan.total_updates

    def _is_finished(self) -> bool:
        has_no_gain = self.position.evaluations_without_gain >= self.job.settings.early_stopping_patience
        return self.position.update >= self.plan.total_updates or has_no_gain or self.position.is_at_floor

    def _should_stop(self) -> bool:
        return self.stop.received is not None

    @property
    def _budget(self) -> int:
        """Tokens of a micro-batch."""
        return min(self.position.budget or self.plan.max_tokens_per_batch, self.plan.max_tokens_per_batch)

    @property
    def _epoch(self) -> int:
        """The epoch, from 1, that the last update belonged to."""
        return -(-self.position.update // self.plan.updates_per_epoch)


def _outcome(position: Position, total_updates: int) -> str:
    skipped = f"; {position.skipped} updates skipped" if position.skipped else ""
    ended = "; ended early: the train loss reached loss_floor" if position.is_at_floor else ""
    if position.update < total_updates and not ended:
        without = position.evaluations_without_gain
        ended = f"; ended early: {without} evaluations without a better cv loss (early_stopping_patience)"
    return f"best: update {position.best_update}, cv loss {position.best_cv_loss:.4f}{skipped}{ended}"
