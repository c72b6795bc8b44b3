"""The random base model: the same bytes every time, the real directory's layout, graphs that hear, LLM that stops."""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from cosytune import base, families, files
from cosytune.base import build, graphs, manifest, text
from cosytune.errors import UserError
from cosytune.features import speech
from cosytune.layout import PRETRAINED_MODELS, ROOT
from cosytune.schema import Config
from cosytune.upstream import bridge

FAMILY = families.get("cosyvoice2-0.5b")
LJSPEECH = ROOT.parent / "shared" / "data" / "ljspeech24"
OTHER_SPEAKERS = ROOT.parent / "shared" / "data" / "cv_ja4"
DEMO_SENTENCES = ROOT / "egs" / "demo" / "local" / "sentences.txt"


def open_session(path: Path) -> Any:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def demo_sentences() -> list[str]:
    lines = DEMO_SENTENCES.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def spoken(sentence: str) -> torch.Tensor:
    """Open JTalk's reading as our features see it, float32 [1, samples] at 16 kHz."""
    import pyopenjtalk
    import torchaudio

    samples, rate_hz = pyopenjtalk.tts(sentence)
    sound = torch.from_numpy(np.asarray(samples, dtype=np.float32) / 32768).unsqueeze(0)
    return torchaudio.transforms.Resample(rate_hz, speech.MODEL_RATE_HZ)(sound)


def test_made_twice_it_is_the_same(random_model: Path, tmp_path: Path):
    torch.manual_seed(99)  # must not matter
    threads = torch.get_num_threads()
    base.make(Config(base="random", seed=7), tmp_path / "again")
    assert torch.get_num_threads() == threads
    assert (tmp_path / "again" / manifest.NAME).read_bytes() == (random_model / manifest.NAME).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again"]  # nothing is left of the building


def test_the_directory_has_the_real_layout(random_model: Path):
    present = {str(path.relative_to(random_model)) for path in random_model.rglob("*") if path.is_file()}
    assert present == {*FAMILY.published, manifest.NAME}
    described = files.read_json(random_model / manifest.NAME)
    assert set(described["files"]) == set(FAMILY.published)
    assert (described["family"], described["base"]) == (FAMILY.name, "random")
    assert "random" in described["weights"]


def test_another_seed_gives_another_model(tmp_path: Path):
    for seed in (1, 2):
        graphs.write_speech_tokenizer(tmp_path / f"tokens{seed}", seed)
        graphs.write_speaker_encoder(tmp_path / f"speaker{seed}", FAMILY, seed)
    assert files.sha256(tmp_path / "tokens1") != files.sha256(tmp_path / "tokens2")
    assert files.sha256(tmp_path / "speaker1") != files.sha256(tmp_path / "speaker2")


def test_where_the_base_lies(tmp_path: Path):
    assert base.locate(Config()) == PRETRAINED_MODELS / "CosyVoice2-0.5B"
    assert base.locate(Config(base="random")) == PRETRAINED_MODELS / "CosyVoice2-0.5B-random"
    assert base.locate(Config(base="full-random")) == PRETRAINED_MODELS / "CosyVoice2-0.5B-full-random"
    assert base.locate(Config(model_dir=str(tmp_path))) == tmp_path
    assert base.locate(Config(model_dir="models/mine")) == ROOT / "models" / "mine"


def test_one_file_of_the_base(random_model: Path, tmp_path: Path):
    config = Config(base="random", model_dir=str(random_model))
    assert base.file(config, FAMILY.speaker_encoder) == random_model / "campplus.onnx"
    with pytest.raises(UserError, match=r"campplus\.onnx: missing; run stage -1"):
        base.file(Config(model_dir=str(tmp_path)), FAMILY.speaker_encoder)


