"""Whose voice a clip is: the encoder is Resemblyzer's, and strangers are told from the speaker in spite of noise."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import soxr

import quality_speech as speech
from cosytune.audio.span import Span
from cosytune.quality import voices
from cosytune.quality.voices import embed, mel_power, similarities, two_voices, windows
from cosytune.schema import GatesConfig
from quality_speech import Clip

pytestmark = pytest.mark.skipif(
    not (speech.LJSPEECH.is_dir() and speech.COMMON_VOICE.is_dir()),
    reason="../shared/data/ljspeech24 and cv_ja4 are not there",
)
THRESHOLD = GatesConfig().min_voice_similarity or 0.0


def voice_of(clips: list[Clip]) -> list[voices.Float]:
    found = embed([windows(clip.at(16000), speech.speech(clip)) for clip in clips])
    assert all(vector is not None for vector in found)
    return [vector for vector in found if vector is not None]


@pytest.fixture(scope="module")
def reader() -> list[voices.Float]:
    return voice_of(speech.read(speech.LJSPEECH))


@pytest.fixture(scope="module")
def strangers() -> list[voices.Float]:
    return voice_of(speech.read(speech.COMMON_VOICE))


@pytest.fixture(scope="module")
def mei() -> list[voices.Float]:
    return voice_of(speech.demo(24))


def among(vectors: list[voices.Float]) -> np.ndarray:
    """Cosine of every two."""
    stacked = np.stack(vectors)
    return (stacked @ stacked.T)[np.triu_indices(len(vectors), 1)]


def test_the_mel_is_librosas() -> None:
    import librosa

    samples = speech.read(speech.LJSPEECH)[0].at(16000)[: 160 * 300]
    theirs = librosa.feature.melspectrogram(y=samples, sr=16000, n_fft=400, hop_length=160, n_mels=40).T
    np.testing.assert_allclose(mel_power(samples), theirs, rtol=1e-3, atol=1e-6 * theirs.max())


def test_the_encoder_knows_people(
    reader: list[voices.Float], strangers: list[voices.Float], mei: list[voices.Float]
) -> None:
    assert np.median(among(reader)) == pytest.approx(0.87, abs=0.02)  # single clips, not means of many
    assert np.median(among(mei)) == pytest.approx(0.87, abs=0.03)
    assert np.median(among(strangers)) == pytest.approx(0.55, abs=0.03)
    assert all(np.linalg.norm(vector) == pytest.approx(1, abs=1e-5) for vector in reader)
    assert "resemblyzer" not in sys.modules  # its own code needs a library that is not installed


def test_the_speaker_passes_also_noisy_fast_slow_and_over_the_telephone(reader: list[voices.Float]) -> None:
    clips = speech.read(speech.LJSPEECH)[:12]
    faster = [clip.changed(soxr.resample(clip.samples, clip.rate_hz * 1.1, clip.rate_hz)) for clip in clips]
    slower = [clip.changed(soxr.resample(clip.samples, clip.rate_hz * 0.92, clip.rate_hz)) for clip in clips]
    noisy = [speech.with_noise(clip, 15) for clip in clips]
    phoned = [speech.telephone(clip) for clip in clips]
    quiet = [clip.changed(clip.samples * 0.05) for clip in clips]
    for versions in (faster, slower, noisy, phoned, quiet):
        vectors = reader + voice_of(versions)
        assert min(value or 0 for value in similarities(vectors, ["a"] * len(vectors))) > THRESHOLD


def test_a_clip_of_one_word_passes(reader: list[voices.Float]) -> None:
    clips = speech.read(speech.LJSPEECH)
    first = [(clip, speech.speech(clip)[0].start_s) for clip in clips]
    short = embed([windows(clip.at(16000), [Span(start_s, start_s + 1.2)]) for clip, start_s in first])
    vectors = reader + [vector for vector in short if vector is not None]
    assert min(value or 0 for value in similarities(vectors, ["a"] * len(vectors))) > THRESHOLD


@pytest.mark.parametrize("count", [1, 4, 10, 16])
def test_strangers_are_found_as_long_as_they_are_the_fewer(
    reader: list[voices.Float], mei: list[voices.Float], count: int
) -> None:
    mixed = mei[:count] + reader
    found = similarities(mixed, ["a"] * len(mixed))
    assert [value is not None and value < THRESHOLD for value in found] == [True] * count + [False] * len(reader)
    apart = similarities(mixed, ["mei"] * count + ["reader"] * len(reader))
    assert all(value is None or value > THRESHOLD for value in apart)


def test_other_people_are_found(reader: list[voices.Float], strangers: list[voices.Float]) -> None:
    found = similarities(reader + strangers, ["a"] * (len(reader) + len(strangers)))
    assert max(value or 1 for value in found[-4:]) < THRESHOLD


def test_two_clips_have_no_centre(reader: list[voices.Float]) -> None:
    assert similarities(reader[:2], ["a", "a"]) == [None, None]
    assert similarities(reader[:3], ["a", "a", "b"]) == [None, None, None]
    assert None not in similarities(reader[:3], ["a"] * 3)
    assert similarities([], []) == []


def test_two_people_of_one_name_are_told_and_which_clips_are_whose(
    reader: list[voices.Float], mei: list[voices.Float]
) -> None:
    found = two_voices([vector for pair in zip(mei, reader, strict=True) for vector in pair])
    assert found is not None
    assert sorted([found.larger, found.smaller]) == [list(range(0, 48, 2)), list(range(1, 48, 2))]
    uneven = two_voices(reader + mei[:12])
    assert uneven is not None and uneven.smaller == list(range(24, 36))


def test_one_person_is_one_also_in_two_rooms_and_with_a_few_strangers(
    reader: list[voices.Float], mei: list[voices.Float], strangers: list[voices.Float]
) -> None:
    noisy = voice_of([speech.with_noise(clip, 15) for clip in speech.read(speech.LJSPEECH)])
    phoned = voice_of([speech.telephone(clip) for clip in speech.read(speech.LJSPEECH)])
    for one in (reader, mei, reader + noisy, reader + phoned, reader + strangers, reader[:3], []):
        assert two_voices(one) is None


def test_no_speech_gives_no_windows_and_little_speech_one() -> None:
    silent = np.zeros(16000, np.float32)
    assert windows(silent, [Span(0, 1)]).shape == (0, 160, 40)
    assert windows(silent, []).shape == (0, 160, 40)
    clip = speech.demo(1)[0].at(16000)
    assert windows(clip, [Span(0.5, 0.9)]).shape == (1, 160, 40)
    assert windows(clip, [Span(0.3, 1.4), Span(1.9, 3.6)]).shape == (2, 160, 40)
    assert windows(np.tile(clip, 4), [Span(0, 14)]).shape == (2, 160, 40)
    assert embed([windows(silent, [])]) == [None]
    found = embed([windows(silent, []), windows(clip, [Span(0.3, 1.4)])])
    assert found[0] is None and found[1] is not None and found[1].dtype == np.float32
