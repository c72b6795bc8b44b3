"""Stage 4: cached features -> exp/<name>/{llm,flow}/: LoRA checkpoints, history.jsonl, plan.json, logs.

python -m cosytune.stages.train egs/demo/exp/default/config.yaml

A run that was stopped goes on from its newest checkpoint; SIGTERM writes one and exits with status 75.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cosytune import base, families, files
from cosytune.record import flatten
from cosytune.stages.runner import Context, need, run_stage
from cosytune.training import runs


def work(context: Context) -> None:
    """Train each module by itself: they share no parameters and no gradient."""
    from cosytune.training import trainer

    try:
        # All of them before the first is trained: a run that is stopped and goes on does not know of `again`.
        for name in context.config.train.modules:
            runs.settle(context.layout.module(name), _identity(context, name), start_over=context.again)
        for name in context.config.train.modules:
            trainer.train(_job(context, name))
            gc.collect()  # the next module needs the room
    except trainer.Stopped as stopped:
        print(f"error: {stopped}", file=sys.stderr)
        sys.exit(stopped.exit_status)


def _job(context: Context, name: str) -> Any:
    """The module with fresh adapters, and the features that it is trained on."""
    from cosytune.features import cache
    from cosytune.training import adapters, tasks, trainer
    from cosytune.training.hardware import Setup
    from cosytune.upstream import bridge

    config, model_dir = context.config, base.locate(context.config)
    family = families.get(config.model)
    settings, lora = getattr(config.train, name), getattr(config.lora, name)
    module: Any = {"llm": bridge.build_llm, "flow": bridge.build_flow}[name](model_dir, family)
    task = (
        tasks.LlmTask(settings, family) if name == "llm" else tasks.FlowTask(settings, module.decoder.training_cfg_rate)
    )
    model = adapters.attach(module, lora, family.lora_targets[name], config.seed)
    print(adapters.describe(model, name))
    train, cv = (cache.open(path) for path in _features(context))
    return trainer.Job(
        name, context.layout.module(name), model, task, settings, Setup(), config.seed, config.device, train, cv
    )


def _identity(context: Context, name: str) -> dict[str, Any]:
    """What changes this module's adapters; a change of the other module's settings leaves it alone."""
    uses = ("model", "seed", "device", f"lora.{name}", f"train.{name}")
    inputs = [*_features(context), base.locate(context.config) / _weights(context, name)]
    return {
        "settings": flatten(context.config, uses),
        "inputs": {f"{path.parent.name}/{path.name}": files.sha256(path) for path in inputs},
    }


def _features(context: Context) -> list[Path]:
    """Training and cross-validation clips."""
    return [need(context.layout.parquet / split / "features.arrow", "pack") for split in ("train", "cv")]


def _weights(context: Context, name: str) -> str:
    family = families.get(context.config.model)
    return {"llm": family.llm, "flow": family.flow}[name]


def inputs(context: Context) -> Iterable[Path]:
    yield from _features(context)
    for name in context.config.train.modules:
        yield base.file(context.config, _weights(context, name))


def outputs(context: Context) -> Iterable[Path]:
    """Not the logs: who deletes them does not want to train again."""
    for name in context.config.train.modules:
        directory = context.layout.module(name)
        yield from (directory / file for file in ("run.json", "plan.json", "history.jsonl"))
        yield from directory.glob("checkpoint-??????*/*")


if __name__ == "__main__":
    run_stage("train", work, inputs, outputs)
