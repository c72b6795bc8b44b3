"""A packed recipe -> what the training loop needs for one module: the module with fresh adapters, and its features."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cosytune import base, families
from cosytune.families import Family
from cosytune.layout import Layout
from cosytune.schema import Config, Module, ModuleTrainConfig
from cosytune.training import draws, plan, torchrun
from cosytune.training.draws import Epoch
from cosytune.training.plan import MicroBatch, Plan, Update

if TYPE_CHECKING:
    from peft import PeftModel

    from cosytune.features.cache import FeatureCache
    from cosytune.training.hardware import Setup
    from cosytune.training.journal import Journal, Silent
    from cosytune.training.tasks import Task

    Listen = Callable[[PeftModel, int, Journal | Silent, Callable[[], bool]], None]
    """(model, update, journal, should stop): lets some texts be heard."""


@dataclass(frozen=True)
class Job:
    """One module to train. `name` (llm, flow) is its section in the config; `directory` gets what training makes."""

    name: str
    directory: Path
    model: PeftModel
    task: Task
    settings: ModuleTrainConfig
    setup: Setup
    seed: int
    device: str
    train: FeatureCache
    cv: FeatureCache
    distributed: str = "ddp"
    listen: Listen | None = None

    @property
    def key(self) -> str:
        return f"train.{self.name}"

    def plan(self) -> Plan:
        """Raises UserError where there is too little to train on."""
        lengths = self.lengths(self.train)
        return plan.make(self.train.utts, lengths, self.settings, self.setup.max_tokens_per_batch, self.key)

    def updates(self, planned: Plan, epoch: Epoch) -> list[Update]:
        """Those of one epoch."""
        return planned.epoch(epoch, partial(self.task.coin, epoch))

    def cv_batches(self, budget: int) -> list[tuple[MicroBatch, Epoch]]:
        """The cv clips in micro-batches of `budget` tokens, as often as the task draws for them."""
        lengths = self.lengths(self.cv)
        return [
            (indices, epoch)
            for epoch in draws.cv_epochs(self.task.cv_parts)
            for indices in plan.cv_batches(self.cv.utts, lengths, budget, partial(self.task.coin, epoch))
        ]

    def lengths(self, features: FeatureCache) -> list[int]:
        """Of each clip, in tokens."""
        return [self.task.length(length) for length in features.lengths]


def features(layout: Layout) -> list[Path]:
    """The cached features of the training and the cross-validation clips."""
    return [layout.parquet / split / "features.arrow" for split in ("train", "cv")]


def weights(config: Config, name: str) -> str:
    """The file in the base model's directory that holds the module."""
    family = families.get(config.model)
    return {"llm": family.llm, "flow": family.flow}[name]


def make(config: Config, layout: Layout, name: Module, share: float = 1.0) -> Job:
    """The module `name` (llm, flow), to be trained by this process. `share`: of the GPU's memory."""
    from cosytune.features import cache
    from cosytune.training import adapters, hardware, tasks
    from cosytune.upstream import bridge

    _take_gpu()
    model_dir, family = base.locate(config), families.get(config.model)
    settings, lora = getattr(config.train, name), getattr(config.lora, name)
    module: Any = {"llm": bridge.build_llm, "flow": bridge.build_flow}[name](model_dir, family)
    task = (
        tasks.LlmTask(settings, family) if name == "llm" else tasks.FlowTask(settings, module.decoder.training_cfg_rate)
    )
    model = adapters.attach(module, lora, family.lora_targets[name], config.seed)
    if torchrun.rank() == 0:
        print(adapters.describe(model, name))
    card = hardware.card(config.device)
    trained, parameters = adapters.count(model)
    setup = hardware.settle(name, settings, config.train, config.low_memory, card, parameters - trained, share, trained)
    _fit(model, name, setup, settings.torch_compile, lora.use_dora)
    train, cv = (cache.open(path) for path in features(layout))
    seed = config.seed if settings.seed is None else settings.seed
    device = "cpu" if card is None else "cuda"
    return Job(
        name=name,
        directory=layout.module(name),
        model=model,
        task=task,
        settings=settings,
        setup=setup,
        seed=seed,
        device=device,
        train=train,
        cv=cv,
        distributed=config.train.distributed,
        listen=_listener(name, model_dir, family, cv, seed, device, setup) if setup.audio_samples else None,
    )


def _fit(model: PeftModel, name: Module, setup: Setup, torch_compile: bool, use_dora: bool) -> None:
    """Make the model what the card has room and speed for."""
    import torch

    from cosytune.training import checkpointing, compiling, frozen, recomputing

    if setup.precision != "fp32":
        frozen.halve(model, torch.float16 if setup.precision == "fp16" else torch.bfloat16)
    if torch_compile:
        compiling.compiled(model, name)
    if setup.gradient_checkpointing:
        checkpointing.enable(model, name)
    elif not torch_compile and not use_dora:  # 3 % of the time for half of the memory
        recomputing.enable(model, name)


def _listener(
    name: Module, model_dir: Path, family: Family, cv: FeatureCache, seed: int, device: str, setup: Setup
) -> Listen:
    """The first texts of the cv clips, to be heard at every evaluation."""
    import torch

    from cosytune.training import machine, samples

    place = torch.device(device)
    clips = [cv[index] for index in range(min(samples.CLIPS, len(cv)))]
    context = partial(machine.autocast, place, setup.precision)
    return samples.Studio(name, model_dir, family, clips, seed, place, context).listen


def run(config: Config, layout: Layout, names: Iterable[str], share: float = 1.0) -> None:
    """Train the modules in this process, one after the other; raises signals.Stopped after a signal."""
    from cosytune.training import trainer

    for name in names:
        trainer.train(make(config, layout, cast("Module", name), share))
        gc.collect()  # the next module needs the room


def _take_gpu() -> None:
    """Each rank has a GPU of its own."""
    import torch

    if torchrun.is_at_work() and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
