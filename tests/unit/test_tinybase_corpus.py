"""The synthetic corpus: its sentences, its voices, and the files."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pyworld
import yaml

from cosytune.errors import UserError
from cosytune.tinybase import corpus, grammar, sentences, voices
from cosytune.tinybase.corpus import Corpus, CorpusPlan
from cosytune.tinybase.voices import RATE_HZ
from cosytune.voice.sentences import SENTENCES as REPORTED

ROOT = Path(__file__).parents[2]
SMALL = CorpusPlan(speakers=2, strangers=1, train=4, held_out=5, seed=3)
FULL = CorpusPlan()


def elsewhere() -> set[str]:
    """Sentences that evaluation and demo speak."""
    demo = (ROOT / "egs/demo/local/sentences.txt").read_text(encoding="utf-8").split("\n")[:-1]
    conf = yaml.safe_load((ROOT / "egs/demo/conf.yaml").read_text(encoding="utf-8"))
    return {*demo, *conf["evaluate"]["sentences"], *REPORTED["ja"]}


@pytest.fixture(scope="module")
def chosen() -> tuple[list[str], list[str]]:
    """How 500 train and 40 held-out sentences sound."""
    pool = sentences.pool(540, seed=1)
    kana = [sentences.read(one.text).kana for one in pool]
    choice = sentences.choose(pool, kana, 500, 40, seed=1)
    return [kana[place] for place in choice.train], [kana[place] for place in choice.held_out]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("corpus")
    corpus.make(directory, SMALL, 1)
    return directory


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("verb", "form", "expected"),
    [
        ("読む(u)", "te", "読んで"),
        ("泳ぐ(u)", "ta", "泳いだ"),
        ("買う(u)", "a", "買わ"),
        ("行く(u)", "te", "行って"),
        ("食べる(r)", "ta", "食べた"),
        ("食べる(r)", "e", "食べれ"),
        ("注文する(s)", "te", "注文して"),
        ("待つ(u)", "u", "待つ"),
        ("話す(u)", "o", "話そ"),
    ],
)
def test_verbs_are_put_in_their_forms(verb: str, form: str, expected: str) -> None:
    assert grammar.conjugate(verb, form) == expected


def test_the_full_pool_is_large_and_holds_no_sentence_that_is_judged_elsewhere() -> None:
    pool = [one.text for one in sentences.pool(FULL.train + FULL.held_out, FULL.seed)]
    assert len(set(pool)) == len(pool) > 2 * (FULL.train + FULL.held_out)
    assert not set(pool) & elsewhere()
    assert not any("{" in text for text in pool)
    assert pool == [one.text for one in sentences.pool(FULL.train + FULL.held_out, FULL.seed)]


def test_no_sentence_sounds_like_one_that_is_judged_elsewhere(chosen: tuple[list[str], list[str]]) -> None:
    assert not {sentences.read(text).kana for text in elsewhere()} & {*chosen[0], *chosen[1]}


def test_sentences_are_distinct_by_their_sound(chosen: tuple[list[str], list[str]]) -> None:
    train, held_out = chosen
    assert len(set(train)) == len(train) == 500
    assert len(set(held_out)) == len(held_out) == 40
    assert not set(train) & set(held_out)


def test_even_few_sentences_hold_every_mora(chosen: tuple[list[str], list[str]]) -> None:
    """In the full corpus each occurs fifty times or more."""
    morae, pairs = sentences.coverage(chosen[0])
    words = {mora for name in ("foreign", "rare", "plain") for mora in grammar.words(name)}
    seldom = {mora: morae[mora] for mora in {*words, "ー", "ン", "ッ", "、", "？", "！"} if morae[mora] < 2}
    assert not seldom
    assert len(pairs) > 2000
    assert 15 < np.mean([len(sentences.units(kana)) for kana in chosen[0]]) < 25


def test_a_choice_of_too_little_is_refused() -> None:
    with pytest.raises(ValueError, match="to choose 5 from"):
        sentences.choose([sentences.Sentence("あ")], ["ア"], 5, 0, seed=1)


def test_no_voice_is_the_demo_speaker_and_no_two_are_alike() -> None:
    cast = [*voices.cast(48, 4), voices.CANONICAL]
    assert [voice.name for voice in cast[-6:]] == ["s48", "x01", "x02", "x03", "x04", "canonical"]
    for voice in cast:
        semitones = abs(12 * np.log2(voice.pitch_hz / 335))  # measured over the demo's sentences
        assert max(abs(voice.warp_low - 1), abs(voice.warp_high - 1)) > 0.06 or semitones > 3
        assert 0.80 <= voice.warp_low <= 1.30
        assert 0.80 <= voice.warp_high <= 1.30
        assert 95 <= voice.pitch_hz <= 380
        assert 0.88 <= voice.speed <= 1.15
    assert all(voices.difference(one, other) > 1.5 for one, other in itertools.combinations(cast, 2))


def test_a_smaller_cast_has_the_same_voices() -> None:
    assert voices.cast(2, 1) == [*voices.cast(48, 4)[:2], voices.cast(48, 4)[48]]
    with pytest.raises(ValueError, match="49 speakers"):
        voices.cast(49, 0)


def test_two_processes_make_the_same_bytes_as_one(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "_SHARD", 3)
    corpus.make(tmp_path, SMALL, 2)
    assert contents(tmp_path) == contents(made)


def test_a_stopped_run_is_taken_up(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "_SHARD", 3)
    with monkeypatch.context() as stopped:
        stopped.setattr(corpus, "_join", _stop)
        with pytest.raises(KeyboardInterrupt):
            corpus.make(tmp_path, SMALL, 1)
    shards = sorted((tmp_path / "shards").iterdir())
    assert len(shards) == 3
    shards[1].unlink()
    before = {path: path.stat().st_mtime_ns for path in (shards[0], shards[2])}
    with pytest.raises(UserError, match="make it"):
        Corpus.open(tmp_path)
    with monkeypatch.context() as stopped:
        stopped.setattr(corpus, "_join", _stop)
        with pytest.raises(KeyboardInterrupt):
            corpus.make(tmp_path, SMALL, 1)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    corpus.make(tmp_path, SMALL, 1)
    assert contents(tmp_path) == contents(made)


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def test_another_plan_is_refused(made: Path) -> None:
    with pytest.raises(UserError, match="another corpus"):
        corpus.make(made, replace(SMALL, seed=4), 1)


def test_who_speaks_and_where(made: Path) -> None:
    whole = Corpus.open(made)
    assert whole.speakers == ["s01", "s02"]
    assert [one.speaker for one in whole.of("train")] == ["s01", "s02"] * 2
    assert [one.speaker for one in whole.of("held_out")] == ["s01", "s02", "s01", "s02", "x01"]
    ends = np.cumsum([one.samples for one in whole.utterances])
    assert [one.start for one in whole.utterances] == [0, *ends[:-1].tolist()]
    for name in ("sounds.i16", "canonical.i16"):
        assert (made / name).stat().st_size == 2 * ends[-1]
    assert len({one.utt for one in whole.utterances}) == len(whole.utterances) == 9


def test_both_voices_say_the_same_at_the_same_time_in_another_pitch(made: Path) -> None:
    whole = Corpus.open(made)
    cast = {voice.name: voice for voice in voices.cast(2, 1)}
    measured: dict[str, list[float]] = {name: [] for name in (*cast, "canonical")}
    for one in whole.utterances:
        own, canonical = whole.sound(one), whole.canonical(one)
        assert len(own) == len(canonical) == one.samples
        assert np.corrcoef(energy(own), energy(canonical))[0, 1] > 0.8
        measured[one.speaker].append(pitch(own))
        measured["canonical"].append(pitch(canonical))
    for name, wanted_hz in ((name, {**cast, "canonical": voices.CANONICAL}[name].pitch_hz) for name in measured):
        assert np.exp(np.mean(np.log(measured[name]))) == pytest.approx(wanted_hz, rel=0.15)


def test_loudness_and_silence_are_as_planned(made: Path) -> None:
    from cosytune.audio import loudness

    whole = Corpus.open(made)
    for one in whole.utterances:
        for sound in (whole.sound(one) / 32768, whole.canonical(one) / 32768):
            assert np.abs(sound).max() <= 0.96
            level = loudness.measure_lufs(sound, RATE_HZ)
            assert level == pytest.approx(-23, abs=0.5) or np.abs(sound).max() > 0.94
        loud = np.flatnonzero(np.abs(whole.canonical(one)) > 150)
        assert 0.05 < loud[0] / RATE_HZ < 0.35
        assert 0.0 < (one.samples - loud[-1]) / RATE_HZ < 0.35


def energy(sound: np.ndarray) -> np.ndarray:
    """dB of 20 ms, no quieter than -60 dBFS."""
    frames = (sound[: len(sound) // 480 * 480] / 32768).reshape(-1, 480)
    return 10 * np.log10(np.maximum(np.mean(frames**2, axis=1), 1e-6))


def pitch(sound: np.ndarray) -> float:
    """Mean, in Hz."""
    samples = sound / 32768
    rough, times = pyworld.dio(samples, RATE_HZ, f0_floor=60, f0_ceil=700)
    found = pyworld.stonemask(samples, rough, times, RATE_HZ)
    return float(np.exp(np.mean(np.log(found[found > 0]))))
