"""Speech tokens in batches on a GPU against the ONNX graph on the CPU, one clip at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cosytune.base import full
from cosytune.features import batched, onnx, speech, tokens
from cosytune.features.extract import Clip
from cosytune.kaldi import Utterance


@pytest.mark.gpu
def test_batches_on_a_gpu_give_the_graphs_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    model = tmp_path / "speech_tokenizer_v2.onnx"
    full.write_speech_tokenizer(model, seed=3, layers=2, states=128)
    draw = torch.Generator().manual_seed(0)
    sounds = {
        f"u{n}": 0.2 * torch.randn(1, int(16000 * seconds), generator=draw).cumsum(1).sin()
        for n, seconds in enumerate([0.1, 0.5, 1.0, 2.3, 5.0, 12.0, 29.0, 45.0] * 5)
    }
    clips = [Clip(Utterance(utt, "a", tmp_path, "", one.shape[1] / 16000), utt) for utt, one in sounds.items()]
    with ThreadPoolExecutor(4) as pool:
        said = dict(tokens.tokenize(model, "cuda", lambda clip: sounds[clip.digest], clips, pool))
    assert "s3tokenizer: torch on cuda" in capsys.readouterr().out
    graph = onnx.open_session(model, "cpu", 1)
    sure = batched.load(model, torch.device("cuda"))
    assert sure is not None
    for clip, ids in said.items():
        expected = speech.speech_tokens(graph, sounds[clip.digest])
        parts = sure.tokens(speech.windows(speech.log_mel(sounds[clip.digest])))
        if all(all(part.sure) for part in parts):  # the rest was asked of the graph on the GPU, which may round apart
            assert ids == expected
        assert len(ids) == len(expected)
