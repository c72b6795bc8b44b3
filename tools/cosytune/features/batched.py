"""The speech tokenizer's ONNX file -> the same network in torch (S3Tokenizer), which takes many clips at a time.

For GPUs: there one clip at a time leaves the card idle. On a CPU the ONNX graph already runs at the cores' own speed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cosytune.errors import UserError

EDGE = 3e-5
"""A coordinate this near to where its rounding turns may fall either way in another order of sums: the clip is asked
of the ONNX graph. Measured with the full size in fp32 on a CPU: the two differ by at most 3.4e-6."""
_TURN = 0.5
_SHRINK = 0.9990000128746033
"""Of the quantizer: its tanh is scaled by this before it is rounded to -1, 0 or 1."""
_ROTARY_CHANNELS = 64
"""Of one attention head."""


@dataclass(frozen=True)
class Tokens:
    """The tokens of one part, and of each whether no coordinate of it lies on the edge between two levels."""

    ids: list[int]
    sure: list[bool]


class Tokenizer:
    """S3TokenizerV2 with the weights of one ONNX file; `load` makes it."""

    def __init__(self, module: Any, device: torch.device) -> None:
        self._module, self.device = module, device

    def tokens(self, parts: Sequence[torch.Tensor]) -> list[Tokens]:
        """Mel float32 [128, frames] each, at most 3000 frames -> their tokens; halves the batch when memory ends."""
        if not parts:
            return []
        try:
            return self._batch(parts)
        except torch.OutOfMemoryError:
            if len(parts) == 1:
                seconds = parts[0].shape[1] / 100
                raise UserError(
                    f"s3tokenizer: {self.device} has no memory for {seconds:.0f} s of sound; free some of it, or set "
                    "features.provider=cpu"
                ) from None
            torch.cuda.empty_cache()
        middle = len(parts) // 2
        return self.tokens(parts[:middle]) + self.tokens(parts[middle:])

    def _batch(self, parts: Sequence[torch.Tensor]) -> list[Tokens]:
        from s3tokenizer.utils import padding

        mel, lengths = padding(list(parts))
        with torch.inference_mode(), _full_precision():
            hidden, counts = self._module.encoder(mel.to(self.device), lengths.to(self.device))
            codebook = self._module.quantizer._codebook
            ids = codebook.encode(hidden)
            level = codebook.project_down(hidden).float().tanh() * _SHRINK
            sure = ((level.abs() - _TURN).abs() > EDGE).all(dim=-1)
        rows = zip(ids.tolist(), sure.tolist(), counts.tolist(), strict=True)
        return [Tokens(row[:count], known[:count]) for row, known, count in rows]


def load(path: Path, device: torch.device) -> Tokenizer | None:
    """None when the file holds another network than S3TokenizerV2, as those of the small bases do."""
    from s3tokenizer.model_v2 import ModelConfig, S3TokenizerV2
    from s3tokenizer.utils import onnx2torch

    try:
        weights = onnx2torch(str(path))
        states, mels, _ = weights["encoder.conv1.weight"].shape
        layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.blocks."))
        config = ModelConfig(
            n_mels=mels, n_audio_state=states, n_audio_head=states // _ROTARY_CHANNELS, n_audio_layer=layers
        )
        module = S3TokenizerV2("speech_tokenizer_v2_25hz", config)
        module.load_state_dict(weights, strict=True)
    except (AssertionError, AttributeError, KeyError, IndexError, RuntimeError, ValueError):
        return None  # what the reader raises depends on where the graph differs first
    return Tokenizer(module.eval().to(device), device)


@contextmanager
def _full_precision() -> Iterator[None]:
    """No TF32: ten bits of mantissa move tokens."""
    matmul, convolution = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, convolution
