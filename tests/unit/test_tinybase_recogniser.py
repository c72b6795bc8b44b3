"""The judge of kana: what is one sound, what an error is, and that the recogniser learns and is exported whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyopenjtalk
import pytest
import soxr
import torch

from cosytune.errors import UserError
from cosytune.text import normalize
from cosytune.tinybase import recogniser
from cosytune.tinybase.corpus import Utterance
from cosytune.tinybase.learn import Plan
from cosytune.tinybase.recogniser import Recogniser
from cosytune.tinybase.voices import RATE_HZ
from cosytune.voice import kana
from cosytune.voice.kana import UNITS, KanaJudge, error_rate, pooled_error_rate, spoken

TEXTS = ("先生が来た。", "雨、雪？", "猫を飼う。", "切符はどこ？")


@dataclass
class FourClips:
    """As `Corpus`, as far as the recogniser reads one."""

    utterances: list[Utterance]
    sounds: list[np.ndarray]

    def of(self, split: str) -> list[Utterance]:
        return [one for one in self.utterances if one.split == split]

    def sound(self, utterance: Utterance) -> np.ndarray:
        return self.sounds[self.utterances.index(utterance)]


@pytest.fixture(scope="module")
def corpus() -> FourClips:
    utterances, sounds = [], []
    for number, text in enumerate(TEXTS):
        wave, rate_hz = pyopenjtalk.tts(text, speed=1.1)
        sounds.append(soxr.resample(wave, rate_hz, RATE_HZ).clip(-32768, 32767).astype(np.int16))
        read = normalize(text, "ja", "katakana")
        utterances.append(Utterance(f"s00-{number}", "s00", read, "train", 0, len(sounds[-1])))
    return FourClips(utterances, sounds)


@pytest.mark.parametrize(
    ("written", "heard"),
    [
        ("コンニチワ、セカイヲミル。", "コンニチワセカイオミル"),
        ("ツヅク ハナヂ！", "ツズクハナジ"),
        ("ニジュウヨネン", "ニジューヨネン"),
        ("トヲイイエ", "トーイーエ"),
        ("オモウ エイゴ", "オモウエイゴ"),
        ("ソー、オモウ", "ソーーモウ"),
        ("ヴァイオリン ヴュー ヴ", "バイオリンビューブ"),
        ("スウェーデン ウォーター", "スウェーデンウォーター"),
        ("ネェ キャァ ァ", "ネーキャーー"),
        ("クヮルテット", "クァルテット"),
        ("がっこう", "ガッコウ"),
        ("ｶﾞｯｺｳ", "ガッコウ"),
        ("…！", ""),
    ],
)
def test_what_sounds_the_same_is_one_unit(written: str, heard: str) -> None:
    units = spoken(written)
    assert "".join(units) == heard
    assert set(units) <= set(UNITS)
    assert spoken("".join(units)) == units, "what was folded stays as it is"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ハナヂ", "ハナジ"),
        ("ニジュウ", "ニジュー"),
        ("トヲカウ", "トーカウ"),
        ("バアイ", "バーイ"),
        ("ツヅク", "ツズク"),
    ],
)
def test_open_jtalk_too_speaks_them_alike(one: str, other: str) -> None:
    assert spoken(one) == spoken(other)
    assert pyopenjtalk.g2p(one).split() == pyopenjtalk.g2p(other).split()


def test_a_pause_parts_two_vowels_where_the_recogniser_learns() -> None:
    assert "".join(kana.phrases("ソー、オモウ。")) == "ソーオモウ"


@pytest.mark.parametrize("text", ["東京", "ABC", "3ジ", "[breath]ハイ"])
def test_what_is_no_kana_is_an_error(text: str) -> None:
    with pytest.raises(UserError, match="is no kana"):
        spoken(text)


def test_the_error_rate_counts_edits_for_each_unit_of_the_reference() -> None:
    reference = spoken("カキクケコ")
    assert error_rate(reference, reference) == 0
    assert error_rate(reference, spoken("カキケコ")) == pytest.approx(1 / 5)
    assert error_rate(reference, spoken("サカキツケコ")) == pytest.approx(2 / 5)
    assert error_rate(reference, []) == 1
    assert error_rate(["カ"], ["サ", "シ", "ス"]) == 3
    assert pooled_error_rate([(reference, []), (["カ"] * 15, ["カ"] * 15)]) == pytest.approx(5 / 20)
    with pytest.raises(UserError, match="no kana to compare with"):
        error_rate([], ["カ"])


def test_repeats_are_one_kana_and_blanks_none() -> None:
    a, b = UNITS.index("コ") + 1, UNITS.index("ー") + 1
    assert kana.collapse([0, a, a, 0, a, b, b, 0, 0, b]) == ["コ", "コ", "ー", "ー"]


def test_it_learns_four_sentences_and_the_file_hears_them(corpus: FourClips, tmp_path: Path) -> None:
    plan = Plan(steps=250, learning_rate=3e-3, batch=4, warmup=20, ema=0.9)
    recogniser.make(corpus, tmp_path / "recogniser", "cpu", plan)  # type: ignore[arg-type]
    model = recogniser.load(tmp_path / "recogniser")
    recogniser.export(model, tmp_path / "model.onnx")
    judge = KanaJudge(tmp_path / "model.onnx")
    found = kana.evaluate(judge, corpus, corpus.utterances)  # type: ignore[arg-type]
    assert found["kana_error_rate"] == 0, found["worst"]
    assert found["clips"] == 4
    assert found["by_speaker"] == {"s00": 0}


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recogniser, KanaJudge]:
    torch.manual_seed(0)
    model, path = Recogniser().eval(), tmp_path_factory.mktemp("judge") / "model.onnx"
    recogniser.export(model, path)
    return model, KanaJudge(path)


@pytest.mark.parametrize("samples", [1, 159, 160, 3001, 16000, 50123])
def test_the_file_says_what_the_module_says(untrained: tuple[Recogniser, KanaJudge], samples: int) -> None:
    model, judge = untrained
    sound = 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(samples))
    with torch.inference_mode():
        wanted = model(sound)
    found = judge._session.run(None, {"sound": sound.numpy()})[0]
    frames = samples // 160 + 1
    assert found.shape == wanted.shape == (1, int(recogniser.outputs(torch.tensor(frames))), len(UNITS) + 1)
    np.testing.assert_allclose(found, wanted.numpy(), atol=2e-3)


def test_padding_in_a_batch_changes_nothing(untrained: tuple[Recogniser, KanaJudge]) -> None:
    model, _ = untrained
    draw = torch.Generator().manual_seed(0)
    lengths = torch.tensor([200, 131])
    heard = torch.randn(2, 80, 200, generator=draw)
    is_own = (torch.arange(200) < lengths.unsqueeze(1)).unsqueeze(1).float()
    with torch.inference_mode():
        together = model.read(recogniser.normalised(heard, is_own), lengths)
        for row, length in enumerate(lengths.tolist()):
            alone = recogniser.normalised(heard[row : row + 1, :, :length], torch.ones(1, 1, length))
            wanted = model.read(alone, None)[0]
            torch.testing.assert_close(together[row, : len(wanted)], wanted, atol=1e-4, rtol=1e-4)


def test_silence_and_nothing_are_heard_without_harm(untrained: tuple[Recogniser, KanaJudge]) -> None:
    _, judge = untrained
    assert judge.hear(np.zeros(0, dtype=np.float32), 24000) == []
    assert set(judge.hear(np.zeros(24000, dtype=np.float32), 24000)) <= set(UNITS)
    with pytest.raises(ValueError, match="one channel"):
        judge.hear(np.zeros((2, 100), dtype=np.float32), 24000)


def test_the_ear_hears_a_tone_in_its_bin() -> None:
    seconds = torch.arange(16000) / 16000
    heard = recogniser.Ear()(0.1 * torch.sin(2 * torch.pi * 1000 * seconds)[None])
    centres = recogniser._centres(torch.device("cpu"))
    assert heard.shape == (1, 80, 101)
    assert int(heard[0, :, 50].argmax()) == int((centres - 1000).abs().argmin())
    torch.testing.assert_close(recogniser._bin(centres), torch.arange(80.0), atol=1e-3, rtol=0)


def test_no_file_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--only recogniser"):
        KanaJudge(tmp_path / "model.onnx")
