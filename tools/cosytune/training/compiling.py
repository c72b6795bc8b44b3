"""A model with adapters -> the same one with its blocks compiled by torch.compile (`torch_compile: true`)."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import torch

from cosytune.errors import UserError
from cosytune.training.checkpointing import blocks

if TYPE_CHECKING:
    from peft import PeftModel


def compiled(model: PeftModel, name: str, backend: str = "inductor") -> None:
    """Compile each block of the module `name` (llm, flow), for any length; the first updates take minutes.

    Before `checkpointing.enable`. Dropout draws other numbers than without it. Raises UserError where the compiler that
    the kernels need is missing.
    """
    if backend == "inductor" and not (shutil.which("g++") or shutil.which("clang++")):
        raise UserError(
            f"train.{name}.torch_compile: no C++ compiler is installed; install g++, "
            f"or set train.{name}.torch_compile=false"
        )
    for block in blocks(model, name):
        forward: Any = torch.compile(block.forward, dynamic=True, backend=backend)
        block.forward = forward  # not `Module.compile`: checkpointing goes around it
