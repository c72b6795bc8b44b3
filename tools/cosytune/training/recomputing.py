"""An LLM with adapters -> the same one, which saves less than half for the backward pass and computes little again.

Selective recomputation: outputs of norms, of the MLP's activation and product, and of LoRA's dropout are not saved but
made again from what is saved anyway, which takes no matrix product. The gradients are the same to the last bit. Where
this is not enough, checkpointing.py keeps less still and computes everything twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

if TYPE_CHECKING:
    from peft import PeftModel

_Key = tuple[Any, ...]


def enable(model: PeftModel, name: str) -> None:
    """Save less in the decoder layers of the LLM; nothing to do for the flow. Not with checkpointing or torch.compile.

    LoRA's dropout draws other numbers than without it. To be called once for a model.
    """
    if name != "llm":
        return
    base: Any = model.get_base_model()
    decoder, kept = base.llm.model.model, _Kept()
    decoder.forward = _Saving(decoder.forward, kept)
    for layer in decoder.layers:
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            norm.register_forward_hook(kept.norm)
        layer.mlp.act_fn = _Activation(layer.mlp.act_fn, kept)
        layer.mlp.up_proj.register_forward_hook(kept.up)
        layer.mlp.down_proj.register_forward_pre_hook(kept.product)
        layer.register_forward_hook(kept.forget)
        for part in layer.modules():
            if hasattr(part, "lora_dropout"):
                part.cast_input_dtype_enabled = False  # autocast casts, or all is fp32; a copy could not be made again
                for key, dropout in part.lora_dropout.items():
                    if isinstance(dropout, nn.Dropout):
                        part.lora_dropout[key] = _Dropout(dropout.p, kept)


@dataclass(frozen=True)
class _Recipe:
    """How a tensor is made again. inputs: tensors that are saved, or recipes of their own. shape: as it was saved."""

    make: Callable[..., torch.Tensor]
    inputs: tuple[torch.Tensor | _Recipe, ...]
    shape: torch.Size

    def __call__(self) -> torch.Tensor:
        made = self.make(*(part() if isinstance(part, _Recipe) else part for part in self.inputs))
        return made.view(self.shape)


@dataclass
class _Kept:
    """Recipes of one layer's tensors, while the layer runs: each tensor is held, so that its address stays its own."""

    recipes: dict[_Key, tuple[_Recipe, torch.Tensor]] = field(default_factory=dict)
    is_on: bool = False
    _activation: nn.Module | None = None
    _gate: torch.Tensor | None = None
    _up: torch.Tensor | None = None

    def add(self, made: torch.Tensor, make: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> None:
        if self.is_on and made.is_contiguous():
            recipe = _Recipe(make, tuple(self.pack(part.detach()) for part in inputs), made.shape)
            self.recipes[_key(made)] = (recipe, made)

    def pack(self, tensor: torch.Tensor) -> torch.Tensor | _Recipe:
        """For autograd: what is saved in a tensor's place."""
        found = self.recipes.get(_key(tensor))
        return tensor if found is None else replace(found[0], shape=tensor.shape)

    def norm(self, norm: nn.Module, arguments: tuple[torch.Tensor], made: torch.Tensor) -> None:
        self.add(made, norm.forward, arguments[0])

    def activated(self, activation: nn.Module, gate: torch.Tensor, made: torch.Tensor) -> None:
        self._activation, self._gate = activation, gate
        self.add(made, activation, gate)

    def up(self, _: nn.Module, __: Any, made: torch.Tensor) -> None:
        self._up = made

    def product(self, _: nn.Module, arguments: tuple[torch.Tensor]) -> None:
        """The input of the down projection: activation(gate) * up."""
        activation, gate, up = self._activation, self._gate, self._up
        if activation is not None and gate is not None and up is not None:
            self.add(arguments[0], lambda gate, up: activation(gate) * up, gate, up)

    def forget(self, *_: Any) -> None:
        self.recipes.clear()
        self._activation = self._gate = self._up = None


class _Saving:
    """The decoder's forward function, with autograd saving recipes where there are any."""

    def __init__(self, forward: Callable[..., Any], kept: _Kept) -> None:
        self._forward, self._kept = forward, kept

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return self._forward(*arguments, **named)
        self._kept.is_on = True
        try:
            with saved_tensors_hooks(self._kept.pack, _unpack):
                return self._forward(*arguments, **named)
        finally:
            self._kept.is_on = False
            self._kept.forget()


class _Activation(nn.Module):
    def __init__(self, activation: nn.Module, kept: _Kept) -> None:
        super().__init__()
        self._inner, self._kept = activation, kept

    def forward(self, gate: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self._inner(gate)
        self._kept.activated(self._inner, gate, made)
        return made


class _Dropout(nn.Module):
    """Dropout whose output is made again from its input and a mask of one byte a value."""

    def __init__(self, p: float, kept: _Kept) -> None:
        super().__init__()
        self.p, self._kept = p, kept

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return x
        mask = torch.empty_like(x, dtype=torch.bool).bernoulli_(1 - self.p)
        dtype, scale = _computed_dtype(x), 1 / (1 - self.p)

        def drop(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return (x * mask * scale).to(dtype)

        made = drop(x, mask)
        self._kept.add(made, drop, x, mask)
        return made


def _computed_dtype(x: torch.Tensor) -> torch.dtype:
    """What autocast gives the matrix product which follows, so that what that saves is the very tensor of a recipe."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _unpack(saved: torch.Tensor | _Recipe) -> torch.Tensor:
    if isinstance(saved, _Recipe):
        with torch.no_grad():
            return saved()
    return saved


def _key(tensor: torch.Tensor) -> _Key:
    """Equal for a contiguous tensor and one of another shape over all of it, which is what matrix products save."""
    return (tensor.data_ptr(), tensor.numel(), tensor.dtype, tensor.is_contiguous())
