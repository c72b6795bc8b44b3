"""One module and its settings -> upstream's train.py at work on it, watched line by line until it ends.

exp/<name>/<module>/  cosyvoice2.yaml  deepspeed.json  train.log  history.jsonl  plan.json  tensorboard/
                      checkpoint-<update>/{weights.pt,manifest.json}  upstream/ (what it is writing)
"""

from __future__ import annotations

import math
import shutil
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cosytune import files
from cosytune.errors import UserError
from cosytune.training import checkpoint, signals
from cosytune.training.checkpoint import Checkpoint
from cosytune.training.upstream import child, clips, epochs, history, log, settings
from cosytune.training.upstream.job import SAVED, Job, clear, command, environment, unlock_compiler

_POLL_S = 0.1
_LOG_LINES = 400


class Stopped(Exception):  # noqa: N818 - what was asked for
    """By a signal; the same command goes on."""

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


def train(job: Job) -> None:
    """Train until max_epoch, from the newest checkpoint if there is one.

    Raises Stopped on SIGTERM, SIGINT and SIGHUP; UserError when upstream's trainer fails or has nothing to learn from.
    """
    clear(job)
    kept = checkpoint.find(job.directory)
    newest = kept[-1] if kept else None
    if newest is not None and newest.epoch >= job.settings.max_epoch:
        print(f"{job.name}: {newest.path.name} is of the last epoch, {newest.epoch}: nothing left to train")
        return
    left = job.settings.max_epoch - (newest.epoch if newest else 0)
    new_ones = min(left, job.save_total_limit + 2) - max(0, len(kept) - 1)
    epochs.require_space(job.directory, job.base_weights, max(1, new_ones), job.is_deepspeed)
    history.keep_until(job.directory, newest.update if newest else 0)
    settings.write(job.directory, job.model_dir, job.family, job.settings, job.seed, job.low_precision)
    (job.directory / SAVED).mkdir()
    with signals.listening() as stop:
        Watch(job, kept, lambda: stop.received).go()


