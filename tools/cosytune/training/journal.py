"""What happened -> history.jsonl, train.log, TensorBoard and the terminal."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cosytune import files
from cosytune.training.plan import Plan
from cosytune.training.position import Position

HISTORY = "history.jsonl"
_PROGRESS_S = 5.0


def open(
    directory: Path, name: str, plan: Plan, position: Position, report_to: Sequence[str], is_first: bool
) -> Journal | Silent:
    """The journal of a run that goes on from `position`; of ranks other than the first, one that says nothing."""
    return Journal(directory, name, plan, position.update) if is_first else Silent()


class Silent:
    """The journal of the ranks that write nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def say(self, *_: object) -> None:
        """Nothing, as all that follows."""

    train = alive = skipped = cv = say


class Journal:
    """Writes for one module, from `update` on: lines of a former run that came after it are dropped."""

    def __init__(self, directory: Path, name: str, plan: Plan, update: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._history = directory / HISTORY
        self._plan = plan
        self._first_update, self._started_s, self._spoken_s = update, time.monotonic(), time.monotonic()
        _keep_until(self._history, update)
        self._log = _logger(directory / "train.log", name)
        self._board = SummaryWriter(str(directory / "tensorboard"), purge_step=update + 1 if update else None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, _: TracebackType | None) -> None:
        self._board.close()
        for handler in list(self._log.handlers):
            self._log.removeHandler(handler)
            handler.close()

    def say(self, text: str) -> None:
        """One line at INFO in train.log and on the terminal."""
        self._log.info(text)

    def train(
        self,
        update: int,
        loss: float,
        accuracy: float | None,
        learning_rate: float,
        gradient_norm: float,
        tokens: int,
    ) -> None:
        """The mean loss since the last such line, and the tokens trained on since then."""
        epoch = self._epoch(update)
        # fp16: the first gradients overflow until the loss is scaled down
        norm = gradient_norm if math.isfinite(gradient_norm) else None
        self._record(update, epoch, "train", loss, learning_rate=learning_rate, gradient_norm=norm)
        self._progress(update, f"loss {loss:.4f}, learning rate {learning_rate:.2e}")

    def alive(self, update: int) -> None:
        """A line when the last one is some seconds old."""
        if time.monotonic() - self._spoken_s > _PROGRESS_S:
            self._progress(update, "training")

    def skipped(self, update: int, what: str) -> None:
        self.say(f"update {update} skipped: {what}")

    def cv(self, update: int, loss: float, accuracy: float | None, remark: str) -> None:
        """The cross-validation loss after `update` (0: the untuned base); one that is not finite is only said."""
        if math.isfinite(loss):  # JSON has no NaN, and a curve no place for it
            self._record(update, self._epoch(update), "cv", loss)
        self.say(f"update {update}/{self._plan.total_updates}, cv loss {loss:.4f}: {remark}")

    def _epoch(self, update: int) -> int:
        """The epoch, from 1, that the update belongs to."""
        return -(-update // self._plan.updates_per_epoch)

    def _record(self, update: int, epoch: int, kind: str, loss: float, **more: float | None) -> None:
        line: dict[str, Any] = {"update": update, "epoch": epoch, "kind": kind, "loss": loss, **more}
        with self._history.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        self._board.add_scalar(f"loss/{kind}", loss, update)
        for key, value in more.items():
            if value is not None:
                self._board.add_scalar(f"{kind}/{key}", value, update)

    def _progress(self, update: int, what: str) -> None:
        self._spoken_s = time.monotonic()
        rate = (update - self._first_update) / max(self._spoken_s - self._started_s, 1e-9)
        left_s = (self._plan.total_updates - update) / rate if rate > 0 else math.inf
        place = f"update {update}/{self._plan.total_updates}, epoch {self._epoch(update)}/{self._plan.epochs}"
        self.say(f"{place}, {what}, {rate:.2f} updates/s, {_duration(left_s)} left")


def _keep_until(history: Path, update: int) -> None:
    """Drop what came after `update`; everything when training starts anew."""
    lines = history.read_text(encoding="utf-8").splitlines(keepends=True) if history.is_file() else []
    whole = [line for line in lines if line.endswith("\n")]  # a killed run may have left half a line
    kept = [line for line in whole if update > 0 and json.loads(line)["update"] <= update]
    files.write_text(history, "".join(kept))


def _logger(path: Path, name: str) -> logging.Logger:
    log = logging.getLogger(f"cosytune.training.{name}")
    log.setLevel(logging.INFO)
    log.propagate = False  # upstream's imports may have given the root logger handlers of their own
    to_file = logging.FileHandler(path, encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    to_terminal = logging.StreamHandler(sys.stdout)
    to_terminal.setFormatter(logging.Formatter(f"{name}: %(message)s"))
    log.addHandler(to_file)
    log.addHandler(to_terminal)
    return log


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
