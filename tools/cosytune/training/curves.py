"""history.jsonl of each module -> exp/<name>/curves.png: losses, accuracy, learning rate, best and skipped updates."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from cosytune import files
from cosytune.layout import MODULES

PICTURE = "curves.png"
_TITLES = {"llm": "LLM", "flow": "Flow"}
_INK, _FAINT, _GRID = "#24292f", "#6e7781", "#e4e7eb"
_TRAIN, _CV, _BEST, _SKIPPED = "#8fb4dc", "#c2410c", "#15803d", "#b91c1c"
_STYLE: Any = {
    "font.family": "DejaVu Sans",  # in matplotlib's own package: the same picture on every machine
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}
Points = list[tuple[int, float]]


@dataclass(frozen=True)
class Curves:
    """What one history.jsonl holds, as (update, value)."""

    train: Points
    cv: Points
    train_accuracy: Points
    cv_accuracy: Points
    learning_rate: Points
    skipped: list[int]
    epochs: dict[int, int]
    """The update that was evaluated -> its epoch."""

    @classmethod
    def read(cls, history: Path) -> Curves:
        whole = [line for line in history.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
        lines = [json.loads(line) for line in whole]
        return cls(
            train=_points(lines, "train", "loss"),
            cv=_points(lines, "cv", "loss"),
            train_accuracy=_points(lines, "train", "accuracy"),
            cv_accuracy=_points(lines, "cv", "accuracy"),
            learning_rate=_points(lines, "train", "learning_rate"),
            skipped=[line["update"] for line in lines if line["kind"] == "skipped"],
            epochs={line["update"]: line["epoch"] for line in lines if line["kind"] == "cv"},
        )

    @property
    def best(self) -> tuple[int, float] | None:
        """The lowest cv loss of a tuned module."""
        tuned = [point for point in self.cv if point[0] > 0]
        return min(tuned, key=lambda point: (point[1], point[0])) if tuned else None


def draw(exp_dir: Path) -> None:
    """Draw what the modules have learned so far; nothing where no module has begun."""
    histories = {name: exp_dir / name / "history.jsonl" for name in MODULES}
    found = {name: Curves.read(path) for name, path in histories.items() if path.is_file()}
    if not found:
        return
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(5.8 * len(found), 5.2), dpi=150, layout="constrained", facecolor="white")
        panels = figure.subplots(2, len(found), squeeze=False, height_ratios=(3, 1.3), sharex="col")
        for column, (name, curves) in enumerate(found.items()):
            _losses(panels[0][column], _TITLES[name], curves)
            _rates(panels[1][column], curves)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", metadata={"Software": None})
    files.write_bytes(exp_dir / PICTURE, stream.getvalue())


def _losses(axes: Any, title: str, curves: Curves) -> None:
    if curves.train:
        axes.plot(*_xy(curves.train), color=_TRAIN, linewidth=1.6, label="train loss", **_dots(curves.train))
    axes.plot(*_xy(curves.cv), color=_CV, linewidth=2, marker="o", markersize=4.5, label="cv loss")
    if curves.best:
        update, loss = curves.best
        axes.axvline(update, color=_BEST, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1, label=f"best: {loss:.4g}")
    if curves.skipped:
        axes.plot(
            curves.skipped,
            [0.015] * len(curves.skipped),
            transform=axes.get_xaxis_transform(),
            linestyle="none",
            marker="x",
            color=_SKIPPED,
            label=f"skipped: {len(curves.skipped)}",
            clip_on=False,
        )
    axes.set_ylabel("loss")
    axes.margins(y=0.1)
    axes.set_title(_heading(title, curves), loc="left", fontsize=11, fontweight="bold", pad=26)
    axes.legend(
        frameon=False, fontsize=9, ncols=4, loc="lower left", bbox_to_anchor=(-0.01, 1), borderaxespad=0.1,
        columnspacing=1.2, handlelength=1.6, handletextpad=0.5,
    )  # fmt: skip


def _rates(axes: Any, curves: Curves) -> None:
    """Accuracy where it is known, with the learning rate behind it; else the learning rate alone."""
    rate_axes = axes
    if curves.train_accuracy or curves.cv_accuracy:
        axes.plot(*_xy(curves.train_accuracy), color=_TRAIN, linewidth=1.6, **_dots(curves.train_accuracy))
        axes.plot(*_xy(curves.cv_accuracy), color=_CV, linewidth=2, marker="o", markersize=3.5)
        axes.margins(y=0.12)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g} %")
        axes.set_ylabel("accuracy")
        rate_axes = axes.twinx()
        rate_axes.grid(visible=False)
    rates, dotted = curves.learning_rate, (0, (1.5, 1.5))
    rate_axes.plot(*_xy(rates), color=_FAINT, linewidth=1.2, linestyle=dotted, **_dots(rates))
    rate_axes.margins(y=0.12)
    rate_axes.set_ylim(bottom=0)
    rate_axes.yaxis.set_major_locator(MaxNLocator(4) if rates else NullLocator())
    rate_axes.yaxis.set_major_formatter(lambda rate, _: _scientific(rate))
    rate_axes.set_ylabel("learning rate", color=_FAINT)
    last = max([update for update, _ in curves.train + curves.cv], default=1) or 1
    axes.set_xlim(-0.03 * last, 1.03 * last)
    axes.set_xlabel("update")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))


def _scientific(rate: float) -> str:
    """0.000075 -> 7.5e-5."""
    digits, _, exponent = f"{rate:.1e}".partition("e")
    return f"{float(digits):g}e{int(exponent)}" if rate else "0"


def _heading(title: str, curves: Curves) -> str:
    if not curves.best:
        return title
    update = curves.best[0]
    return f"{title}: the best is update {update}, epoch {curves.epochs[update]}"


def _points(lines: Sequence[dict[str, Any]], kind: str, key: str) -> Points:
    return [(line["update"], line[key]) for line in lines if line["kind"] == kind and line.get(key) is not None]


def _xy(points: Points) -> tuple[list[int], list[float]]:
    return [update for update, _ in points], [value for _, value in points]


def _dots(points: Points) -> dict[str, Any]:
    """One point alone makes no line."""
    return {"marker": "o", "markersize": 4} if len(points) == 1 else {}