@dataclass
class Watch:
    """A run at work. `lines`: the end of its log, for the error that it may end with."""

    job: Job
    kept: list[Checkpoint]
    received: Callable[[], Any]
    validation: log.Validation | None = None
    train_loss: float = math.nan
    infinite: int = 0
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LOG_LINES))

    def __post_init__(self) -> None:
        job, newest = self.job, self.kept[-1] if self.kept else None
        self.clips = [clips.read(split, listing) for split, listing in job.data.items()]
        self.history = history.History(
            job.directory,
            job.name,
            job.settings.accum_grad,
            job.settings.log_interval,
            updates_before=newest.update if newest else 0,
        )
        if newest is None:
            self.history.say("full fine-tune by upstream's trainer, from the base")
        else:
            self.history.say(
                f"full fine-tune by upstream's trainer, goes on from {newest.path.name}, epoch {newest.epoch}; "
                "upstream keeps no optimizer state, so Adam starts anew"
            )

    def go(self) -> None:
        job, started_s = self.job, time.time()
        trainer = child.Child(
            command(job, self.kept[-1] if self.kept else None),
            environment(job),
            job.directory,
            job.directory / "train.log",
        )
        try:
            while True:
                status = trainer.status()  # first: what it wrote before it ended is then read, too
                for line in trainer.lines():
                    self.read(line)
                if status is not None:
                    break
                if self.received() is not None:
                    trainer.stop()
                    unlock_compiler(started_s)
                    for line in trainer.lines():
                        self.read(line)
                    raise self._stopped()
                time.sleep(_POLL_S)
        finally:
            trainer.close()
        self._require_end(status)
        shutil.rmtree(job.directory / SAVED)

    def read(self, line: str) -> None:
        """Do what a line of the log asks for. Raises UserError when nothing is learned or clips are lost."""
        self.lines.append(line)
        event = log.read(line)
        if isinstance(event, log.Batch):
            self.history.batch(event)
        elif isinstance(event, log.Validation) and event.rank == 0:
            self._validated(event)
        elif isinstance(event, log.Saved):
            self._saved(event.name)
        elif isinstance(event, log.Dropped):
            for one in self.clips:
                one.drop(event.utt, event.reason)
        elif isinstance(event, log.Unreadable):
            raise UserError(f"{event.path}: {event.reason}; run stage 3 (pack) again: --stage 3")
        elif "get infinite grad_norm" in line:
            self.infinite += 1

    def _validated(self, found: log.Validation) -> None:
        """Before the first epoch: what the untuned base scores, by upstream's own forward on upstream's own batches."""
        train, cv = self.clips
        if found.loss is None:
            raise self._nothing_left(cv)
        if found.epoch < 0:
            self._note_cv(found, "the untuned base")
            return
        batches, updates = self.history.batches, found.updates - self.history.updates_before
        if batches == 0:
            raise self._nothing_left(train)
        if updates == 0:
            raise UserError(
                f"{self.job.name}: an epoch has {batches} batches, fewer than train.upstream.accum_grad "
                f"({self.job.settings.accum_grad}), so nothing is ever learned; lower it, or "
                f"train.upstream.max_frames_in_batch ({self.job.settings.max_frames_in_batch})"
            )
        if not (self.job.directory / "plan.json").exists():
            self._write_plan(batches, updates)
        self.train_loss = self.history.end_epoch(found.updates)
        self.validation = found
        losses = [one.cv_loss for one in self.kept if math.isfinite(one.cv_loss)]
        self._note_cv(found, "the best so far" if all(found.loss < one for one in losses) else "not the best")
        if not math.isfinite(found.loss):
            raise UserError(
                f"{self.job.name}: the cv loss after epoch {found.epoch + 1} is not a number: training diverged; lower "
                f"train.upstream.learning_rate ({self.job.settings.learning_rate:g})"
            )

    def _note_cv(self, found: log.Validation, remark: str) -> None:
        assert found.loss is not None
        self.history.cv(found.epoch + 1, found.updates, found.loss, found.accuracy, remark)
        from cosytune.training import curves  # matplotlib

        curves.draw(self.job.directory.parent)

    def _write_plan(self, batches: int, updates: int) -> None:
        """After the first epoch: only upstream's own pipeline knows how many batches it makes."""
        job = self.job
        for one in self.clips:
            self.history.say(one.report())
        self.history.say(
            f"{batches} batches an epoch of at most {job.settings.max_frames_in_batch} frames, {updates} updates of "
            f"{job.settings.accum_grad} batches; {job.settings.max_epoch} epochs, {job.processes} processes"
        )
        plan = {
            "engine": f"upstream, {job.settings.train_engine}",
            "processes": job.processes,
            "epochs": job.settings.max_epoch,
            "batches_per_epoch": batches,
            "updates_per_epoch": updates,
            "total_updates": updates * job.settings.max_epoch,
            "clips": {one.name: {"all": len(one.utts), "kept": one.kept, "dropped": one.dropped} for one in self.clips},
        }
        files.write_json(job.directory / "plan.json", plan)

    def _saved(self, name: str) -> None:
        """Take the epoch over; the copy of the base that upstream writes at the start is of no use."""
        job, saved_dir = self.job, self.job.directory / SAVED
        found = self.validation
        if name == "init" or found is None or name != f"epoch_{found.epoch}_whole":
            _remove(saved_dir, name)
            return
        weights = epochs.gather(saved_dir, name, found.epoch, found.updates)
        path = job.directory / f"checkpoint-{found.updates:06d}"
        assert found.loss is not None
        made = Checkpoint(path, found.updates, found.epoch + 1, found.loss, self.train_loss)
        epochs.take(job.directory, weights, job.base_weights, made)
        _remove(saved_dir, name)  # its settings
        self.kept = epochs.prune([*self.kept, made], job.save_total_limit)

    def _stopped(self) -> Stopped:
        number = self.received()
        if self.kept:
            newest = self.kept[-1]
            place = f"{newest.path.name}, the end of epoch {newest.epoch}; what came after it is lost"
        else:
            place = "the base: no epoch was complete, and all of it is lost"
        return Stopped(
            f"{self.job.name}: stopped by {number.name}. Upstream's trainer saves after whole epochs alone; the same "
            f"command goes on from {place}",
            signals.EXIT_STATUS[number],
        )

    def _require_end(self, status: int) -> None:
        job, said = self.job, log.cause(list(self.lines))
        if status != 0 and (empty := [one for one in self.clips if one.kept == 0]):
            raise self._nothing_left(empty[0])  # upstream's own error for it is a KeyError
        if status != 0:
            is_full = "out of memory" in said
            remedy = "lower train.upstream.max_frames_in_batch" if is_full else f"{job.directory / 'train.log'} has all"
            raise UserError(f"{job.name}: upstream's trainer ended with status {status}; {remedy}:{said}")
        if not self.kept or self.kept[-1].epoch < job.settings.max_epoch:
            raise UserError(
                f"{job.name}: upstream's trainer ended before epoch {job.settings.max_epoch} without an error:{said}"
            )
        if self.infinite:
            self.history.say(f"{self.infinite} updates were skipped: their gradients were not finite")

    def _nothing_left(self, split: clips.Clips) -> UserError:
        return UserError(
            f"{self.job.name}: upstream's pipeline leaves no clip of {self.job.data[split.name]}: {split.report()}; "
            "longer or shorter clips, or a larger split (split.cv_fraction), and then --stage 0 or --stage 3"
        )


def _remove(saved_dir: Path, name: str) -> None:
    shutil.rmtree(saved_dir / name, ignore_errors=True)
    for suffix in ("pt", "yaml"):
        (saved_dir / f"{name}.{suffix}").unlink(missing_ok=True)
