"""The two ONNX models of the full-random base: the real sizes and costs, random weights.

The speech tokenizer is the real architecture (S3TokenizerV2 of the package s3tokenizer). The speaker encoder is not
CAM++ but a plain time-delay network with about as many parameters (7.1 million).
"""

from __future__ import annotations

from pathlib import Path

from cosytune.families import Family


def write_speech_tokenizer(path: Path, seed: int) -> None:
    raise NotImplementedError


def write_speaker_encoder(path: Path, family: Family, seed: int) -> None:
    raise NotImplementedError
