"""What happened -> history.jsonl, train.log, TensorBoard, audio samples, curves.png and the terminal.

history.jsonl holds no times: a run that was resumed leaves the bytes of one that was not.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from cosytune import files
from cosytune.training import pace
from cosytune.training.plan import Plan
from cosytune.training.position import Position
from cosytune.training.trackers import Sample, Trackers

HISTORY = "history.jsonl"
_PROGRESS_S = 5.0
_DRAWING_SHARE = 0.05
"""Of the time may go into curves.png; the last one is always drawn."""


def open(
    directory: Path, name: str, plan: Plan, position: Position, report_to: Sequence[str], is_first: bool
) -> Journal | Silent:
    """The journal of a run that goes on from `position`; of ranks other than the first, one that says nothing."""
    if not is_first:
        return Silent()
    _keep_until(directory / HISTORY, position.update, position.evaluated)
    return Journal(directory, name, plan, position.update, report_to)


class Silent:
    """The journal of the ranks that write nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def say(self, *_: object) -> None:
        """Nothing, as all that follows."""

    train = alive = skipped = cv = sample = real_clip = sync = say

    def has_samples(self, update: int) -> bool:
        """Nothing is missing here."""
        return True


class Journal:
    """Writes for one module, from `update` on: lines of a former run that came after it are dropped.

    `show`: a bar on the terminal, or lines; None: a bar where stderr is a terminal of our own.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        plan: Plan,
        update: int,
        report_to: Sequence[str] = ("tensorboard",),
        show: Literal["bar", "lines"] | None = None,
    ) -> None:
        self._directory, self._history, self._plan = directory, directory / HISTORY, plan
        _keep_until(self._history, update, update)
        self._bar = _bar(name, plan, update) if (show or _show()) == "bar" else None
        self._log = _logger(directory / "train.log", name, has_bar=self._bar is not None)
        self._trackers = Trackers(report_to, directory, name, update, self.say)
        self._pace = pace.Pace(update)
        self._spoken_s = -math.inf
        self._drawn_s, self._drawing_s = -math.inf, 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is None:
                self._draw()
        finally:
            self._trackers.close()
            if self._bar is not None:
                self._bar.close()
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
        """The mean loss and accuracy since the last such line, and the tokens trained on since then."""
        self._pace.trained(update)
        rate, gpu = self._pace.tokens_per_s(tokens), pace.gpu_gib()
        # fp16: the first gradients overflow until the loss is scaled down
        norm = gradient_norm if math.isfinite(gradient_norm) else None
        self._record(update, "train", loss, accuracy, learning_rate=learning_rate, gradient_norm=norm)
        values = {
            "train/learning_rate": learning_rate,
            "train/gradient_norm": norm,
            "speed/tokens_per_second": rate,
            "memory/gpu_peak_gib": gpu[0] if gpu else None,
        }
        self._track("train", loss, accuracy, update, values)
        what = f"loss {loss:.4f}{_percent(accuracy)}"
        speed = f"{rate:.0f} tokens/s" + (f", GPU {gpu[0]:.1f} of {gpu[1]:.0f} GiB" if gpu else "")
        self._progress(update, f"{what}, learning rate {learning_rate:.2e}, {speed}")
        if self._bar is not None:
            self._bar.set_postfix_str(f"{what}, {speed}", refresh=False)
            self._bar.update(max(0, update - self._bar.n))

    def alive(self, update: int) -> None:
        """One update more: the bar goes on, or a line comes when the last one is some seconds old."""
        self._pace.trained(update)
        if self._bar is not None:
            self._bar.update(max(0, update - self._bar.n))
        elif time.monotonic() - self._spoken_s > _PROGRESS_S:
            self._progress(update, "training")

    def skipped(self, update: int, what: str) -> None:
        """An update of which nothing was learned."""
        self._record(update, "skipped", None, None)
        self.say(f"update {update} skipped: {what}")

    def cv(self, update: int, loss: float, accuracy: float | None, remark: str) -> None:
        """The cross-validation loss after `update` (0: the untuned base); one that is not finite is only said."""
        if math.isfinite(loss):  # JSON has no NaN, and a curve no place for it
            self._record(update, "cv", loss, accuracy)
            self._track("cv", loss, accuracy, update, {})
        self.say(f"update {update}/{self._plan.total_updates}, cv loss {loss:.4f}{_percent(accuracy)}: {remark}")
        if time.monotonic() - self._drawn_s > self._drawing_s / _DRAWING_SHARE:
            self._draw()
        self._trackers.flush()
        self._pace.paused(update)

    def sample(self, update: int, name: str, mel: NDArray[np.float32], sound: NDArray[np.float32], hz: int) -> None:
        """Something to hear -> samples/update-000123-<name>.wav and the trackers.

        mel: float32 [frames, 80], log-amplitude; sound: float32 [n] in -1..1 at `hz`.
        """
        self._hear(update, name, f"update-{update:06d}-{name}", mel, sound, hz)

    def real_clip(self, update: int, name: str, mel: NDArray[np.float32], sound: NDArray[np.float32], hz: int) -> None:
        """What the samples of that name are compared with -> samples/real-<name>.wav, once; else as `sample`."""
        if not (self._directory / "samples" / f"real-{name}.wav").exists():
            self._hear(update, f"real-{name}", f"real-{name}", mel, sound, hz)

    def sync(self) -> None:
        """Put history.jsonl on the disk: a checkpoint goes on from its lines, also after the power has failed."""
        if self._history.exists():
            files.fsync(self._history)

    def has_samples(self, update: int) -> bool:
        """Whether as much was to be heard after `update` as ever: a run may have been stopped on the way."""
        names = [path.name for path in (self._directory / "samples").glob("update-*.wav")]
        counts = Counter(name.split("-")[1] for name in names)
        return 0 < counts[f"{update:06d}"] == max(counts.values())

    def _hear(
        self, update: int, name: str, file: str, mel: NDArray[np.float32], sound: NDArray[np.float32], hz: int
    ) -> None:
        from cosytune.voice.synthesis import write_wav

        path = self._directory / "samples" / f"{file}.wav"
        write_wav(path, sound, hz)
        self._trackers.sample(Sample(name, path, sound, hz, picture(mel)), update)
        self._trackers.flush()
        self._pace.paused(update)

    def _epoch(self, update: int) -> int:
        """The epoch, from 1, that the update belongs to."""
        return -(-update // self._plan.updates_per_epoch)

    def _record(self, update: int, kind: str, loss: float | None, accuracy: float | None, **more: float | None) -> None:
        line: dict[str, Any] = {"update": update, "epoch": self._epoch(update), "kind": kind, "loss": loss, **more}
        if accuracy is not None:
            line["accuracy"] = accuracy
        with self._history.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")

    def _track(
        self, kind: str, loss: float, accuracy: float | None, update: int, more: dict[str, float | None]
    ) -> None:
        values = {f"loss/{kind}": loss, f"accuracy/{kind}": accuracy, **more}
        self._trackers.scalars({tag: value for tag, value in values.items() if value is not None}, update)

    def _progress(self, update: int, what: str) -> None:
        """A line in train.log; on the terminal too, if the last one is some seconds old and there is no bar."""
        now_s = time.monotonic()
        place = f"update {update}/{self._plan.total_updates}, epoch {self._epoch(update)}/{self._plan.epochs}"
        rate = self._pace.updates_per_s
        left_s = (self._plan.total_updates - update) / rate if rate > 0 else math.inf
        text = f"{place}, {what}, {rate:.2f} updates/s, {pace.duration(left_s)} left"
        is_shown = self._bar is None and now_s - self._spoken_s > _PROGRESS_S
        self._log.info(text, extra={"hidden": not is_shown})
        if is_shown:
            self._spoken_s = now_s

    def _draw(self) -> None:
        from cosytune.training import curves

        started_s = time.monotonic()
        curves.draw(self._directory.parent)
        self._drawn_s = time.monotonic()
        self._drawing_s = self._drawn_s - started_s


def picture(mel: NDArray[np.float32]) -> NDArray[np.uint8]:
    """float32 [frames, bins] of log amplitude -> uint8 [4 * bins, 2 * frames, 3], low notes below.

    The same loudness has the same colour in every picture.
    """
    import matplotlib as mpl

    quietest, loudest = math.log(1e-5), 2.0  # upstream's mel has nothing below
    levels = np.clip((mel.T[::-1] - quietest) / (loudest - quietest), 0, 1)
    colours: NDArray[np.uint8] = mpl.colormaps["magma"](levels.astype(np.float64), bytes=True)[..., :3]
    return colours.repeat(4, axis=0).repeat(2, axis=1)


def _keep_until(history: Path, update: int, evaluated: int) -> None:
    """Drop what came after `update`, and evaluations after `evaluated`; everything when training starts anew."""
    lines = history.read_text(encoding="utf-8").splitlines(keepends=True) if history.is_file() else []
    whole = [line for line in lines if line.endswith("\n")]  # a killed run may have left half a line
    last = {"cv": min(update, evaluated)}
    known = [(line, json.loads(line)) for line in whole if update > 0]
    kept = [line for line, entry in known if entry["update"] <= last.get(entry["kind"], update)]
    files.write_text(history, "".join(kept))


def _show() -> Literal["bar", "lines"]:
    return "bar" if sys.stderr.isatty() and not os.environ.get(pace.LINES_ONLY) else "lines"


def _bar(name: str, plan: Plan, update: int) -> Any:
    from tqdm import tqdm

    return tqdm(
        desc=name, total=plan.total_updates, initial=update, unit=" update", mininterval=0.2, dynamic_ncols=True
    )


def _logger(path: Path, name: str, has_bar: bool) -> logging.Logger:
    log = logging.getLogger(f"cosytune.training.{name}")
    log.setLevel(logging.INFO)
    log.propagate = False  # upstream's imports may have given the root logger handlers of their own
    path.parent.mkdir(parents=True, exist_ok=True)
    to_file = logging.FileHandler(path, encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    to_terminal = _AboveBar() if has_bar else logging.StreamHandler(sys.stdout)
    to_terminal.setFormatter(logging.Formatter(f"{name}: %(message)s"))
    to_terminal.addFilter(lambda record: not getattr(record, "hidden", False))
    log.addHandler(to_file)
    log.addHandler(to_terminal)
    return log


class _AboveBar(logging.Handler):
    """Lines on the terminal that leave a bar whole."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stdout)


def _percent(accuracy: float | None) -> str:
    return "" if accuracy is None else f", accuracy {100 * accuracy:.1f} %"
