"""The two ONNX models of the full-random base: the real sizes and costs, random weights.

The speech tokenizer is the real architecture (S3TokenizerV2 of the package s3tokenizer), exported. The speaker encoder
is not CAM++ but a plain time-delay network with about as many parameters (7.1 million).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cosytune.base import exporting
from cosytune.families import Family

_STATES, _HEADS, _LAYERS = 1280, 20, 6
"""Of the real speech tokenizer's encoder: 124 million parameters."""
_WIDTHS = ((5, 512), (5, 512), (5, 512), (5, 512), (5, 512), (3, 512), (1, 1024))
"""Kernel and channels of the speaker encoder's layers."""


def write_speech_tokenizer(path: Path, seed: int, layers: int = _LAYERS, states: int = _STATES) -> None:
    """Inputs and output as the random one's: feats [1, 128, T], feats_length [1] -> indices [1, ceil(T / 4)]."""
    torch.manual_seed(seed)
    example = torch.zeros(1, 128, 400), torch.tensor([400], dtype=torch.int32)
    with _rotary_in_real_numbers():
        exporting.export(
            _SpeechTokenizer(layers, states),
            example,
            path,
            inputs=["feats", "feats_length"],
            output="indices",
            dynamic={"feats": {2: "T"}, "indices": {1: "tokens"}},
            rename=_name_as_published,
        )


def write_speaker_encoder(path: Path, family: Family, seed: int) -> None:
    """Inputs and output as the random one's: input [1, frames, 80] -> output [1, 192]."""
    torch.manual_seed(seed)
    bins = family.mel.num_mels
    exporting.export(
        _SpeakerEncoder(bins, family.speaker_embedding_size),
        (torch.randn(1, 200, bins),),
        path,
        inputs=["input"],
        output="output",
        dynamic={"input": {1: "frames"}},
    )


class _SpeechTokenizer(nn.Module):
    """S3TokenizerV2 for one clip of at most 30 s, without its Python loop over longer ones."""

    def __init__(self, layers: int, states: int) -> None:
        super().__init__()
        from s3tokenizer.model_v2 import ModelConfig, S3TokenizerV2

        heads = states * _HEADS // _STATES  # 64 channels a head, which the rotary table is made for
        config = ModelConfig(n_audio_state=states, n_audio_head=heads, n_audio_layer=layers)
        self.tokenizer: Any = S3TokenizerV2("speech_tokenizer_v2_25hz", config)
        # The published file projects [1, tokens, states] by MatMul and Add; flattened first, it would be a Gemm.
        self.tokenizer.quantizer._codebook.preprocess = lambda hidden: hidden

    def forward(self, mel: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.tokenizer.encoder(mel, length)
        codes: torch.Tensor = self.tokenizer.quantizer._codebook.encode(hidden)
        return codes


class _SpeakerEncoder(nn.Module):
    """Time-delay layers, then mean and spread over time, then one matrix."""

    def __init__(self, bins: int, size: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = bins
        for kernel, width in _WIDTHS:
            layers += [nn.Conv1d(channels, width, kernel, padding=kernel // 2), nn.ReLU()]
            channels = width
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(2 * channels, size)

    def forward(self, banks: torch.Tensor) -> torch.Tensor:
        hidden = self.layers(banks.transpose(1, 2))
        mean = hidden.mean(dim=2)
        spread = ((hidden - mean.unsqueeze(2)) ** 2).mean(dim=2).sqrt()
        embedding: torch.Tensor = self.head(torch.cat([mean, spread], dim=1))
        return embedding


@contextlib.contextmanager
def _rotary_in_real_numbers() -> Iterator[None]:
    """s3tokenizer keeps its rotary table as complex numbers, which ONNX lacks: the same rotation by cosine and sine."""
    from s3tokenizer import model_v2

    def table(width: int, length: int) -> torch.Tensor:
        """Cosines and sines, float32 [length, width, 2]: each angle stands twice, for both halves of a head."""
        steps = torch.arange(0, width, 2).float() / width
        angles = torch.outer(torch.arange(length).float(), 10000.0**-steps)
        return torch.stack([angles.cos(), angles.sin()], dim=-1).repeat(1, 2, 1)

    def rotate(queries: torch.Tensor, keys: torch.Tensor, freqs_cis: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cosine, sine = (freqs_cis[None, :, None, :, part] for part in (0, 1))

        def turned(x: torch.Tensor) -> torch.Tensor:
            first, second = x.chunk(2, dim=-1)
            return x * cosine + torch.cat([-second, first], dim=-1) * sine

        return turned(queries), turned(keys)

    originals = model_v2.precompute_freqs_cis, model_v2.apply_rotary_emb, torch.view_as_real
    model_v2.precompute_freqs_cis, model_v2.apply_rotary_emb = table, rotate
    torch.view_as_real = lambda table: table  # type: ignore[assignment]  # of a value that nobody reads
    try:
        yield
    finally:
        model_v2.precompute_freqs_cis, model_v2.apply_rotary_emb, torch.view_as_real = originals


def _name_as_published(path: Path) -> None:
    """Give nodes and weights the names by which s3tokenizer's own reader knows them in the published file."""
    import onnx

    model = onnx.load(path)
    weights = {weight.name for weight in model.graph.initializer}
    # The exporter keeps equal weights (of the layer norms) once and hands them on.
    names = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Identity"}
    names = {copy: weight for copy, weight in names.items() if weight in weights}
    nodes = [node for node in model.graph.node if node.output[0] not in names]
    for node in nodes:
        if node.name.startswith(("/encoder/blocks.", "/encoder/conv")):
            node.name = node.name.removeprefix("/encoder")
        if node.name in ("/conv1/Conv", "/conv2/Conv"):
            layer = node.name.split("/")[1]
            names |= {node.input[1]: f"encoders.{layer}.weight", node.input[2]: f"encoders.{layer}.bias"}
        elif node.name == "/project_down/MatMul":
            names[node.input[1]] = "onnx::MatMul_2536"  # the reader knows this one by its number alone
        elif node.name == "/project_down/Add":
            names |= {name: "quantizer.project_in.bias" for name in node.input if name in weights}
    for node in nodes:
        node.input[:] = [names.get(name, name) for name in node.input]
    for weight in model.graph.initializer:
        weight.name = names.get(weight.name, weight.name)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, path)
