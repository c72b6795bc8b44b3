"""The speech detector against silero-vad's own code, and a working track heard in parts, at any level and rate."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pyopenjtalk
import pytest
import soundfile
import soxr

from cosytune.audio.listen import Heard, join, listen, parts
from cosytune.audio.span import Span
from cosytune.audio.vad import FRAME_S, RATE_HZ, SpeechDetector, speech_spans
from cosytune.layout import ROOT

LJSPEECH = ROOT.parent / "shared" / "data" / "ljspeech24"


@pytest.fixture(scope="module")
def detector() -> SpeechDetector:
    return SpeechDetector()


@pytest.fixture(scope="module")
def spoken() -> np.ndarray:
    """Japanese sentences with pauses, float32 [n] at 48 kHz, about 24 s."""
    sentences = (
        "今日はとても良い天気ですね。",
        "明日は、雨が降るでしょう。",
        "はい。",
        "音声を合成する試験をしています。",
    )
    pieces = []
    for sentence in sentences * 3:
        wave, rate_hz = pyopenjtalk.tts(sentence)
        assert rate_hz == 48000
        pieces += [wave / 32768, np.zeros(14400)]
    return np.concatenate(pieces).astype(np.float32)


def lj(number: int) -> np.ndarray:
    if not LJSPEECH.is_dir():
        pytest.skip("../shared/data/ljspeech24 is not there")
    samples, rate_hz = soundfile.read(LJSPEECH / f"LJ001-{number:04d}.wav", dtype="float32")
    return soxr.resample(samples, rate_hz, RATE_HZ)


def heard_at(samples: np.ndarray, rate_hz: int, detector: SpeechDetector, track: Path, part_s: int = 300) -> Heard:
    samples.astype("<f4").tofile(track)
    size = part_s * rate_hz
    borders = [(start, min(start + size, len(samples))) for start in range(0, len(samples), size)]
    return join([listen(track, rate_hz, start, end, detector) for start, end in borders])


def assert_alike(found: list[Span], expected: list[Span], within_s: float) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.start_s == pytest.approx(other.start_s, abs=within_s)
        assert one.end_s == pytest.approx(other.end_s, abs=within_s)


@pytest.mark.parametrize("number", [None, 1, 9])
def test_probabilities_are_those_of_silero_vad(
    detector: SpeechDetector, spoken: np.ndarray, number: int | None
) -> None:
    import torch
    from silero_vad import load_silero_vad

    samples = soxr.resample(spoken, 48000, RATE_HZ)[: 20 * RATE_HZ] if number is None else lj(number)
    samples = np.concatenate([samples[::-1], samples])  # several blocks of the model, speech at their borders
    ours = detector.probabilities([samples])
    np.testing.assert_allclose(ours, load_silero_vad(sequence=True).audio_forward(samples), atol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stock = load_silero_vad(onnx=True).audio_forward(torch.from_numpy(samples), RATE_HZ)
    np.testing.assert_allclose(ours, stock.numpy().reshape(-1), atol=1e-4)
    assert ours.dtype == np.float32
    assert (ours > 0.9).any()


def test_blocks_of_any_size_give_the_same(detector: SpeechDetector, spoken: np.ndarray) -> None:
    samples = soxr.resample(spoken, 48000, RATE_HZ)
    cuts = np.sort(np.random.default_rng(1).integers(0, len(samples), 40))
    whole = detector.probabilities([samples])
    np.testing.assert_array_equal(detector.probabilities(np.split(samples, cuts)), whole)
    assert len(whole) == -(-len(samples) // 512)
    assert len(detector.probabilities([])) == 0


def test_torch_stays_out_of_the_process() -> None:
    code = (
        "import sys; from cosytune.audio.vad import SpeechDetector; SpeechDetector(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.8])
def test_spans_are_those_of_silero_vad(threshold: float) -> None:
    from silero_vad.utils_vad import get_speech_timestamps_from_probs

    draw = np.random.default_rng(7)
    seen = 0
    for _ in range(200):
        walk = np.cumsum(draw.normal(scale=draw.uniform(0.1, 1.0), size=draw.integers(1, 300)))
        probabilities = ((np.sin(walk) + 1) / 2).astype(np.float32)
        samples = len(probabilities) * 512 - int(draw.integers(0, 512))
        theirs = get_speech_timestamps_from_probs(
            probabilities,
            threshold=threshold,
            min_silence_duration_ms=64,
            min_speech_duration_ms=100,
            speech_pad_ms=0,
            audio_length_samples=samples,
        )
        found = speech_spans(probabilities, samples / RATE_HZ, threshold)
        assert found == [Span(span["start"] / RATE_HZ, span["end"] / RATE_HZ) for span in theirs]
        seen += len(found)
    assert seen > 200


def test_parts_heard_apart_are_as_the_whole(detector: SpeechDetector, spoken: np.ndarray, tmp_path: Path) -> None:
    samples = soxr.resample(spoken, 48000, 24000)
    whole = heard_at(samples, 24000, detector, tmp_path / "a")
    joined = heard_at(samples, 24000, detector, tmp_path / "b", part_s=8)
    assert joined.duration_s == pytest.approx(len(samples) / 24000)
    np.testing.assert_array_equal(joined.levels_db, whole.levels_db)
    assert len(joined.probabilities) == len(whole.probabilities) == np.ceil(whole.duration_s / FRAME_S)
    for border in range(250, len(whole.probabilities), 250):
        first = slice(border, border + 6)
        np.testing.assert_allclose(joined.probabilities[first], whole.probabilities[first], atol=0.1)
    assert_alike(joined.speech(0.5), whole.speech(0.5), within_s=0.1)
    assert len(whole.speech(0.5)) > 10


@pytest.mark.parametrize("rate_hz", [16000, 22050, 44100])
def test_any_rate(detector: SpeechDetector, spoken: np.ndarray, tmp_path: Path, rate_hz: int) -> None:
    expected = heard_at(soxr.resample(spoken, 48000, 24000), 24000, detector, tmp_path / "a")
    found = heard_at(soxr.resample(spoken, 48000, rate_hz), rate_hz, detector, tmp_path / "b", part_s=8)
    assert abs(len(found.levels_db) - len(expected.levels_db)) <= 1
    assert_alike(found.speech(0.5), expected.speech(0.5), within_s=0.1)


@pytest.mark.parametrize("gain_db", [-60, -30, 20])
def test_any_level(detector: SpeechDetector, spoken: np.ndarray, tmp_path: Path, gain_db: float) -> None:
    samples = soxr.resample(spoken, 48000, 24000)
    expected = heard_at(samples, 24000, detector, tmp_path / "a").speech(0.5)
    found = heard_at(samples * 10 ** (gain_db / 20), 24000, detector, tmp_path / "b").speech(0.5)
    assert_alike(found, expected, within_s=0.04)


def test_noise_and_digital_silence_are_no_speech(detector: SpeechDetector, tmp_path: Path) -> None:
    noise = np.random.default_rng(2).normal(scale=0.01, size=10 * 24000)
    assert heard_at(noise, 24000, detector, tmp_path / "a").speech(0.5) == []
    assert heard_at(np.zeros(10 * 24000), 24000, detector, tmp_path / "b").speech(0.5) == []


def test_levels_are_rms_over_10_ms(detector: SpeechDetector, tmp_path: Path) -> None:
    samples = np.repeat(np.array([0.1, 0.01, 0.0], np.float32), 240)
    heard = heard_at(np.append(samples, np.float32(1)), 24000, detector, tmp_path / "a")
    np.testing.assert_allclose(heard.levels_db, [-20, -40, -120, 0], atol=1e-4)


def test_parts_cover_a_track_once() -> None:
    found = parts(24000 * 700 + 5, 24000)
    assert found == [(0, 7200000), (7200000, 14400000), (14400000, 16800005)]
    assert all(start * 1000 % (32 * 24000) == 0 for start, _ in found)


def test_a_recording_that_begins_with_a_word_loses_nothing(detector: SpeechDetector, tmp_path: Path) -> None:
    """In this clip somebody speaks from 0.02 s on; a detector that starts cold hears it at 0.35 s."""
    heard = heard_at(lj(17), RATE_HZ, detector, tmp_path / "track.f32")
    assert heard.speech(0.5)[0].start_s < 0.1
