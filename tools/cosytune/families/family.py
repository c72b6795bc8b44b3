"""What one model family is, as types; the numbers stand in one module per family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cosytune.text import Script


@dataclass(frozen=True)
class Mel:
    """The names of Matcha's `mel_spectrogram`; hop_size / sampling_rate = 20 ms, so 50 frames a second."""

    n_fft: int
    num_mels: int
    sampling_rate: int
    hop_size: int
    win_size: int
    fmin: int
    fmax: int
    center: bool


@dataclass(frozen=True)
class LlmShape:
    """The names of transformers' Qwen2Config."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    vocab_size: int
    initializer_range: float
    """Standard deviation of fresh random weights."""


@dataclass(frozen=True)
class FlowShape:
    """Of the flow's encoder (its width is fixed at 512 in upstream's code) and of its estimator."""

    encoder_blocks: int
    encoder_units: int
    encoder_heads: int
    estimator_channels: int
    estimator_blocks: int
    estimator_mid_blocks: int
    estimator_heads: int
    estimator_head_dim: int


@dataclass(frozen=True)
class VocoderShape:
    base_channels: int
    f0_channels: int


@dataclass(frozen=True)
class Shape:
    """The sizes in which the real and the small models differ, and what comes with them."""

    llm: LlmShape
    flow: FlowShape
    vocoder: VocoderShape
    scripts: Mapping[str, Script] = field(default_factory=dict)
    """As the family's, where a model of this shape reads another script than the others."""


@dataclass(frozen=True)
class Published:
    """One file of the published model: bytes and hex sha256.

    A hash that is not known (None) is recorded at the first download and compared ever after.
    """

    size: int
    sha256: str | None


@dataclass(frozen=True)
class Family:
    """One model family. File names are relative to a model directory."""

    name: str
    title: str
    huggingface: str
    modelscope: str
    revision: str
    """Of the Hugging Face repository, whose files `published` lists."""
    modelscope_revision: str
    """A branch, for no commit is known there: what pins the files are their hashes."""
    published: Mapping[str, Published]
    upstream_commit: str

    sample_rate_hz: int
    token_rate_hz: int
    token_mel_ratio: int
    speech_token_size: int
    """Codes of the speech tokenizer; the LLM's row of this index says end of speech."""
    mix_ratio: tuple[int, int]
    """Text and speech tokens of one turn of an interleaved (streaming) sequence."""
    speaker_embedding_size: int
    mel: Mel

    yaml: str
    llm: str
    flow: str
    vocoder: str
    speaker_encoder: str
    speech_tokenizer: str
    text_tokenizer: str
    """A directory: upstream hands it to transformers' AutoTokenizer and Qwen2ForCausalLM."""

    real: Shape
    random: Shape
    """Made in seconds, with random weights."""
    tiny: Shape
    """Trained by `cosytune.tinybase`; its text is tokenized by `cosytune.base.morae`."""
    qwen: Mapping[str, Any]
    """Keys of Qwen2Config that do not depend on the size."""
    lora_targets: Mapping[str, Mapping[str, str]]
    """module (llm, flow) -> group (default, speaker) -> regular expression, matched whole against module names."""
    scripts: Mapping[str, Script]
    """language -> the script in which the model reads it; `written` where none is named."""
    document: Callable[[Family, Shape], dict[str, Any]]
    """The family's YAML as specs (see `spec.py`), in upstream's order of keys."""

    def script(self, language: str, shape: Shape) -> Script:
        """For `text.normalize`: of what is trained on and of what is spoken."""
        return shape.scripts.get(language, self.scripts.get(language, "written"))

    def shape(self, base: str) -> Shape:
        """The sizes of `base` (real, tiny, random, full-random)."""
        return {"tiny": self.tiny, "random": self.random}.get(base, self.real)