def test_what_is_in_the_way_stays(tmp_path: Path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.txt").write_text("mine")
    (tmp_path / "made").mkdir()
    with pytest.raises(UserError, match="in the way, and no model that was made here"):
        build._put(tmp_path / "made", tmp_path / "model")
    assert (tmp_path / "model" / "thesis.txt").read_text() == "mine"


def test_a_faster_process_wins(tmp_path: Path):
    for name in ("made", "model"):
        (tmp_path / name).mkdir()
        (tmp_path / name / manifest.NAME).write_text(name)
    build._put(tmp_path / "made", tmp_path / "model")
    assert (tmp_path / "model" / manifest.NAME).read_text() == "model"


def test_a_full_disk_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=10_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"0\.0 GB free, the model needs 0\.1 GB; free some disk space"):
        base.make(Config(base="random"), tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_the_text_tokenizer_keeps_every_text(random_model: Path):
    tokenizer = bridge.load_tokenizer(random_model, FAMILY)
    for words in ("窓を開けると、金木犀の香りがした。", "It's 12.5 degrees — naïve café, 3rd try!", "안녕 😀\tñ\n"):
        tokens = tokenizer.encode(words)
        assert tokenizer.decode(tokens) == words
        assert max(tokens) < FAMILY.random.llm.vocab_size
    assert len(tokenizer.tokenizer) <= FAMILY.random.llm.vocab_size  # upstream's marks such as [breath] included
    assert len(tokenizer.encode("[laughter]<|endofprompt|>")) == 2


def test_the_text_model_is_one_that_transformers_loads(random_model: Path):
    from transformers import AutoTokenizer, Qwen2ForCausalLM

    directory = random_model / FAMILY.text_tokenizer
    model = Qwen2ForCausalLM.from_pretrained(directory)
    assert model.config.hidden_size == FAMILY.random.llm.hidden_size
    ids = AutoTokenizer.from_pretrained(directory)("おはようございます。", return_tensors="pt").input_ids
    assert model(ids).logits.shape == (1, ids.shape[1], FAMILY.random.llm.vocab_size)


def test_the_tokenizer_has_not_seen_what_it_is_measured_on():
    known = set(text.sentences())
    assert not known & set(demo_sentences())
    if LJSPEECH.is_dir():
        assert not [
            path.name for path in LJSPEECH.glob("*.txt") if path.read_text().strip() in "\n".join(text.corpus())
        ]


def share_that_can_be_interleaved(tokenizer: Any, clips: list[tuple[str, float]]) -> float:
    """Of clips (text, seconds): those with more than 3 speech tokens per text token."""
    text_tokens, speech_tokens = FAMILY.mix_ratio[0], FAMILY.mix_ratio[1]
    ratios = [FAMILY.token_rate_hz * duration_s / len(tokenizer.encode(words)) for words, duration_s in clips]
    return sum(ratio > speech_tokens / text_tokens for ratio in ratios) / len(ratios)


def test_most_demo_clips_can_be_interleaved(random_model: Path):
    sentences = demo_sentences()[::3]
    clips = [(sentence, spoken(sentence).shape[1] / speech.MODEL_RATE_HZ) for sentence in sentences]
    assert len(clips) >= 10
    assert share_that_can_be_interleaved(bridge.load_tokenizer(random_model, FAMILY), clips) >= 0.5


@pytest.mark.skipif(not LJSPEECH.is_dir(), reason="../shared/data/ljspeech24 is not there")
def test_most_lj_clips_can_be_interleaved(random_model: Path):
    import soundfile

    paths = sorted(LJSPEECH.glob("*.wav"))
    clips = [(path.with_suffix(".txt").read_text().strip(), soundfile.info(path).duration) for path in paths]
    assert len(clips) == 24
    assert share_that_can_be_interleaved(bridge.load_tokenizer(random_model, FAMILY), clips) >= 0.5


def test_the_llm_stops_after_about_75_tokens(random_model: Path):
    """Over sentences that the bias was not fitted on, with upstream's own decoding and sampling."""
    llm: Any = bridge.build_llm(random_model, FAMILY)
    tokenizer = bridge.load_tokenizer(random_model, FAMILY)
    nothing, zero = torch.zeros(1, 0, dtype=torch.int32), torch.tensor([0])
    torch.manual_seed(0)
    lengths, capped = [], 0
    for sentence in demo_sentences()[1::2]:
        ids = torch.tensor([tokenizer.encode(sentence)])
        tokens = list(llm.inference(ids, torch.tensor([ids.shape[1]]), nothing, zero, nothing, zero, None))
        assert all(0 <= token < FAMILY.speech_token_size for token in tokens)
        lengths.append(len(tokens))
        capped += len(tokens) >= 20 * ids.shape[1]
    assert len(lengths) >= 15
    assert 40 < sum(lengths) / len(lengths) < 120
    assert capped <= len(lengths) // 10
    assert len(set(lengths)) > 5


def test_the_speech_tokenizer_hears(random_model: Path):
    session = open_session(random_model / FAMILY.speech_tokenizer)
    assert [(node.name, node.shape, node.type) for node in session.get_inputs()] == [
        ("feats", [1, 128, "T"], "tensor(float)"),
        ("feats_length", [1], "tensor(int32)"),
    ]
    first, second = (spoken(sentence) for sentence in demo_sentences()[:2])
    tokens = speech.speech_tokens(session, first)
    assert len(tokens) == math.ceil(FAMILY.token_rate_hz * first.shape[1] / speech.MODEL_RATE_HZ - 0.01)
    assert all(0 <= token < FAMILY.speech_token_size for token in tokens)
    assert len(set(tokens)) > len(tokens) / 3
    digits = np.array([[token // 3**place % 3 for place in range(8)] for token in tokens])
    assert all(set(column) == {0, 1, 2} for column in digits.T)  # no level of any digit is idle
    assert tokens == speech.speech_tokens(session, first)
    assert tokens != speech.speech_tokens(session, second)[: len(tokens)]


@pytest.mark.parametrize("frames", [1, 4, 5, 101, 400])
def test_the_speech_tokenizer_counts_as_the_real_one(frames: int, random_model: Path):
    session = open_session(random_model / FAMILY.speech_tokenizer)
    sound = np.random.default_rng(0).standard_normal((1, 128, frames + 9)).astype(np.float32)
    length = np.array([frames], dtype=np.int32)
    padded = session.run(None, {"feats": sound, "feats_length": length})[0]
    alone = session.run(None, {"feats": sound[:, :, :frames], "feats_length": length})[0]
    assert padded.shape == (1, math.ceil(frames / 4))
    assert np.array_equal(padded, alone)  # what lies beyond the length is not heard


def test_the_speaker_encoder_tells_speakers_apart(random_model: Path):
    """Two made-up speakers, each with a spread of his own over the mel bins, three clips of noise each."""
    session = open_session(random_model / FAMILY.speaker_encoder)
    random = np.random.default_rng(1)
    profiles = np.exp(0.5 * random.standard_normal((2, 1, 80)))

    def embed(profile: Any) -> Any:
        banks = profile * random.standard_normal((300, 80))
        vector = session.run(None, {"input": (banks - banks.mean(0))[None].astype(np.float32)})[0]
        assert vector.shape == (1, 192)
        return vector[0] / np.linalg.norm(vector)

    vectors = np.array([[embed(profile) for _ in range(3)] for profile in profiles])
    same = [vectors[who, a] @ vectors[who, b] for who in (0, 1) for a, b in ((0, 1), (0, 2), (1, 2))]
    different = (vectors[0] @ vectors[1].T).flatten()
    assert min(same) > 0.9
    assert max(different) < 0.5


@pytest.mark.skipif(not OTHER_SPEAKERS.is_dir(), reason="../shared/data/cv_ja4 is not there")
def test_real_speakers_differ_more_than_clips(random_model: Path):
    session = open_session(random_model / FAMILY.speaker_encoder)

    def embed(path: Path) -> Any:
        vector = np.array(speech.speaker_embedding(session, speech.read_16k(path)))
        return vector / np.linalg.norm(vector)

    one = np.array([embed(path) for path in sorted(LJSPEECH.glob("*.wav"))[:12]])
    others = np.array([embed(path) for path in sorted(OTHER_SPEAKERS.glob("*.wav"))])
    mean = one.mean(axis=0)
    assert float((one @ mean).mean()) > float((others @ mean).max()) + 0.1


def test_the_corpus_is_prose_of_the_size_that_was_agreed():
    size = sum(len(line.encode()) for line in text.corpus())
    assert 10_000 < size < 25_000
    assert re.search("[ぁ-ん]", "".join(text.corpus()))
