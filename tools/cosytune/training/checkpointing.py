"""A model with adapters -> the same one, whose blocks keep their inputs alone and compute again in the backward pass.

PyTorch's activation checkpointing, block by block: about a third more computing for a fraction of the memory. The
gradients are the same to the last bit, dropout included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from peft import PeftModel


def enable(model: PeftModel, name: str) -> None:
    """Checkpoint every block of the module `name` (llm, flow) while it trains. After `compiling.compiled`, if at all.

    Nothing changes in eval mode or without gradients. A second call changes nothing.
    """
    for block in blocks(model, name):
        if not isinstance(block.forward, _Checkpointed):
            block.forward = _Checkpointed(block, block.forward)


def blocks(model: PeftModel, name: str) -> Iterator[nn.Module]:
    """The large repeated parts: the LLM's decoder layers, the flow's encoder layers and the estimator's blocks.

    None of them makes a mask, so what `bridge.shared_masks` puts in place is not missed in the backward pass.
    """
    base: Any = model.get_base_model()
    if name == "llm":
        yield from base.llm.model.model.layers
        return
    yield from base.encoder.encoders
    yield from base.encoder.up_encoders
    estimator = base.decoder.estimator
    for resnet, transformers, *_ in (*estimator.down_blocks, *estimator.mid_blocks, *estimator.up_blocks):
        yield resnet
        yield from transformers


class _Checkpointed:
    """A block's forward function, the block's own or a compiled one, with what it saves left out."""

    def __init__(self, block: nn.Module, forward: Callable[..., Any]) -> None:
        self._block, self._forward = block, forward

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if not (self._block.training and torch.is_grad_enabled()):
            return self._forward(*arguments, **named)
        return checkpoint(self._forward, *arguments, use_reentrant=False, **named)
