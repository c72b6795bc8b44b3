"""What upstream's log says -> history.jsonl, in the form of the other engine's, and lines on the terminal."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cosytune import files
from cosytune.training.journal import HISTORY
from cosytune.training.upstream.log import Batch


@dataclass
class History:
    """Losses are means over batches. Upstream divides a training loss by accum_grad before it logs it: undone here."""

    directory: Path
    name: str
    accum_grad: int
    log_interval: int
    updates_before: int
    """Of this epoch's first batch."""
    _recent: list[Batch] = field(default_factory=list)
    _epoch: list[Batch] = field(default_factory=list)

    def say(self, text: str) -> None:
        print(f"{self.name}: {text}", flush=True)

    def batch(self, batch: Batch) -> None:
        """Take note of it; every log_interval batches of the first rank become one line."""
        self._recent.append(batch)
        self._epoch.append(batch)
        if batch.rank == 0 and batch.number % self.log_interval == 0:
            self._write_recent()

    def cv(self, epoch: int, update: int, loss: float, accuracy: float | None, remark: str) -> None:
        """`epoch`: from 1; 0 before the first. One that is not finite is only said: JSON has no NaN."""
        if math.isfinite(loss):
            self._record(update, epoch, "cv", loss, accuracy=accuracy)
        self.say(f"update {update}, epoch {epoch}, cv loss {loss:.4f}: {remark}")

    @property
    def batches(self) -> int:
        """Of the first rank, in this epoch so far."""
        return sum(batch.rank == 0 for batch in self._epoch)

    def end_epoch(self, updates: int) -> float:
        """The mean training loss of the epoch that ended after `updates`; the next one begins."""
        self._write_recent()
        mean = self._mean(self._epoch)
        self._epoch.clear()
        self.updates_before = updates
        return mean

    def _write_recent(self) -> None:
        if not self._recent:
            return
        last = self._recent[-1]
        update, loss = self.updates_before + last.number // self.accum_grad, self._mean(self._recent)
        right = [batch.accuracy for batch in self._recent if batch.accuracy is not None]
        if math.isfinite(loss):
            self._record(
                update,
                last.epoch + 1,
                "train",
                loss,
                learning_rate=last.learning_rate,
                gradient_norm=max(batch.gradient_norm for batch in self._recent),
                accuracy=sum(right) / len(right) if right else None,
            )
        place = f"update {update}, epoch {last.epoch + 1}, batch {last.number}"
        self.say(f"{place}, loss {loss:.4f}, learning rate {last.learning_rate:.2e}")
        self._recent.clear()

    def _mean(self, batches: list[Batch]) -> float:
        return self.accum_grad * sum(batch.loss for batch in batches) / len(batches) if batches else math.nan

    def _record(self, update: int, epoch: int, kind: str, loss: float, **more: float | None) -> None:
        sound = {key: value if value is None or math.isfinite(value) else None for key, value in more.items()}
        line: dict[str, Any] = {"update": update, "epoch": epoch, "kind": kind, "loss": loss, **sound}
        with (self.directory / HISTORY).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


def keep_until(directory: Path, update: int) -> None:
    """Drop what came after `update`; everything when training starts anew."""
    path = directory / HISTORY
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    whole = [line for line in lines if line.endswith("\n")]  # a killed run may have left half a line
    files.write_text(path, "".join(line for line in whole if update > 0 and json.loads(line)["update"] <= update))
