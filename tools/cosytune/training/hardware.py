"""The card at hand and the settings -> what `auto` in the settings becomes.

Only memory, precision and speed are settled here. Which clips make an update is `tokens_per_update`, which the settings
and the corpus decide alone (plan.py), so that what is learned is the same on every card.

Bytes that a forward pass keeps for the backward pass were counted, with torch's saved_tensors_hooks, on the real shapes
with default adapters under bf16 autocast on a CPU (the estimator's attention as the GPU's kernels keep it: queries,
keys, values, result). Everything else is computed. None of it was measured on a GPU; where it is too little, the
trainer cuts the batches further.

    LLM   2.6 MB a token, which recomputing.py halves (not taken into account here); 0.09 with checkpointing, and 0.11
          of the block at work
    flow  4.2 MB a token in clips of 30 s (3.4 in short ones: upstream's encoder keeps its attention weights); 0.06 with
          checkpointing, and 0.25 of the block at work

Low memory, clips of up to 1000 tokens (30 s), base in half precision, gradients of activations 15 %, in GB:

    LLM   1.01 base + 0.14 adapters, gradients, Adam + 1000 tokens x 0.23 MB + 0.70 CUDA and logits = 2.1
    flow  0.23 base + 0.14                           + 1000 tokens x 0.36 MB + 0.70                 = 1.4

So each fits into 80 % of a card of 4 GB, one after the other, and into 6 GB with room for a desktop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cosytune.errors import UserError
from cosytune.schema import Module, ModuleTrainConfig, TrainConfig

Precision = Literal["fp32", "bf16", "fp16"]
Optim = Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit"]

USABLE = 0.8
"""Of a card's memory: the rest is for fragments, the desktop, and clips that are longer than others."""
LONGEST_CLIP = 1000
"""Tokens of 30 s of speech (750) and their text. A longer budget than the clip's is not needed, a shorter one gives
way."""

_BF16_FROM = (8, 0)
_MOST, _ENOUGH, _FEWEST, _ON_CPU, _LOW_MEMORY = 8192, 2000, 500, 2000, 500
"""Tokens of a micro-batch."""
_KEPT_MB = {"llm": (2.6, 0.20), "flow": (4.2, 0.31)}
"""MB a token, in half precision: kept for the backward pass; with checkpointing, the block at work included."""
_IN_FP32 = 1.6
"""Times as much (counted on the LLM: 1.54)."""
_ON_THE_WAY = 1.15
"""Gradients of activations, which the backward pass makes and drops."""
_CUDA_GB, _LOGITS_GB = 0.5, 0.2
_ADAPTER_BYTES = {"adamw_torch": 16, "adamw_torch_fused": 16, "adamw_8bit": 10}
"""Of each parameter that trains: weight and gradient in fp32, and the optimizer's two averages."""
_RANK_16 = 9_000_000
"""Parameters that train at rank 16, about: 8.8 million in the LLM, 6.5 in the flow."""


@dataclass(frozen=True)
class Setup:
    """What one module is trained with on this machine. max_tokens_per_batch: padding included."""

    precision: Precision = "fp32"
    max_tokens_per_batch: int = 2000
    gradient_checkpointing: bool = False
    optim: Optim = "adamw_torch"
    num_workers: int = 0
    audio_samples: bool = False


@dataclass(frozen=True)
class Card:
    """One GPU. memory_gb: all of it, 1 GB = 10^9 bytes. capability: compute capability, (8, 6) for an RTX 3060."""

    name: str
    memory_gb: float
    capability: tuple[int, int]

    @property
    def has_bf16(self) -> bool:
        return self.capability >= _BF16_FROM


def card(device: str) -> Card | None:
    """The GPU of this process, None for a CPU. `device`: auto, cpu or cuda. Raises UserError for a GPU that is none."""
    if device == "cpu":
        return None
    import torch

    if not torch.cuda.is_available():
        if device == "cuda":
            raise UserError("device = cuda: torch sees no GPU; see python -m cosytune.doctor, or set device=auto")
        return None
    found = torch.cuda.get_device_properties(torch.cuda.current_device())
    return Card(found.name, found.total_memory / 1e9, (found.major, found.minor))


