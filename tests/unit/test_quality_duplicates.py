"""Which clips are one take: whatever was done to the file, and never two takes or two sentences."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

import quality_speech as speech
from cosytune.quality.duplicates import Fingerprint, Pair, equal, fingerprint, near_duplicates
from cosytune.schema import GatesConfig
from quality_speech import RATE_HZ, Clip

THRESHOLD = GatesConfig().near_duplicate_similarity or 1.0


def print_of(clip: Clip) -> Fingerprint:
    found = fingerprint(clip.at(RATE_HZ), RATE_HZ)
    assert found is not None
    return found


def clips() -> list[Clip]:
    ljspeech = speech.read(speech.LJSPEECH) if speech.LJSPEECH.is_dir() else []
    return [*ljspeech, *speech.demo(40)]


def encoded(clip: Clip, tmp_path: Path, suffix: str, *options: str) -> Clip:
    wav, copy, back = tmp_path / "a.wav", tmp_path / f"b{suffix}", tmp_path / "c.wav"
    soundfile.write(wav, clip.samples, clip.rate_hz, subtype="PCM_16")
    for command in ([wav, *options, copy], [copy, back]):
        subprocess.run(["ffmpeg", "-y", "-v", "error", "-i", *map(str, command)], check=True)
    return Clip(clip.name, *soundfile.read(back, dtype="float32"))


def test_the_same_take_is_found_in_any_format_and_no_other(tmp_path: Path) -> None:
    originals = clips()[::8]
    versions = {
        "quieter": lambda clip: clip.changed(clip.samples * 0.1),
        "16 kHz": lambda clip: clip.changed(clip.at(16000), 16000),
        "telephone": speech.telephone,
        "silence added": lambda clip: speech.padded(clip, 0.31, 0.7),
        "mp3": lambda clip: encoded(clip, tmp_path, ".mp3", "-b:a", "64k"),
        "ogg": lambda clip: encoded(clip, tmp_path, ".ogg", "-ar", "32000", "-c:a", "libvorbis"),
        "noise and silence": lambda clip: speech.with_noise(speech.padded(clip, 1.0, 0.5), 20),
    }
    prints = [print_of(clip) for clip in originals]
    for name, change in versions.items():
        copies = [print_of(change(clip)) for clip in originals]
        found = near_duplicates(prints + copies, THRESHOLD)
        expected = [(i, i + len(originals)) for i in range(len(originals))]
        assert [(pair.first, pair.second) for pair in found] == expected, name


def test_silence_cut_off_is_no_other_take() -> None:
    for clip in speech.demo(8):
        spans = speech.speech(clip)
        start, end = (round(s * clip.rate_hz) for s in (spans[0].start_s - 0.1, spans[-1].end_s + 0.15))
        assert near_duplicates([print_of(clip), print_of(clip.changed(clip.samples[start:end]))], THRESHOLD)


def test_different_sentences_of_one_speaker_are_far_apart() -> None:
    assert near_duplicates([print_of(clip) for clip in clips()], 0.6) == []


@pytest.mark.parametrize("change", [{"speed": 1.05}, {"speed": 0.95}, {"half_tone": 2.0}])
def test_a_sentence_spoken_again_in_another_way_is_another_take(change: dict[str, float]) -> None:
    import pyopenjtalk

    for sentence in ("こんにちは。今日はいい天気ですね。", "駅までの道を教えてください。"):
        both = [pyopenjtalk.tts(sentence), pyopenjtalk.tts(sentence, **change)]
        prints = [fingerprint(soxr.resample(samples / 32768, rate, RATE_HZ), RATE_HZ) for samples, rate in both]
        assert near_duplicates([one for one in prints if one is not None], THRESHOLD) == []


def test_pairs_are_those_of_comparing_each_with_each() -> None:
    draw = np.random.default_rng(0)
    shapes = draw.standard_normal((1500, 960)).astype(np.float32)
    shapes[1000:1200] = shapes[:200] + 0.2 * shapes[1000:1200]
    shapes /= np.linalg.norm(shapes, axis=1, keepdims=True)
    lengths = np.where(draw.random(1500) < 0.5, 5.0, draw.uniform(3, 10, 1500)).astype(np.float32)
    prints = list(np.column_stack([lengths, shapes]))
    close = np.abs(lengths - lengths[:, None]) <= 0.002 * np.minimum(lengths, lengths[:, None]) + 0.02
    expected = np.argwhere(np.triu((shapes @ shapes.T >= 0.9) & close, 1))
    found = near_duplicates(prints, 0.9)
    assert len(expected) > 50
    assert [(pair.first, pair.second) for pair in found] == [tuple(pair) for pair in expected.tolist()]
    assert found == sorted(found) and isinstance(found[0], Pair)


def test_equal_digests_keep_the_first_in_sorted_order() -> None:
    assert equal({"c": "1", "a": "1", "b": "2", "d": "1"}) == {"c": "a", "d": "a"}
    assert equal({}) == {}


def test_silence_and_crumbs_have_no_fingerprint() -> None:
    assert fingerprint(np.zeros(24000, np.float32), 24000) is None
    assert fingerprint(np.ones(100, np.float32), 24000) is None
    assert fingerprint(np.zeros(0, np.float32), 24000) is None
    assert near_duplicates([], 0.9) == []
