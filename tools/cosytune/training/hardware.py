"""The card at hand and the settings -> what `auto` in the settings becomes.

Memory and speed alone: which clips make an update never depends on the card, so a voice is the same on every one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cosytune.errors import UserError
from cosytune.schema import Module, ModuleTrainConfig, TrainConfig

Precision = Literal["fp32", "bf16", "fp16"]
Optim = Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit"]

_FIRST_WITH_BF16 = (8, 0)
"""Compute capability; a V100 (7.0) or T4 (7.5) emulates bf16, slower than fp32."""
_USABLE = 0.8
"""Of a card's memory: the rest is for fragments, and for who else uses it."""
_CUDA_GB = 0.5
_TRAINABLE_BYTES = 16
"""Of an adapter's parameter: itself, its gradient and Adam's two means, fp32."""
_TOKEN_MB: dict[tuple[Module, bool], float] = {
    ("llm", False): 1.5,
    ("llm", True): 0.2,
    ("flow", False): 1.7,
    ("flow", True): 0.25,
}
"""What the backward pass keeps of a token, in half precision, without and with gradient checkpointing. Computed from the
real model's shapes, not measured on a card. Twice as much in fp32."""
_ENOUGH_TOKENS = 2000
"""A whole update of the default size at once."""
_MOST_TOKENS = 8192
_LOW_MEMORY_TOKENS = 500
_ADAPTER_PARAMETERS = 9_000_000
"""Of rank 16 on the real LLM: 8.8 M."""


@dataclass(frozen=True)
class Card:
    """One GPU. `memory_gb`: 10^9 bytes."""

    name: str
    memory_gb: float
    capability: tuple[int, int]


@dataclass(frozen=True)
class Setup:
    """What one module is trained with on this machine. max_tokens_per_batch: padding included."""

    precision: Precision = "fp32"
    max_tokens_per_batch: int = 2000
    gradient_checkpointing: bool = False
    optim: Optim = "adamw_torch"
    num_workers: int = 0
    audio_samples: bool = False


def card(device: str) -> Card | None:
    """The GPU of this process, None where training runs on the CPU. Raises UserError when the one asked for is missing."""
    import torch

    if device == "cpu":
        return None
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
    parameters: int,
    share: float = 1.0,
) -> Setup:
    """What is named in the settings stays; what is auto becomes what the card has room for.

    parameters: of the frozen base. share: of the card's memory, where both modules train side by side.
    Raises UserError for a precision that the machine does not have.
    """
    chosen = _precision(settings, card, f"train.{module}")
    checkpointing = settings.gradient_checkpointing
    if checkpointing == "auto":
        room = _room(module, chosen, False, card, parameters, share)
        checkpointing = low_memory or room < _ENOUGH_TOKENS
    if settings.max_tokens_per_batch != "auto":
        budget = settings.max_tokens_per_batch
    else:
        room = _room(module, chosen, checkpointing, card, parameters, share)
        budget = _LOW_MEMORY_TOKENS if low_memory else max(_LOW_MEMORY_TOKENS, min(_MOST_TOKENS, room))
    workers = settings.dataloader_num_workers
    return Setup(
        precision=chosen,
        max_tokens_per_batch=budget,
        gradient_checkpointing=checkpointing,
        # 8-bit states would save 53 MB of the real LLM's adapters: never worth it by itself
        optim=("adamw_torch" if card is None else "adamw_torch_fused") if settings.optim == "auto" else settings.optim,
        num_workers=(0 if card is None or low_memory else 2) if workers == "auto" else workers,
        audio_samples=not low_memory if train.audio_samples == "auto" else train.audio_samples,
    )


def needs_gb(module: Module, setup: Setup, parameters: int) -> float:
    """Memory of a GPU, by the figures above: base, adapters, activations of one micro-batch, CUDA itself."""
    return _fixed_gb(setup.precision, parameters) + setup.max_tokens_per_batch * _token_gb(
        module, setup.precision, setup.gradient_checkpointing
    )


def _room(
    module: Module, precision: Precision, checkpointing: bool, card: Card | None, parameters: int, share: float
) -> int:
    """Tokens that the memory has room for."""
    if card is None:
        return _ENOUGH_TOKENS
    left_gb = card.memory_gb * _USABLE * share - _fixed_gb(precision, parameters)
    return int(left_gb / _token_gb(module, precision, checkpointing)) // 100 * 100


def _fixed_gb(precision: Precision, parameters: int) -> float:
    width = 4 if precision == "fp32" else 2
    return (parameters * width + _ADAPTER_PARAMETERS * _TRAINABLE_BYTES) / 1e9 + _CUDA_GB


def _token_gb(module: Module, precision: Precision, checkpointing: bool) -> float:
    return _TOKEN_MB[module, checkpointing] / 1e3 * (2 if precision == "fp32" else 1)


def _precision(settings: ModuleTrainConfig, card: Card | None, key: str) -> Precision:
    if settings.bf16 is True:
        if card is not None and card.capability < _FIRST_WITH_BF16:
            raise UserError(f"{key}.bf16 = true: {card.name} has no bf16; set {key}.bf16=auto, which takes fp16 there")
        return "bf16"
    if settings.fp16 is True:
        if card is None:
            raise UserError(f"{key}.fp16 = true: only a GPU can; set {key}.fp16=auto")
        return "fp16"
    if card is None or (settings.bf16 is False and settings.fp16 is False):
        return "fp32"
    if card.capability >= _FIRST_WITH_BF16 and settings.bf16 == "auto":
        return "bf16"
    return "fp16" if settings.fp16 == "auto" else "fp32"