def settle(
    module: Module,
    settings: ModuleTrainConfig,
    train: TrainConfig,
    low_memory: bool,
    card: Card | None,
    base_parameters: int,
    share: float = 1.0,
    trained_parameters: int = _RANK_16,
) -> Setup:
    """Give every `auto` its value; what is set stays. `card`: None for a CPU; `share`: of its memory, for this module.

    base_parameters: frozen ones of the module; trained_parameters: the adapters'. Raises UserError for a precision that
    the card, or a CPU, does not have.
    """
    precision = _precision(f"train.{module}", settings, card)
    automatic: Optim = "adamw_torch_fused" if card else "adamw_torch"
    optim: Optim = automatic if settings.optim == "auto" else settings.optim
    room_gb = 0.0
    if card:
        fixed_gb = _fixed_gb(precision, optim, base_parameters, trained_parameters)
        room_gb = USABLE * share * card.memory_gb - fixed_gb
    checkpointing = settings.gradient_checkpointing
    if checkpointing == "auto":
        checkpointing = low_memory or (card is not None and not _has_room(module, precision, settings, room_gb))
    budget = settings.max_tokens_per_batch
    if budget == "auto":
        budget = _budget(low_memory, card, room_gb, _mb_per_token(module, precision, checkpointing))
    workers, samples = settings.dataloader_num_workers, train.audio_samples
    if workers == "auto":
        workers = 2 if card and not low_memory else 0
    return Setup(precision, budget, checkpointing, optim, workers, not low_memory if samples == "auto" else samples)


def needs_gb(
    module: Module,
    setup: Setup,
    base_parameters: int,
    trained_parameters: int = _RANK_16,
    longest_clip: int = LONGEST_CLIP,
) -> float:
    """Memory of the card that the module takes up at most while it trains, as far as it can be computed.

    Two modules have room side by side where the sum of theirs is below USABLE times what is free. `longest_clip`, in
    tokens, is a micro-batch of its own where it does not fit into the budget.
    """
    tokens = max(setup.max_tokens_per_batch, longest_clip)
    fixed_gb = _fixed_gb(setup.precision, setup.optim, base_parameters, trained_parameters)
    return fixed_gb + tokens * _mb_per_token(module, setup.precision, setup.gradient_checkpointing) / 1e3


def _precision(key: str, settings: ModuleTrainConfig, card: Card | None) -> Precision:
    bf16, fp16 = settings.bf16, settings.fp16
    if card is None:
        if fp16 is True:
            raise UserError(f"{key}.fp16 = true: only a GPU can; set {key}.fp16=auto")
        return "bf16" if bf16 is True else "fp32"
    if bf16 is True and not card.has_bf16:
        capability = ".".join(map(str, card.capability))
        raise UserError(
            f"{key}.bf16 = true: {card.name} has compute capability {capability}, where bf16 (from 8.0 up) is emulated "
            f"and slower than fp32; set {key}.bf16=false {key}.fp16=true"
        )
    if bf16 is True or fp16 is True:
        return "bf16" if bf16 is True else "fp16"
    if bf16 == "auto" and card.has_bf16:
        return "bf16"
    return "fp16" if fp16 == "auto" else "fp32"


def _has_room(module: Module, precision: Precision, settings: ModuleTrainConfig, room_gb: float) -> bool:
    """Whether the batch that is asked for, or one of a good size, fits without checkpointing."""
    wanted = _ENOUGH if settings.max_tokens_per_batch == "auto" else settings.max_tokens_per_batch
    return wanted * _mb_per_token(module, precision, checkpointing=False) / 1e3 <= room_gb


def _budget(low_memory: bool, card: Card | None, room_gb: float, mb_per_token: float) -> int:
    if low_memory:
        return _LOW_MEMORY
    if card is None:
        return _ON_CPU
    return max(_FEWEST, min(_MOST, int(room_gb * 1e3 / mb_per_token)))


def _mb_per_token(module: Module, precision: Precision, checkpointing: bool) -> float:
    return _KEPT_MB[module][checkpointing] * _ON_THE_WAY * (_IN_FP32 if precision == "fp32" else 1)


def _fixed_gb(precision: Precision, optim: Optim, base_parameters: int, trained_parameters: int) -> float:
    """What does not grow with the batch. The frozen base is in half precision unless training is not."""
    base_gb = base_parameters * (4 if precision == "fp32" else 2) / 1e9
    return base_gb + trained_parameters * _ADAPTER_BYTES[optim] / 1e9 + _CUDA_GB + _LOGITS_GB
