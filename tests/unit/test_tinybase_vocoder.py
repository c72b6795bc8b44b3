"""The vocoder: its mel is the bridge's, its crops are where they say, it learns, and upstream's class takes it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cosytune.tinybase import learn, vocoder
from cosytune.tinybase.corpus import Utterance
from cosytune.tinybase.features import FAMILY
from cosytune.tinybase.vocoder_losses import LogMel, Spectra
from cosytune.upstream import bridge

RATE_HZ = 24000
HOP = 480


@dataclass
class TwoTones:
    """As `Corpus`, as far as the vocoder reads one: two voices that hold one vowel, after some silence."""

    utterances: list[Utterance]
    sounds: list[NDArray[np.int16]]

    def of(self, split: str) -> list[Utterance]:
        return [one for one in self.utterances if one.split == split]

    def sound(self, utterance: Utterance) -> NDArray[np.int16]:
        return self.sounds[self.utterances.index(utterance)]


def buzz(f0_hz: float, samples: int, seed: int) -> NDArray[np.int16]:
    rng = np.random.default_rng(seed)
    time_s = np.arange(samples) / RATE_HZ
    harmonics = np.arange(1, 20)[:, None]
    sound = (np.sin(2 * np.pi * f0_hz * harmonics * time_s) / harmonics).sum(axis=0) * 0.1
    sound[: samples // 4] = 0
    return np.asarray((sound + 0.002 * rng.standard_normal(samples)) * 32768, dtype=np.int16)


@pytest.fixture(scope="module")
def corpus() -> TwoTones:
    sounds = [buzz(140.0, 40_321, 0), buzz(230.0, 30_003, 1), buzz(180.0, 24_000, 2)]
    splits = ("train", "train", "held_out")
    utterances = [
        Utterance(f"s-{n}", "s", "ア", split, 0, len(sound))
        for n, (split, sound) in enumerate(zip(splits, sounds, strict=True))
    ]
    return TwoTones(utterances, sounds)


@pytest.fixture(scope="module")
def sounds(corpus: TwoTones, tmp_path_factory: pytest.TempPathFactory) -> vocoder.Sounds:
    return vocoder.prepare(corpus, corpus.of("train"), tmp_path_factory.mktemp("f0") / vocoder.F0, "cpu")


def test_its_mel_is_the_bridges(corpus: TwoTones) -> None:
    batch = torch.from_numpy(np.stack([sound[:24_000] for sound in corpus.sounds])).float() / 32768
    ours = LogMel(FAMILY.mel)(batch)
    theirs = torch.stack([bridge.mel_extractor(FAMILY)(sound).T for sound in batch])
    assert ours.shape == (3, 80, 50)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_sound_mel_and_f0_of_a_crop_are_of_the_same_moments(sounds: vocoder.Sounds) -> None:
    sound, mel, f0 = vocoder.crops(sounds, 8, learn.generator(1, 0))
    again = LogMel(FAMILY.mel)(sound)
    inner = slice(2, -2)  # the windows of the outer frames reach beyond the crop
    assert sound.shape == (8, HOP * mel.shape[2]) and mel.shape[2] == f0.shape[1]
    torch.testing.assert_close(again[:, :, inner], mel[:, :, inner], atol=0.02, rtol=0)  # kept in 16 bits
    later = LogMel(FAMILY.mel)(torch.roll(sound, HOP, dims=1))
    assert (later[:, :, inner] - mel[:, :, inner]).abs().max() > 0.5


def test_no_crop_reaches_into_the_next_utterance(corpus: TwoTones, sounds: vocoder.Sounds) -> None:
    first = corpus.utterances[0].samples // HOP
    length = vocoder.crops(sounds, 1, learn.generator(1, 0))[1].shape[2]
    assert not ((sounds.starts < first) & (sounds.starts + length > first)).any()
    assert int(sounds.starts.max()) + length == len(sounds.mel) == len(sounds.f0)
    assert len(sounds.sound) == len(sounds.mel) * HOP


@pytest.mark.parametrize("speed", [0.85, 1.2])
def test_a_faster_tape_is_higher(sounds: vocoder.Sounds, speed: float) -> None:
    sound, f0 = vocoder.on_tape(sounds, 16, speed, learn.generator(1, 0))
    assert (
        sound.shape == (16, HOP * f0.shape[1]) and f0.shape == vocoder.crops(sounds, 16, learn.generator(1, 0))[2].shape
    )
    voiced = [row for row in range(16) if (f0[row] > 0).all()]
    assert voiced
    for row in voiced:
        heard = vocoder.f0_of((sound[row] * 32768).numpy().astype(np.int16))[4:-4]
        assert min(abs(np.median(heard) / (speed * hertz) - 1) for hertz in (140.0, 230.0)) < 0.02
        np.testing.assert_allclose(heard, f0[row, 4:-4], rtol=0.02)


def test_f0_is_that_of_the_middle_of_the_frame() -> None:
    found = vocoder.f0_of(buzz(140.0, 40_000, 0))
    assert len(found) == 40_000 // HOP
    middle = (np.arange(len(found)) * HOP + HOP // 2) / 40_000
    assert np.all(found[middle < 0.2] == 0)
    np.testing.assert_allclose(found[(middle > 0.3) & (middle < 0.95)], 140.0, rtol=0.01)


def test_the_f0_is_found_once(corpus: TwoTones, tmp_path: Path) -> None:
    cache = tmp_path / vocoder.F0
    frames = sum(one.samples // HOP for one in corpus.of("train"))
    np.save(cache, np.full(frames, 7.0, dtype=np.float32))
    assert vocoder.prepare(corpus, corpus.of("train"), cache, "cpu").f0.eq(7.0).all()


def test_equal_sounds_are_not_apart() -> None:
    sound = torch.randn(2, 9600) * 0.1
    convergence, logarithm = Spectra()(sound, sound)
    assert float(convergence) == float(logarithm) == 0.0
    assert all(float(part) > 0.1 for part in Spectra()(sound * 0.5, sound))


def test_a_few_steps_lower_the_loss_and_upstream_takes_the_weights(
    corpus: TwoTones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learn, "_LOG_EVERY", 1)
    plan = replace(vocoder.PLAN["cpu"], steps=10, batch=2, warmup=2)
    made = vocoder.make(corpus, tmp_path, "cpu", plan)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert np.mean([line["mel_l1"] for line in log[-2:]]) < 0.8 * np.mean([line["mel_l1"] for line in log[:2]])

    fresh = bridge.new_hift(FAMILY, replace(FAMILY.tiny, vocoder=vocoder.SHAPE))
    fresh.load_state_dict(torch.load(tmp_path / learn.WEIGHTS, weights_only=True), strict=True)
    sound, _ = fresh.eval().inference(torch.full((1, 80, 50), -6.0))
    assert sound.shape == (1, RATE_HZ) and sound.isfinite().all()

    loaded = vocoder.load(tmp_path)
    for key, value in made.state_dict().items():
        torch.testing.assert_close(value, loaded.state_dict()[key])
    figures = vocoder.evaluate(loaded, corpus, corpus.of("held_out"))
    assert figures.keys() == {"mel_l1", "f0_semitones", "voicing", "real_time_factor"}
    assert np.isfinite(figures["mel_l1"]) and 0 <= figures["voicing"] <= 1
