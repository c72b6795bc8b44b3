"""What `make` left in a directory -> the few files that are shipped; an ONNX file -> a few bytes, and back.

    from cosytune.tinybase import pack
    pack.ship(Path("tinybase"))

How tensors become bytes stands in `codec`; how the base is made from the files, in `cosytune.base.shipped`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cosytune import files
from cosytune.base import shipped
from cosytune.errors import UserError
from cosytune.tinybase.codec import FEWEST, DamagedError, pack, unpack

__all__ = ["DamagedError", "pack", "pack_onnx", "ship", "unpack", "unpack_onnx"]

_GRAPH = "graph"
_INITIALIZER = "initializer "
_TENSORS = {shipped.LLM: "llm", shipped.FLOW: "flow", shipped.VOCODER: "vocoder"}
_GRAPHS = {
    shipped.SPEECH_TOKENIZER: "tokenizer",
    shipped.SPEAKER_ENCODER: "speaker_encoder",
    shipped.KANA: "recogniser",
    shipped.VERIFIER: "verifier",
}
"""Shipped file -> the part, which `make` leaves in a directory of its name."""
RULES: Mapping[str, Mapping[str, int]] = {
    "flow": {".*": 7},  # so that all of it stays below the limit
    "tokenizer": {".*": 16},  # a digit that rounds to another level is another code than the LLM learned from
}
"""Part -> rules of `pack`, where 8 bits are too few or too many."""
MOST_BYTES = 25_000_000
"""Of all shipped files together: a repository is no store for weights."""


def ship(
    making: Path,
    destination: Path | None = None,
    figures: Mapping[str, Any] | None = None,
    rules: Mapping[str, Mapping[str, int]] = RULES,
) -> dict[str, int]:
    """Pack what `make` left in `making` into `destination`, where the tiny base is made from; returns the sizes.

    `figures`: what was measured, kept in weights.json. Raises UserError when a part was not made or all is too large.
    """
    sources = {name: making / part / "weights.pt" for name, part in _TENSORS.items()}
    sources |= {name: making / part / "model.onnx" for name, part in _GRAPHS.items()}
    if missing := [path for path in sources.values() if not path.is_file()]:
        remedy = "make this part first: python -m cosytune.tinybase make --only"
        raise UserError(*(f"{path}: missing; {remedy} {path.parent.name}" for path in missing))
    packed = {name: pack(files.read_torch(sources[name]), rules=rules.get(part)) for name, part in _TENSORS.items()}
    packed |= {name: pack_onnx(sources[name], rules=rules.get(part)) for name, part in _GRAPHS.items()}
    sizes = {name: len(packed[name]) for name in shipped.NAMES}
    if (total := sum(sizes.values())) > MOST_BYTES:
        raise UserError(f"{total:,} bytes, {MOST_BYTES:,} may be shipped: {sizes}; give fewer bits by a rule")
    destination = destination or shipped.DIRECTORY
    for name in shipped.NAMES:
        files.write_bytes(destination / name, packed[name])
    entries = {name: {"size": size, "sha256": files.sha256(destination / name)} for name, size in sizes.items()}
    value = {"format": shipped.FORMAT, "what": shipped.WHAT, "figures": dict(figures or {}), "files": entries}
    files.write_json(destination / shipped.MANIFEST, value)
    return sizes


def pack_onnx(path: Path, bits: int = 8, rules: Mapping[str, int] | None = None) -> bytes:
    """An ONNX file; its large float32 initialisers, by their names, as in `pack`."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    tensors: dict[str, Tensor] = {}
    for weight in model.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT and np.prod(weight.dims) >= FEWEST:
            tensors[_INITIALIZER + weight.name] = torch.from_numpy(numpy_helper.to_array(weight).copy())
            weight.ClearField("raw_data")
            weight.ClearField("float_data")
    graph = np.frombuffer(model.SerializeToString(deterministic=True), dtype=np.uint8).copy()
    named = {re.escape(_INITIALIZER) + f"(?:{pattern})": width for pattern, width in (rules or {}).items()}
    return pack({_GRAPH: torch.from_numpy(graph), **tensors}, bits, named)


def unpack_onnx(data: bytes) -> bytes:
    """The ONNX file, its initialisers float32 again. Raises DamagedError."""
    import onnx
    from google.protobuf.message import DecodeError

    tensors = unpack(data)
    try:
        model = onnx.load_from_string(tensors.pop(_GRAPH).numpy().tobytes())
        for weight in model.graph.initializer:
            if (value := tensors.pop(_INITIALIZER + weight.name, None)) is not None:
                weight.raw_data = value.numpy().tobytes()
    except (KeyError, DecodeError) as failure:
        raise DamagedError(f"no ONNX model: {failure}") from None
    if tensors:
        raise DamagedError(f"weights that the graph does not have: {', '.join(tensors)}")
    content: bytes = model.SerializeToString(deterministic=True)
    return content
