"""Stage 5: the checkpoints of every module -> exp/<name>/selection.json: all their scores, the choice and why.

python -m cosytune.stages.select egs/demo/exp/default/config.yaml
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cosytune import files
from cosytune.errors import UserError
from cosytune.stages.runner import Context, need, run_stage
from cosytune.training import checkpoint
from cosytune.training.checkpoint import Checkpoint
from cosytune.voice import choice


def work(context: Context) -> None:
    """Choose one checkpoint a module, by the clips that it was not trained on."""
    modules: dict[str, Any] = {}
    for module in context.config.train.modules:
        directory = context.layout.module(module)
        candidates = _candidates(directory)
        modules[module] = choice.choose(candidates, choice.untuned_loss(directory / "history.jsonl"))
        print(f"{module}: {modules[module]['chosen']} of {len(candidates)}: {modules[module]['why']}")
    files.write_json(context.layout.selection, {"modules": modules})


def _candidates(directory: Path) -> list[Checkpoint]:
    candidates = checkpoint.find(directory)
    if not candidates:
        raise UserError(f"{directory}: no complete checkpoint; run stage 4 (train) first: --stage 4")
    return candidates


def inputs(context: Context) -> Iterable[Path]:
    for module in context.config.train.modules:
        directory = context.layout.module(module)
        yield need(directory / "history.jsonl", "train")
        yield from directory.glob("checkpoint-*/manifest.json")


def outputs(context: Context) -> Iterable[Path]:
    return [context.layout.selection]


if __name__ == "__main__":
    run_stage("select", work, inputs, outputs)
