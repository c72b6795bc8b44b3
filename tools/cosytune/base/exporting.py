"""A module and an example of its input -> an ONNX file, as the bases and the judges of our own making are written."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from cosytune import files

_OPSET = 17


def export(
    module: nn.Module,
    example: tuple[torch.Tensor, ...],
    path: Path,
    inputs: list[str],
    output: str,
    dynamic: dict[str, dict[int, str]],
    rename: Callable[[Path], None] | None = None,
) -> None:
    """Trace the module over the example and write it, whole or not at all; `dynamic`: name -> axis -> its name.

    `rename` changes the file before it is in its place.
    """
    with files.atomic_path(path) as temporary, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer, of shapes that it keeps as numbers: batch 1, as upstream's
        torch.onnx.export(
            module.eval(),
            example,
            temporary,
            input_names=inputs,
            output_names=[output],
            dynamic_axes=dynamic,
            opset_version=_OPSET,
            dynamo=False,
        )
        if rename is not None:
            rename(temporary)
