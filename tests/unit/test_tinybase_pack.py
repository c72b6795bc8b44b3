"""The shipped form of weights: back come the same names, shapes and types, nearly the same numbers, or an error."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from cosytune.tinybase import pack


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    weight = torch.randn(64, 96) * torch.linspace(0.001, 3, 64).unsqueeze(1)
    weight[5] = 0.0
    return {
        "layer.weight": weight,
        "layer.bias": torch.randn(64),
        "tied.weight": weight,
        "conv.weight": torch.randn(48, 32, 5).transpose(0, 1),
        "lstm.weight": torch.randn(2, 128, 32),
        "long": torch.randn(5000),
        "nothing": torch.zeros(1, 0),
        "scalar": torch.tensor(0.1),
        "half": torch.randn(7, dtype=torch.bfloat16),
        "large half": torch.randn(64, 64, dtype=torch.bfloat16),
        "ids": torch.arange(5000).reshape(50, 100),
        "flags": torch.tensor([True, False, True]),
    }


def row_errors(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """The largest error of each row, in steps of 1 / 127 of its largest number."""
    largest = wanted.abs().amax(dim=-1).clamp(min=1e-6)
    return (found - wanted).abs().amax(dim=-1) / largest * 127


@pytest.mark.parametrize(("bits", "most"), [(8, 0.6), (6, 2.5), (16, 0.1)])
def test_what_is_packed_comes_back(bits: int, most: float):
    given = tensors()
    back = pack.unpack(pack.pack(given, bits))
    assert list(back) == list(given)
    for name, value in given.items():
        assert (back[name].shape, back[name].dtype) == (value.shape, value.dtype), name
    for name in ("layer.bias", "long", "nothing", "scalar", "half", "ids", "flags"):
        assert torch.equal(back[name], given[name]), name
    for name in ("layer.weight", "tied.weight", "lstm.weight"):
        assert row_errors(back[name], given[name]).max() <= most, name
    assert torch.equal(back["layer.weight"][5], torch.zeros(96))
    assert (back["large half"] - given["large half"]).abs().max() < 0.2
    back["tied.weight"] += 1  # storage of its own
    assert row_errors(back["layer.weight"], given["layer.weight"]).max() <= most


def test_packing_is_small_and_the_same_every_time():
    given = {"a": torch.randn(512, 512, generator=torch.Generator().manual_seed(1))}
    packed = pack.pack(given)
    assert packed == pack.pack({"a": given["a"].T.contiguous().T})
    assert len(packed) < 0.98 * 512 * 512
    assert len(pack.pack(given, 6)) < 0.74 * 512 * 512
    assert len(pack.pack(given | {"b": given["a"].clone()})) < len(packed) + 200  # tied weights stand once


def test_rules_by_name():
    given = {f"{part}.weight": torch.randn(64, 64) for part in ("first", "second", "third")}
    rules = {r"first\..*": 32, r"sec.*": 16, r".*": 4}
    back = pack.unpack(pack.pack(given, 8, rules))
    assert torch.equal(back["first.weight"], given["first.weight"])
    assert torch.equal(back["second.weight"], given["second.weight"].half().float())
    assert len(back["third.weight"][0].unique()) <= 15
    with pytest.raises(ValueError, match=r"first\.weight: 9 bits"):
        pack.pack(given, 9)


def test_what_is_not_finite_is_refused():
    for number in (float("nan"), float("inf"), 1e30):
        with pytest.raises(ValueError, match="bad: too large for fp16, or not finite"):
            pack.pack({"bad": torch.full((64, 64), number)})


def test_damage_is_said():
    packed = pack.pack(tensors())
    for place in range(0, len(packed), max(1, len(packed) // 40)):
        spoilt = bytearray(packed)
        spoilt[place] ^= 0x10
        with pytest.raises(pack.DamagedError):
            pack.unpack(bytes(spoilt))
    for other in (b"", packed[:-1], packed[: len(packed) // 2], packed + b"x", b"no archive", lzma.compress(b"{}\n")):
        with pytest.raises(pack.DamagedError):
            pack.unpack(other)
    header, _, body = lzma.decompress(packed).partition(b"\n")
    for changed in (
        header.replace(b'"format":1', b'"format":2') + b"\n" + body,
        header.replace(b"[64,96]", b"[64,97]") + b"\n" + body,
        header.replace(b'"float32"', b'"float31"') + b"\n" + body,
        header + b"\n" + body[:-5],
    ):
        with pytest.raises(pack.DamagedError):
            pack.unpack(lzma.compress(changed))


class Graph(nn.Module):
    """A convolution, an LSTM and two matrices: what an encoder has."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(40, 64, 5, padding=2)
        self.lstm = nn.LSTM(64, 32, bidirectional=True, batch_first=True)
        self.linear = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 16))

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.linear(self.lstm(self.conv(sound).transpose(1, 2))[0])
        return found


@pytest.mark.filterwarnings("ignore")  # the exporter's, of an LSTM with one row
def test_a_graph_runs_as_before(tmp_path: Path):
    torch.manual_seed(3)
    path, again = tmp_path / "model.onnx", tmp_path / "again.onnx"
    torch.onnx.export(
        Graph().eval(),
        (torch.randn(1, 40, 30),),
        str(path),
        input_names=["sound"],
        dynamic_axes={"sound": {2: "frames"}},
        opset_version=17,
        dynamo=False,
    )
    packed = pack.pack_onnx(path)
    assert packed == pack.pack_onnx(path)
    assert len(packed) < 0.4 * path.stat().st_size
    again.write_bytes(pack.unpack_onnx(packed))
    said = [
        onnxruntime.InferenceSession(str(one), providers=["CPUExecutionProvider"]).run(
            None, {"sound": np.random.default_rng(1).standard_normal((1, 40, 50)).astype(np.float32)}
        )[0]
        for one in (path, again)
    ]
    assert np.abs(said[0] - said[1]).max() < 0.03 * np.abs(said[0]).max()
    exact = pack.unpack_onnx(pack.pack_onnx(path, rules={".*": 32}))
    again.write_bytes(exact)
    assert pack.pack_onnx(again, 32) == pack.pack_onnx(path, 32)
    with pytest.raises(pack.DamagedError):
        pack.unpack_onnx(pack.pack({"a": torch.zeros(3)}))
