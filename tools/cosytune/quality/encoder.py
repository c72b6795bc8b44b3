"""Resemblyzer's weights -> the same speaker encoder as an ONNX graph, which a worker process loads without torch.

The graph is made once, next to the base models. Only the file of weights is used (Apache-2.0, in the package): the
package's own code needs a library that is not installed.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from cosytune import files
from cosytune.layout import PRETRAINED_MODELS

LAYERS, UNITS, MELS, FRAMES = 3, 256, 40, 160

_GRAPH = 1  # a new number whenever `_graph` makes another one

Float = NDArray[np.float32]


@functools.cache
def session() -> Any:
    """For this process, of one thread: `mel` float32 [batch, 160, 40] -> `voice`, unit vectors [batch, 256]."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(ensure()), options, providers=["CPUExecutionProvider"])


def ensure() -> Path:
    """The graph's file, made if it is not there; several processes may ask at once."""
    path = PRETRAINED_MODELS / f"resemblyzer-{importlib.metadata.version('resemblyzer')}-{_GRAPH}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.is_file():
            files.write_bytes(path, _graph(_weights()))
    return path


def _weights() -> dict[str, Float]:
    """What the package's file holds: torch's names and layout."""
    import torch

    found = importlib.util.find_spec("resemblyzer")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("resemblyzer: not installed; run tools/install.sh")
    file = Path(found.submodule_search_locations[0]) / "pretrained.pt"
    state = torch.load(file, map_location="cpu", weights_only=True)["model_state"]
    return {name: value.float().numpy() for name, value in state.items()}


def _graph(weights: dict[str, Float]) -> bytes:
    """LSTM x 3, the last frame's state, linear, ReLU, unit length."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    constants = {"first": np.array([0]), "direction": np.array([1])}
    nodes = [helper.make_node("Transpose", ["mel"], ["layer0"], perm=[1, 0, 2])]
    for layer in range(LAYERS):
        names = [f"W{layer}", f"R{layer}", f"B{layer}"]
        ih, hh = (_gates(weights[f"lstm.weight_{part}_l{layer}"]) for part in ("ih", "hh"))
        biases = [_gates(weights[f"lstm.bias_{part}_l{layer}"]) for part in ("ih", "hh")]
        constants |= dict(zip(names, (ih[None], hh[None], np.concatenate(biases)[None]), strict=True))
        outputs = [f"frames{layer}", f"state{layer}"]
        nodes.append(helper.make_node("LSTM", [f"layer{layer}", *names], outputs, hidden_size=UNITS))
        nodes.append(helper.make_node("Squeeze", [outputs[0], "direction"], [f"layer{layer + 1}"]))
    constants |= {"linear": weights["linear.weight"], "bias": weights["linear.bias"]}
    nodes += [
        helper.make_node("Squeeze", [f"state{LAYERS - 1}", "first"], ["last"]),
        helper.make_node("Gemm", ["last", "linear", "bias"], ["raw"], transB=1),
        helper.make_node("Relu", ["raw"], ["positive"]),
        helper.make_node("LpNormalization", ["positive"], ["voice"], axis=1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "voice_encoder",
        [helper.make_tensor_value_info("mel", TensorProto.FLOAT, ["batch", FRAMES, MELS])],
        [helper.make_tensor_value_info("voice", TensorProto.FLOAT, ["batch", UNITS])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def _gates(values: Float) -> Float:
    """Torch has the gates of an LSTM as input, forget, cell, output; ONNX as input, output, forget, cell."""
    entry, forget, cell, out = np.split(values, 4)
    return np.concatenate([entry, out, forget, cell])
