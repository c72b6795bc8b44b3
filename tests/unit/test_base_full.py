"""The full-random base has the real shapes; its exports are checked small, for the real ones take minutes and 3 GB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from s3tokenizer import model_v2

from cosytune import families
from cosytune.base import full, hyperyaml

FAMILY = families.get("cosyvoice2-0.5b")


def open_session(path: Path) -> Any:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def small_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real architecture with 2 layers of 128 channels."""
    path = tmp_path_factory.mktemp("full") / "tokenizer.onnx"
    full.write_speech_tokenizer(path, seed=3, layers=2, states=128)
    return path


@pytest.mark.parametrize("frames", [7, 100, 101, 333, 1003])
def test_the_exported_speech_tokenizer_says_what_the_module_says(frames: int, small_tokenizer: Path):
    """Traced at 400 frames with a rotary table of our own, run at other lengths, against s3tokenizer's own code."""
    torch.manual_seed(3)
    config = model_v2.ModelConfig(n_audio_state=128, n_audio_head=2, n_audio_layer=2)
    reference = model_v2.S3TokenizerV2("speech_tokenizer_v2_25hz", config).eval()
    mel = torch.randn(1, 128, frames, generator=torch.Generator().manual_seed(frames))
    expected, _ = reference(mel, torch.tensor([frames]))
    feeds = {"feats": mel.numpy(), "feats_length": np.array([frames], dtype=np.int32)}
    codes = open_session(small_tokenizer).run(None, feeds)[0]
    assert codes.shape == (1, -(-frames // 4))
    assert np.mean(codes == expected.numpy()) > 0.99  # a value on the edge between two levels may fall either way


def test_exporting_leaves_the_package_as_it_was(small_tokenizer: Path):
    table = model_v2.precompute_freqs_cis(64, 8)
    assert table.is_complex() and table.shape == (8, 64)
    assert torch.view_as_real(table).shape == (8, 64, 2)


def test_the_full_speech_tokenizer_has_the_published_size():
    with torch.device("meta"), full._rotary_in_real_numbers():
        module = full._SpeechTokenizer(full._LAYERS, full._STATES)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    assert 4 * parameters == pytest.approx(FAMILY.published[FAMILY.speech_tokenizer].size, rel=0.003)


def test_the_full_speaker_encoder_is_about_as_large_as_the_real_one(tmp_path: Path):
    path = tmp_path / "speaker.onnx"
    full.write_speaker_encoder(path, FAMILY, seed=1)
    assert path.stat().st_size == pytest.approx(FAMILY.published[FAMILY.speaker_encoder].size, rel=0.03)
    session = open_session(path)
    first, second = (
        session.run(None, {"input": np.random.default_rng(frames).standard_normal((1, frames, 80)).astype(np.float32)})[
            0
        ]
        for frames in (50, 301)
    )
    assert first.shape == second.shape == (1, FAMILY.speaker_embedding_size)
    assert np.isfinite(first).all() and not np.array_equal(first, second)


def test_its_yaml_holds_the_real_numbers():
    text = hyperyaml.render(FAMILY, FAMILY.shape("full-random"))
    for line in (
        "llm_input_size: 896",
        "linear_units: 2048",
        "num_blocks: 6",
        "num_mid_blocks: 12",
        "base_channels: 512",
    ):
        assert f"{line}\n" in text
