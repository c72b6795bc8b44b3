"""A packed recipe -> what the training loop needs for one module: the module with fresh adapters, and its features."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosytune import base, families
from cosytune.layout import Layout
from cosytune.schema import Config
from cosytune.training import torchrun

if TYPE_CHECKING:
    from cosytune.training.trainer import Job


def features(layout: Layout) -> list[Path]:
    """The cached features of the training and the cross-validation clips."""
    return [layout.parquet / split / "features.arrow" for split in ("train", "cv")]


def weights(config: Config, name: str) -> str:
    """The file in the base model's directory that holds the module."""
    family = families.get(config.model)
    return {"llm": family.llm, "flow": family.flow}[name]


def make(config: Config, layout: Layout, name: str) -> Job:
    """The module `name` (llm, flow) on the CPU, to be trained by this process."""
    from cosytune.features import cache
    from cosytune.training import adapters, tasks, trainer
    from cosytune.training.hardware import Setup
    from cosytune.upstream import bridge

    model_dir, family = base.locate(config), families.get(config.model)
    settings, lora = getattr(config.train, name), getattr(config.lora, name)
    module: Any = {"llm": bridge.build_llm, "flow": bridge.build_flow}[name](model_dir, family)
    task = (
        tasks.LlmTask(settings, family) if name == "llm" else tasks.FlowTask(settings, module.decoder.training_cfg_rate)
    )
    model = adapters.attach(module, lora, family.lora_targets[name], config.seed)
    if torchrun.rank() == 0:
        print(adapters.describe(model, name))
    _take_gpu()
    train, cv = (cache.open(path) for path in features(layout))
    seed = config.seed if settings.seed is None else settings.seed
    return trainer.Job(name, layout.module(name), model, task, settings, Setup(), seed, config.device, train, cv)


def run(config: Config, layout: Layout, names: Iterable[str]) -> None:
    """Train the modules in this process, one after the other; raises signals.Stopped after a signal."""
    from cosytune.training import trainer

    for name in names:
        trainer.train(make(config, layout, name))
        gc.collect()  # the next module needs the room


def _take_gpu() -> None:
    """Each rank has a GPU of its own."""
    import torch

    if torchrun.is_at_work() and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
