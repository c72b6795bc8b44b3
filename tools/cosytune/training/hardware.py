"""The card at hand and the settings -> what `auto` in the settings becomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Setup:
    """What one module is trained with on this machine. max_tokens_per_batch: padding included."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    max_tokens_per_batch: int = 2000
    gradient_checkpointing: bool = False
    optim: Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit"] = "adamw_torch"
    num_workers: int = 0
    audio_samples: bool = False
