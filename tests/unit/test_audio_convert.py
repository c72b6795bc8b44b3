"""Conversion: rate, loudness, peak, channels; measured on real files with another implementation where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cosytune.audio import loudness
from cosytune.audio.convert import Clip, Silent, convert
from cosytune.audio.probe import Broken, Probe, probe
from cosytune.layout import ROOT
from cosytune.schema import AudioConfig
from recordings import tone, write_audio

SETTINGS = AudioConfig()


def run(source: Path, destination: Path, settings: AudioConfig = SETTINGS) -> Clip | Silent | Broken:
    found = probe(source)
    assert isinstance(found, Probe)
    return convert(source, found, destination, settings)


def ffmpeg_lufs(path: Path) -> float:
    """Integrated loudness by ffmpeg's ebur128."""
    command = ["ffmpeg", "-nostats", "-hide_banner", "-i", str(path), "-af", "ebur128", "-f", "null", "-"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return float(said.rsplit("I:", 1)[1].split()[0])


def tone_hz(path: Path) -> float:
    samples, rate_hz = soundfile.read(path)
    return float(np.argmax(np.abs(np.fft.rfft(samples))) * rate_hz / len(samples))


@pytest.mark.parametrize("rate_hz", [8000, 16000, 22050, 24000, 44100, 48000, 96000])
@pytest.mark.parametrize("level", [0.01, 0.9])
def test_any_rate_and_level_ends_at_one_rate_and_loudness(tmp_path: Path, rate_hz: int, level: float) -> None:
    source = write_audio(tmp_path / "a.wav", tone(3.0, rate_hz, 440.0, level), rate_hz, subtype="FLOAT")
    clip = run(source, tmp_path / "out.wav")
    assert isinstance(clip, Clip)
    assert clip.duration_s == pytest.approx(3.0, abs=1e-3)
    assert clip.loudness_lufs == pytest.approx(-23, abs=0.05)
    assert ffmpeg_lufs(tmp_path / "out.wav") == pytest.approx(-23, abs=0.3)
    assert tone_hz(tmp_path / "out.wav") == pytest.approx(440, abs=1)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_any_depth_says_the_same(tmp_path: Path, subtype: str) -> None:
    source = write_audio(tmp_path / "a.wav", tone(2.0), subtype=subtype)
    assert isinstance(run(source, tmp_path / "out.wav"), Clip)
    samples, _ = soundfile.read(tmp_path / "out.wav")
    reference = tone(2.0)
    assert np.corrcoef(samples, reference)[0, 1] > 0.999


def test_the_peak_ceiling_wins_over_the_loudness(tmp_path: Path) -> None:
    peaky = tone(3.0, level=0.02)
    peaky[36000:36040] = np.sin(np.arange(40)) * 0.95
    clip = run(write_audio(tmp_path / "a.wav", peaky), tmp_path / "out.wav", AudioConfig(loudness_lufs=-16.0))
    assert isinstance(clip, Clip)
    assert clip.loudness_lufs < -20
    assert clip.true_peak_dbfs == pytest.approx(-1.0, abs=0.01)
    samples, _ = soundfile.read(tmp_path / "out.wav")
    assert np.max(np.abs(samples)) <= 10 ** (-0.95 / 20)


def test_samples_beyond_full_scale_are_not_clipped(tmp_path: Path) -> None:
    source = write_audio(tmp_path / "a.wav", tone(2.0, 44100, 300.0, 3.0), 44100, subtype="FLOAT")
    assert isinstance(run(source, tmp_path / "out.wav"), Clip)
    samples, _ = soundfile.read(tmp_path / "out.wav")
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    harmonics = spectrum[1700:1900].max()  # the third harmonic, 900 Hz: what clipping adds
    assert harmonics < spectrum.max() * 1e-3


def test_a_dead_channel_does_not_halve_the_living_one(tmp_path: Path) -> None:
    stereo = np.stack([tone(2.0), np.zeros(48000)], axis=1)
    assert np.array_equal(loudness.mix_to_mono(stereo), tone(2.0))
    both = np.stack([tone(2.0), tone(2.0) * 0.5], axis=1)
    assert loudness.mix_to_mono(both) == pytest.approx(tone(2.0) * 0.75)
    assert isinstance(run(write_audio(tmp_path / "a.wav", stereo), tmp_path / "out.wav"), Clip)
    assert soundfile.info(tmp_path / "out.wav").channels == 1


@pytest.mark.parametrize("level", [0.0, 0.0005])
def test_silence_is_named_and_not_written(tmp_path: Path, level: float) -> None:
    result = run(write_audio(tmp_path / "a.wav", tone(2.0, level=level)), tmp_path / "out.wav")
    assert isinstance(result, Silent)
    assert result.peak_dbfs < -60
    assert not (tmp_path / "out.wav").exists()


@pytest.mark.parametrize("seconds", [0.05, 0.39, 0.4, 0.41])
def test_clips_around_the_shortest_measurable_block(tmp_path: Path, seconds: float) -> None:
    source = write_audio(tmp_path / "a.wav", tone(seconds, hz=1000, level=0.1))
    clip = run(source, tmp_path / "out.wav")
    assert isinstance(clip, Clip)
    assert clip.source_lufs == pytest.approx(-26, abs=1.5)  # a 1 kHz tone at -20 dBFS peak is about -23, less its swell


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    source = write_audio(tmp_path / "a.m4a", tone(2.0, 44100), 44100)
    for name in ("1.wav", "2.wav"):
        assert isinstance(run(source, tmp_path / name), Clip)
    assert (tmp_path / "1.wav").read_bytes() == (tmp_path / "2.wav").read_bytes()


def test_dither_is_there(tmp_path: Path) -> None:
    """A tone below one 16-bit step survives only with dither."""
    samples = np.concatenate([tone(1.0, hz=1000, level=0.5), 1e-5 * np.sin(2 * np.pi * 500 * np.arange(48000) / 24000)])
    assert isinstance(run(write_audio(tmp_path / "a.wav", samples, subtype="FLOAT"), tmp_path / "out.wav"), Clip)
    quiet = soundfile.read(tmp_path / "out.wav")[0][26000:46000]
    spectrum = np.abs(np.fft.rfft(quiet * np.hanning(len(quiet))))
    frequency = np.argmax(spectrum) * 24000 / len(quiet)
    assert np.any(quiet != 0)
    assert frequency == pytest.approx(500, abs=5)


def test_an_mp3_named_wav_is_read_by_its_content(tmp_path: Path) -> None:
    mp3 = write_audio(tmp_path / "a.mp3", tone(2.0, 44100), 44100)
    mp3.rename(tmp_path / "a.wav")
    clip = run(tmp_path / "a.wav", tmp_path / "out.wav")
    assert isinstance(clip, Clip)
    assert clip.duration_s == pytest.approx(2.0, abs=0.1)


def test_a_wav_from_a_pipe_has_no_length_and_is_whole(tmp_path: Path) -> None:
    whole = write_audio(tmp_path / "whole.wav", tone(2.0))
    piped = tmp_path / "piped.wav"
    with piped.open("wb") as stream:
        subprocess.run(["ffmpeg", "-v", "error", "-i", str(whole), "-f", "wav", "-"], stdout=stream, check=True)
    found = probe(piped)
    assert isinstance(found, Probe)
    assert found.duration_s == pytest.approx(2.0, abs=0.01)


def test_a_clip_that_does_not_fit_on_the_disk_is_never_taken_for_written(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: sox itself ends with status 0 on it."""
    source = write_audio(tmp_path / "a.wav", tone(2.0))
    code = (
        "import resource; from pathlib import Path\n"
        "from cosytune.audio.convert import *; from cosytune.audio.probe import *\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        f"source, target = Path({str(source)!r}), Path({str(tmp_path / 'out.wav')!r})\n"
        "convert(source, probe(source), target, AudioConfig())"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tools")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "File too large" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]
