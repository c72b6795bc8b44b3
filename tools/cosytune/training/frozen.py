"""A model with adapters -> the same one with its frozen matrices in half precision; for training under autocast alone.

Autocast rounds the weights of linear and convolutional layers to the same values before it computes, so they cost half
the memory, and no conversion at each step, for the same loss. Embeddings are rounded too. Nothing is exported from such
a model: a voice is merged from the base's file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from peft import PeftModel

_MATRICES = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d)


def halve(model: PeftModel, dtype: torch.dtype) -> None:
    """Cast weights and biases of frozen layers to `dtype` (bfloat16 or float16), in place.

    Adapters, norms and single parameters stay fp32. Every forward pass has to run under autocast to `dtype`, that of
    audio samples too. Tied weights stay tied. Raises ValueError for a dtype that is not half as wide.
    """
    if dtype not in (torch.bfloat16, torch.float16):
        raise ValueError(f"{dtype} is no half precision")
    for layer in model.modules():
        if isinstance(layer, _MATRICES):
            for parameter in layer.parameters(recurse=False):
                if not parameter.requires_grad:
                    parameter.data = parameter.data.to(dtype)


def frozen_bytes(model: nn.Module) -> int:
    """What the parameters that do not train take up, each counted once."""
    return sum(parameter.nbytes for parameter in model.parameters() if not parameter.requires_grad)
