"""The tiny base's speech tokenizer, LLM and flow: upstream's own modules take their weights, and they learn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.utils import parametrize

from cosytune.base import morae
from cosytune.errors import UserError
from cosytune.features import speech
from cosytune.tinybase import codes, flow, llm, make, tokenizer
from cosytune.tinybase.corpus import Utterance
from cosytune.tinybase.features import FAMILY, MEL_PER_TOKEN, Buckets, Features, gather, inside
from cosytune.tinybase.flow_start import start_straight
from cosytune.tinybase.learn import Plan
from cosytune.tinybase.make import Making
from cosytune.upstream import bridge

KANA = ["オハヨーゴザイマス。", "キョーワイーテンキデスネ。", "ギューニューヲニホン。", "ナンジニツキマスカ？"]
PLAN = Plan(steps=6, learning_rate=2e-3, batch=4, warmup=2, ema=0.5)


@pytest.fixture(scope="module")
def spoken() -> tuple[list[Utterance], list[NDArray[np.int64]]]:
    """Four utterances of two speakers, and tokens that stand for their speech: 4 for a mora."""
    utterances = [Utterance(f"s0{n % 2}-{n}", f"s0{n % 2}", kana, "train", 0, 0) for n, kana in enumerate(KANA)]
    tokens = [np.repeat(np.array(morae.encode(kana)) * 13 % codes.CODES, 4) for kana in KANA]
    return utterances, tokens


def test_a_row_of_the_table_is_what_its_digits_say() -> None:
    features = codes.digit_features()
    assert features.shape == (codes.CODES, 24) and (features.sum(dim=1) == codes.DIGITS).all()
    code = 2 + 0 * 3 + 1 * 9
    assert features[code].reshape(codes.DIGITS, codes.LEVELS)[:3].argmax(dim=1).tolist() == [2, 0, 1]


def test_expanded_tables_are_those_that_were_trained() -> None:
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(codes.CODES + 3, 16)
    codes.factor(embedding)
    assert parametrize.is_parametrized(embedding, "weight")
    plain = codes.expand({f"inner.{key}": value for key, value in embedding.state_dict().items()})
    assert set(plain) == {"inner.weight"}
    assert torch.allclose(plain["inner.weight"], embedding.weight, atol=1e-5)


def test_disturbed_codes_differ_in_one_digit() -> None:
    heard = torch.arange(codes.CODES)
    same = codes.disturb(heard, 0.0, torch.Generator().manual_seed(0))
    other = codes.disturb(heard, 1.0, torch.Generator().manual_seed(0))
    assert torch.equal(same, heard)
    digits = codes.digit_features()
    changed = (digits[heard] != digits[other]).any(dim=1)
    assert 0.5 < float(changed.float().mean()) < 0.8  # a third of the new levels are the old ones
    assert int(other.max()) < codes.CODES and int(other.min()) >= 0
    assert int(((digits[heard] * digits[other]).sum(dim=1)).min()) >= codes.DIGITS - 1


@pytest.mark.parametrize("frames", [1, 2, 4, 5, 399, 402])
def test_the_exported_tokenizer_says_what_the_trained_one_says(frames: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = tokenizer.Encoder().eval()
    tokenizer.export(encoder, tmp_path / "tokenizer.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "tokenizer.onnx"))
    assert [node.name for node in session.get_inputs()] == ["feats", "feats_length"]
    mel = torch.randn(128, frames)
    said = speech.window_tokens(session, mel)
    assert len(said) == -(-frames // 4)
    with torch.inference_mode():
        assert said == tokenizer.code(encoder(mel[None]))[0].tolist()
    assert min(said) >= 0 and max(said) < codes.CODES


def test_a_clip_has_the_tokens_that_it_has_alone() -> None:
    torch.manual_seed(0)
    encoder = tokenizer.Encoder().eval()
    lengths = torch.tensor([9, 5, 9, 7])
    heard = torch.randn(int(lengths.sum()) * 4, 128).half()
    features = Features(heard, torch.zeros(60, 80), lengths.cumsum(0) - lengths, lengths)
    together = tokenizer.codes(encoder, features)
    for start, length in zip(features.starts.tolist(), lengths.tolist(), strict=True):
        with torch.inference_mode():
            alone = tokenizer.code(encoder(heard[4 * start : 4 * (start + length)].float().T[None]))[0]
        assert torch.equal(together[start : start + length], alone)


def test_every_utterance_is_told_again_in_either_voice_and_at_other_paces(tmp_path: Path) -> None:
    torch.manual_seed(0)
    lengths = torch.tensor([50, 80, 65])
    frames = torch.arange(4 * int(lengths.sum()), dtype=torch.float32).repeat(128, 1).T / 1000
    own, canonical = (
        Features(sign * frames, torch.zeros(1, 80), lengths.cumsum(0) - lengths, lengths) for sign in (1, -1)
    )
    again = [tokenizer._retold(own, canonical, seed) for seed in range(8)]
    firsts = [[float(one.whisper[4 * start, 0]) for start in one.starts.tolist()] for one in again]
    assert {value < 0 for row in firsts for value in row[1:]} == {True, False}  # both voices
    paces = {round(float(one.whisper[40, 0] - one.whisper[20, 0]) / 0.02, 2) for one in again}
    assert len(paces) > 4 and all(0.9 < abs(pace) < 1.1 for pace in paces)
    for one in again:
        assert ((one.lengths - lengths).abs() <= 0.09 * lengths + 2).all()
        assert len(one.whisper) == 4 * int(one.lengths.sum())

    encoder = tokenizer.Encoder().eval()
    tokenizer.write_tokens(encoder, own, canonical, own, tmp_path)
    renderings = tokenizer.renderings(tmp_path)
    assert [len(one) for one in renderings] == [1 + tokenizer._RETOLD] * 3
    for one, plain in zip(renderings, tokenizer.tokens(tmp_path, "train"), strict=True):
        assert np.array_equal(one[0], plain)


def test_levels_are_rounded_and_gradients_pass() -> None:
    digits = torch.tensor([[-0.9, -0.2, 0.2, 0.9]], requires_grad=True)
    rounded = tokenizer._rounded(digits, torch.zeros(1, 4))
    assert rounded.tolist() == [[-1.0, 0.0, 0.0, 1.0]]
    rounded.sum().backward()
    assert digits.grad is not None and digits.grad.tolist() == [[1.0, 1.0, 1.0, 1.0]]


def test_the_llm_learns_and_upstream_takes_it(
    spoken: tuple[list[Utterance], list[NDArray[np.int64]]], tmp_path: Path, upstream_tree: Path
) -> None:
    utterances, tokens = spoken
    fresh = llm.accuracy(llm.new().eval(), utterances, tokens)
    made: Any = llm.make(utterances, [[one, one[1:]] for one in tokens], tmp_path, "cpu", PLAN)
    assert fresh < 0.05 < llm.accuracy(made, utterances, tokens)
    assert made.llm.model.lm_head.weight.shape == made.llm.model.model.embed_tokens.weight.shape
    expected = bridge.new_llm(FAMILY, FAMILY.shape("tiny")).state_dict()
    assert {key: value.shape for key, value in made.state_dict().items()} == {k: v.shape for k, v in expected.items()}


def test_the_flow_learns_and_upstream_takes_it(tmp_path: Path, upstream_tree: Path) -> None:
    lengths = torch.tensor([20, 24, 22, 26])
    total = int(lengths.sum())
    torch.manual_seed(0)
    mel = (torch.randn(total * MEL_PER_TOKEN, 80) - 6).half()
    features = Features(torch.empty(0), mel, lengths.cumsum(0) - lengths, lengths)
    voices = flow.speaker_means(torch.randn(4, 192), ["a", "b", "a", "b"])
    assert torch.equal(voices.mean[0], voices.mean[2]) and not torch.equal(voices.own[0], voices.own[2])
    material = flow.Material(torch.randint(codes.CODES, (total,)), mel + 1, voices)
    made = flow.make(features, material, tmp_path, "cpu", PLAN, PLAN)
    for half in ("encoder", "estimator"):
        figures = [json.loads(line) for line in (tmp_path / half / "log.jsonl").read_text().splitlines()]
        assert figures[-1]["loss"] > 0
    expected = bridge.new_flow(FAMILY, FAMILY.shape("tiny")).state_dict()
    assert {key: value.shape for key, value in made.state_dict().items()} == {k: v.shape for k, v in expected.items()}


def test_a_fresh_estimator_takes_the_noise_from_what_was_spoken(upstream_tree: Path) -> None:
    torch.manual_seed(0)
    estimator = flow.new().decoder.estimator.eval()
    mean = torch.linspace(-5, -7, 80)
    start_straight(estimator, mean)
    noise, spoken = torch.randn(2, 80, 50), mean.view(1, 80, 1) + 2 * torch.randn(2, 80, 50)
    with torch.inference_mode():
        said = estimator(noise, torch.ones(2, 1, 50), spoken, torch.rand(2), torch.randn(2, 80), torch.zeros(2, 80, 50))
    assert float((said - (spoken - noise)).abs().mean()) < 0.1 * float((spoken - noise).std())


def test_batches_hold_clips_of_about_one_length() -> None:
    lengths = list(range(100))
    drawn = Buckets(lengths, 10).draw(torch.Generator().manual_seed(0))
    assert len(set(drawn.tolist())) == 10
    assert max(drawn) - min(drawn) < 50
    flat = torch.arange(12)
    assert gather(flat, torch.tensor([1, 4]), 2, 2).tolist() == [[2, 3, 4, 5], [8, 9, 10, 11]]
    assert inside(torch.tensor([1, 3]), 3).tolist() == [[True, False, False], [True, True, True]]


def test_a_part_says_what_it_needs(tmp_path: Path) -> None:
    making = Making(tmp_path, "cpu", scale=0.01)
    assert making.plan(llm.PLAN).steps == round(llm.PLAN["cpu"].steps * 0.01)
    with pytest.raises(UserError, match="tokenizer: not made yet; make it first: --only tokenizer"):
        make.make_part(making, "flow")


def test_a_trial_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "done").write_text("")
    make.make_part(Making(tmp_path, "cpu", scale=0.01), "corpus")  # there already
    with pytest.raises(UserError, match=r"making\.json: begun with --scale 0\.01; use it again, or another --dir"):
        make.make_part(Making(tmp_path, "cpu"), "corpus")
