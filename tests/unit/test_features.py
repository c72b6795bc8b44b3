"""Features against upstream's own front end, on real speech (Open JTalk)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from cosytune import families
from cosytune.errors import UserError
from cosytune.features import onnx, parquet, speech
from cosytune.kaldi import Utterance

FAMILY = families.get("cosyvoice2-0.5b")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import pyopenjtalk

    samples, rate_hz = pyopenjtalk.tts("春の朝、川のそばを歩きました。")
    path = tmp_path_factory.mktemp("clip") / "朝 clip.wav"
    soundfile.write(path, samples / 32768, rate_hz, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")
def front_end(random_model: Path):  # upstream's own CosyVoiceFrontEnd
    from cosytune.upstream import bridge

    return bridge.load_cosyvoice(random_model, FAMILY).frontend


def test_tokens_and_embedding_equal_upstreams_front_end(clip: Path, front_end, random_model: Path) -> None:
    sound = speech.read_16k(clip)
    session = onnx.open_session(random_model / FAMILY.speech_tokenizer, "cpu", 1)
    tokens = speech.speech_tokens(session, sound)
    expected, length = front_end._extract_speech_token(sound)
    assert tokens == expected.flatten().tolist()
    assert len(tokens) == length.item() == pytest.approx(sound.shape[1] / 16000 * FAMILY.token_rate_hz, abs=2)
    assert len(set(tokens)) > 10, "the tokens depend on the sound"
    session = onnx.open_session(random_model / FAMILY.speaker_encoder, "cpu", 1)
    embedding = speech.speaker_embedding(session, sound)
    assert embedding == front_end._extract_spk_embedding(sound).flatten().tolist()
    assert len(embedding) == 192


def test_reading_resamples_and_downmixes(tmp_path: Path) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(48000) / 48000)
    soundfile.write(tmp_path / "stereo.wav", np.stack([tone, 0.5 * tone], axis=1), 48000)
    sound = speech.read_16k(tmp_path / "stereo.wav")
    assert sound.shape == (1, 16000)
    assert sound.abs().max().item() == pytest.approx(0.75, abs=0.01)


def test_the_mel_is_whispers_bit_by_bit(clip: Path) -> None:
    import whisper

    sound = speech.read_16k(clip)
    assert torch.equal(speech.log_mel(sound), whisper.log_mel_spectrogram(sound, n_mels=128)[0])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: the session gets what it asks for")
def test_cuda_by_name_is_an_error_where_the_session_did_not_get_it(random_model: Path) -> None:
    with pytest.raises(UserError, match=r"features\.provider = cuda.*CPUExecutionProvider"):
        onnx.open_session(random_model / FAMILY.speaker_encoder, "cuda", 1)


def test_upstreams_own_reader_reads_the_parquet(clip: Path, tmp_path: Path, random_model: Path) -> None:
    from cosytune.upstream import bridge

    bridge.load_tokenizer(random_model, FAMILY)  # puts upstream on the path
    from cosyvoice.dataset import processor

    utterances = [
        Utterance(utt=f"話者-{n}", speaker="話者", wav=clip, text='彼は "はい" と', duration_s=2.0) for n in (1, 2)
    ]
    embeddings = {utterance.utt: [float(n)] * 192 for n, utterance in enumerate(utterances)}
    tokens = {utterance.utt: list(range(50)) for utterance in utterances}
    *tables, listing = parquet.write(tmp_path, utterances, embeddings, {"話者": [0.5] * 192}, tokens)
    assert listing.read_text().split("\n") == [str(tables[0]), ""]
    samples = list(processor.parquet_opener([{"src": str(path)} for path in tables]))
    assert [sample["utt"] for sample in samples] == ["話者-1", "話者-2"]
    assert samples[0]["audio_data"] == clip.read_bytes()
    assert samples[1]["utt_embedding"].tolist() == [1.0] * 192
    assert samples[0]["spk_embedding"].tolist() == [0.5] * 192
    assert samples[0]["speech_token"].tolist() == list(range(50))
    assert samples[0]["text"] == '彼は "はい" と'


def test_a_set_that_became_smaller_leaves_no_file_behind(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_CLIPS_PER_FILE", 1)
    utterances = [Utterance(utt=f"u{n}", speaker="a", wav=clip, text="はい", duration_s=2.0) for n in range(3)]
    values = {utterance.utt: [1.0] for utterance in utterances}, {"a": [1.0]}, {"u0": [1], "u1": [2], "u2": [3]}
    for kept in (3, 1, 0):
        written = parquet.write(tmp_path, utterances[:kept], *values)
        assert len(written) == kept + 1
        assert sorted(tmp_path.iterdir()) == sorted(written)
