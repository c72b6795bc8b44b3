"""CosyTune's training machine on the same clips and the same updates as upstream makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cosytune.families import Family
from cosytune.schema import FlowTrainConfig, LlmTrainConfig, LoraConfig, ModuleTrainConfig
from cosytune.training import adapters, checkpoint, loader, machine, plan, tasks
from cosytune.training.distributed import Ranks
from cosytune.training.draws import Epoch
from cosytune.training.hardware import Setup
from cosytune.training.position import Position
from cosytune.training.tasks import Task

from .corpus import Corpus


@dataclass
class Ours:
    """One module with adapters, as stage 4 trains it."""

    tools: machine.Plain
    task: Task
    workers: int

    def epoch(self, corpus: Corpus, updates: Sequence[Sequence[int]], number: int = 0) -> int:
        """Every clip once, in these updates; returns how many clips were served."""
        epoch, features = Epoch(seed=0, number=number), corpus.features
        lengths = [self.task.length(length) for length in features.lengths]
        budget = self.tools.setup.max_tokens_per_batch
        parts = []
        for clips in updates:
            ranked = sorted(clips, key=lambda index: lengths[index])
            sides = plan.by_coin(ranked, features.utts, lambda utt: self.task.coin(epoch, utt))
            parts.append(plan.within(sides, lengths, budget))
        is_cuda = self.tools.device.type == "cuda"
        outcomes = []
        with loader.load(self.task, features, parts, epoch, self.workers, pin_memory=is_cuda) as made:
            for part in made:
                outcomes.append(self.tools.update(part.micro_batches, lambda: False))
        if not all(outcome.read().is_sound for outcome in outcomes):
            raise RuntimeError("an update was skipped: its loss was not finite")
        return sum(len(clips) for clips in updates)

    def save(self, directory: Path) -> list[Path]:
        """A checkpoint of stage 4: adapter, optimizer, schedule, random state, position, sha256 of each; fsynced."""
        contents = self.tools.contents(asdict(Position()))
        made = checkpoint.write(directory, contents, update=1, epoch=1, cv_loss=1.0, train_loss=1.0)
        return sorted(made.path.iterdir())


def build(
    module: nn.Module,
    name: str,
    family: Family,
    device: torch.device,
    max_tokens_per_batch: int,
    gradient_checkpointing: bool = False,
) -> Ours:
    """Adapters of the default settings on a module, and what trains them."""
    kind: type[ModuleTrainConfig] = LlmTrainConfig if name == "llm" else FlowTrainConfig
    settings = kind(lr_scheduler_type="constant", warmup_ratio=0.0)  # upstream's constantlr
    setup = setup_for(device, max_tokens_per_batch, gradient_checkpointing)
    model = adapters.attach(module, LoraConfig(), family.lora_targets[name], seed=0)
    task = make_task(settings, family)
    tools = machine.assemble(model, task.loss, settings, setup, total_updates=100, device=device, ranks=Ranks())
    return Ours(tools, task, setup.num_workers)


def setup_for(device: torch.device, max_tokens_per_batch: int, gradient_checkpointing: bool = False) -> Setup:
    """What stage 4 settles on a card of capability 8.0 or above, and on a CPU."""
    is_cuda = device.type == "cuda"
    return Setup(
        precision="bf16" if is_cuda else "fp32",
        max_tokens_per_batch=max_tokens_per_batch,
        gradient_checkpointing=gradient_checkpointing,
        optim="adamw_torch_fused" if is_cuda else "adamw_torch",
        num_workers=2 if is_cuda else 0,
        audio_samples=False,
    )


def make_task(settings: Any, family: Family) -> Task:
    """With the guidance dropout of upstream's configuration."""
    if isinstance(settings, LlmTrainConfig):
        return tasks.LlmTask(settings, family)
    cfm: Any = family.document(family, family.real)["flow"].arguments["decoder"].arguments["cfm_params"]
    return tasks.FlowTask(settings, guidance_dropout=cfm.arguments["content"]["training_cfg_rate"])
