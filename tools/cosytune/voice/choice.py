"""Checkpoints with their cv losses -> the one to ship, and why.

For now the lowest cv loss wins. It is a stand-in: the loss of an LLM rises while its speech still improves, so a
later version lets every candidate speak and judges what it says.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosytune.errors import UserError

if TYPE_CHECKING:
    from cosytune.training.checkpoint import Checkpoint


def choose(candidates: Sequence[Checkpoint], untuned: float) -> dict[str, Any]:
    """The entry of one module in selection.json; of equal losses the earlier checkpoint, which is tuned less.

    Raises UserError when no candidate has a finite cv loss: one within an epoch has none, a diverged one neither.
    """
    finite = [candidate for candidate in candidates if math.isfinite(candidate.cv_loss)]
    if not finite:
        raise UserError(
            f"{candidates[0].path.parent}: no checkpoint has a finite cv loss; if training stopped within its first "
            "epoch, go on with --stage 4; if it diverged, train again with a lower learning_rate"
        )
    best = min(finite, key=lambda candidate: (candidate.cv_loss, candidate.update))
    return {
        "chosen": best.path.name,
        "why": _why(best, len(candidates), untuned),
        "untuned_cv_loss": untuned,
        "candidates": [
            {
                "checkpoint": candidate.path.name,
                "update": candidate.update,
                "epoch": candidate.epoch,
                "cv_loss": _finite(candidate.cv_loss),
                "train_loss": _finite(candidate.train_loss),
            }
            for candidate in candidates
        ],
    }


def untuned_loss(history: Path) -> float:
    """The cv loss before the first update, as the trainer measured it; raises UserError when it is not there."""
    for entry in read_history(history):
        if entry["kind"] == "cv" and entry["update"] == 0 and entry["loss"] is not None:
            return float(entry["loss"])
    raise UserError(f"{history}: no finite cv loss of update 0 in it; check the base with --stage -1, then --stage 4")


def read_history(history: Path) -> list[dict[str, Any]]:
    """history.jsonl as a list, in the order in which it was written."""
    return [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines() if line.strip()]


def _finite(loss: float) -> float | None:
    """JSON has no NaN."""
    return loss if math.isfinite(loss) else None


def _why(best: Checkpoint, candidates: int, untuned: float) -> str:
    verdict = "below" if best.cv_loss < untuned else "NOT below"
    return (
        f"lowest cv loss of {candidates} checkpoints: {best.cv_loss:.4f}, {verdict} the untuned base's {untuned:.4f}; "
        "chosen by loss alone, not yet by what it says"
    )
