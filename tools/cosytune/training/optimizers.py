"""The settings -> AdamW in the kind that was settled, and its learning rate's schedule."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from cosytune.schema import ModuleTrainConfig
from cosytune.training.hardware import Optim


def make(parameters: list[nn.Parameter], settings: ModuleTrainConfig, kind: Optim) -> torch.optim.Optimizer:
    """AdamW over these parameters."""
    adam: Any = partial(torch.optim.AdamW, fused=kind == "adamw_torch_fused")
    if kind == "adamw_8bit":
        from bitsandbytes.optim.adamw import AdamW8bit  # 2 s

        adam = AdamW8bit
    made: torch.optim.Optimizer = adam(
        parameters,
        lr=settings.learning_rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_epsilon,
        weight_decay=settings.weight_decay,
    )
    return made


def schedule(optimizer: torch.optim.Optimizer, settings: ModuleTrainConfig, total_updates: int) -> Any:
    """One of transformers' schedules, to be stepped after every update."""
    from transformers.optimization import get_scheduler

    return get_scheduler(
        settings.lr_scheduler_type,
        optimizer,
        num_warmup_steps=settings.warmup_steps or int(settings.warmup_ratio * total_updates),
        num_training_steps=total_updates,
        scheduler_specific_kwargs=dict(settings.lr_scheduler_kwargs),
    )
