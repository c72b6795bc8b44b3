"""The two small ONNX models of the random base: real graphs whose output depends on the sound, and nothing is trained.

Names, shapes and rates are those of the real files, so that upstream's front end and our own features run on either.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cosytune import files
from cosytune.families import Family

_OPSET, _IR = 17, 8
_MEL_BINS = 128
"""Of the speech tokenizer's input: Whisper's log-mel spectrogram, 100 frames/s."""
_DIGITS = 8
_STRIDE, _KERNEL = 4, 5
# Mean and standard deviation of the first 8 cepstral coefficients of that spectrogram, over speech: measured once on
# synthetic and recorded clips. They only spread the codes; a speaker far from them gets fewer different ones.
_CEPSTRAL_MEAN = (-1.3, 1.6, 0.1, 0.1, -0.4, -0.3, -0.35, -0.25)
_CEPSTRAL_STD = (3.5, 1.6, 1.0, 0.85, 0.72, 0.46, 0.48, 0.46)
_GAIN = 1.28
"""tanh rounds to 0 below 0.55: with this gain the three digits are about equally frequent."""


def write_speech_tokenizer(path: Path, seed: int) -> None:
    """Inputs feats [1, 128, T] float32, feats_length [1] int32 -> indices [1, ceil(T / 4)] int32, 0 to 6560.

    A finite scalar quantizer: 8 mixed cepstral coefficients over 5 frames, 3 levels each, read as a number in base 3.
    """
    weight, bias = _quantizer_weights(seed)
    constants = {
        "start": np.array([0], dtype=np.int64),
        "time_axis": np.array([2], dtype=np.int64),
        "weight": weight,
        "bias": bias,
        "almost_one": np.array(0.999, dtype=np.float32),
        "one": np.array(1.0, dtype=np.float32),
        "powers": (3.0 ** np.arange(_DIGITS)).astype(np.float32).reshape(1, _DIGITS, 1),
        "digit_axis": np.array([1], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["feats_length"], ["end"], to=TensorProto.INT64),
        helper.make_node("Slice", ["feats", "start", "end", "time_axis"], ["cut"]),
        helper.make_node("Conv", ["cut", "weight", "bias"], ["mixed"], strides=[_STRIDE], pads=[_KERNEL // 2] * 2),
        helper.make_node("Tanh", ["mixed"], ["bounded"]),
        helper.make_node("Mul", ["bounded", "almost_one"], ["inside"]),
        helper.make_node("Round", ["inside"], ["level"]),
        helper.make_node("Add", ["level", "one"], ["digit"]),
        helper.make_node("Mul", ["digit", "powers"], ["valued"]),
        helper.make_node("ReduceSum", ["valued", "digit_axis"], ["code"], keepdims=0),
        helper.make_node("Cast", ["code"], ["indices"], to=TensorProto.INT32),
    ]
    inputs = [
        helper.make_tensor_value_info("feats", TensorProto.FLOAT, [1, _MEL_BINS, "T"]),
        helper.make_tensor_value_info("feats_length", TensorProto.INT32, [1]),
    ]
    outputs = [helper.make_tensor_value_info("indices", TensorProto.INT32, [1, "tokens"])]
    _write(path, "speech_tokenizer", nodes, inputs, outputs, constants)


def write_speaker_encoder(path: Path, family: Family, seed: int) -> None:
    """Filter banks without their mean, input [1, frames, 80] float32 -> output [1, 192] float32.

    The spread of each bin over time, as a shape (log, mean over the bins removed), through a random matrix: near for
    clips of one speaker, further apart for two.
    """
    bins, size = family.mel.num_mels, family.speaker_embedding_size
    matrix = np.random.default_rng(seed).standard_normal((bins, size)) / np.sqrt(bins)
    constants = {
        "floor": np.array(1e-3, dtype=np.float32),
        "matrix": matrix.astype(np.float32),
    }
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Sub", ["input", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "centred"], ["squared"]),
        helper.make_node("ReduceMean", ["squared"], ["variance"], axes=[1], keepdims=0),
        helper.make_node("Sqrt", ["variance"], ["spread"]),
        helper.make_node("Add", ["spread", "floor"], ["positive"]),
        helper.make_node("Log", ["positive"], ["log_spread"]),
        helper.make_node("ReduceMean", ["log_spread"], ["level"], axes=[1], keepdims=1),
        helper.make_node("Sub", ["log_spread", "level"], ["shape"]),
        helper.make_node("MatMul", ["shape", "matrix"], ["output"]),
    ]
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, "frames", bins])]
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, size])]
    _write(path, "speaker_encoder", nodes, inputs, outputs, constants)


def _quantizer_weights(seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Conv weight [8, 128, 5] and bias [8]: cosine transform, whitening, a random rotation, the mean over 5 frames."""
    positions = (np.arange(_MEL_BINS) + 0.5) / _MEL_BINS
    cosines = np.cos(np.pi * np.arange(_DIGITS)[:, None] * positions[None, :])
    cosines /= np.linalg.norm(cosines, axis=1, keepdims=True)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((_DIGITS, _DIGITS)))
    whitening = _GAIN * rotation / np.array(_CEPSTRAL_STD)
    weight = np.repeat((whitening @ cosines)[:, :, None], _KERNEL, axis=2) / _KERNEL
    return weight.astype(np.float32), (-whitening @ np.array(_CEPSTRAL_MEAN)).astype(np.float32)


def _write(
    path: Path,
    name: str,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: dict[str, np.ndarray[Any, Any]],
) -> None:
    initializers = [numpy_helper.from_array(value, key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    model.producer_name = "cosytune"
    onnx.checker.check_model(model)
    files.write_bytes(path, model.SerializeToString(deterministic=True))
