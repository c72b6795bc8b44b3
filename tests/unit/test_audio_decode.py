"""Conversion: rate, loudness, peak, channels; measured on real files with another implementation where there is one."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
import soxr

from cosytune.audio import decode as decoding
from cosytune.audio.blocks import Blocks
from cosytune.audio.clip import Clip, write_clips
from cosytune.audio.decode import Silent, decode
from cosytune.audio.probe import Broken, Probe, probe
from cosytune.audio.span import Span
from cosytune.audio.track import Track
from cosytune.layout import ROOT
from cosytune.schema import AudioConfig
from recordings import speech, write_audio

SETTINGS = AudioConfig()


def tone(seconds: float = 1.5, rate_hz: int = 24000, hz: float = 220.0, level: float = 0.3) -> np.ndarray:
    """A swelling tone, float64 [n]: what comes out of it can be computed."""
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    return level * np.sin(2 * np.pi * hz * time_s) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time_s))


def take(source: Path) -> Track | Silent | Broken:
    found = probe(source)
    assert isinstance(found, Probe)
    return decode(source, found, source.parent / "track.f32", SETTINGS.sample_rate_hz)


def track(source: Path) -> Track:
    made = take(source)
    assert isinstance(made, Track)
    return made


def samples_of(made: Track) -> np.ndarray:
    return made.read(Span(0, made.duration_s))


def run(source: Path, destination: Path, settings: AudioConfig = SETTINGS) -> Clip | Silent | Broken | None:
    """A whole recording as one clip."""
    made = take(source)
    return write_clips([samples_of(made)], [destination], settings)[0] if isinstance(made, Track) else made


def ffmpeg_lufs(path: Path) -> float:
    """Integrated loudness by ffmpeg's ebur128."""
    command = ["ffmpeg", "-nostats", "-hide_banner", "-i", str(path), "-af", "ebur128", "-f", "null", "-"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return float(said.rsplit("I:", 1)[1].split()[0])


def tone_hz(path: Path) -> float:
    samples, rate_hz = soundfile.read(path)
    return float(np.argmax(np.abs(np.fft.rfft(samples))) * rate_hz / len(samples))


@pytest.mark.parametrize("rate_hz", [16000, 22050, 44100, 48000, 96000])
def test_the_rate_is_changed_as_sox_does_it(tmp_path: Path, rate_hz: int) -> None:
    """The program's `rate -v` differs by less than a 16-bit step, below the edge of either filter."""
    samples = soxr.resample(speech(3.0, 48000), 48000, rate_hz, quality="VHQ")
    samples = scipy.signal.sosfiltfilt(scipy.signal.butter(8, 5000, fs=rate_hz, output="sos"), samples)
    source = write_audio(tmp_path / "a.wav", samples - samples.mean(), rate_hz, subtype="FLOAT")
    target = tmp_path / "sox.wav"
    subprocess.run(["sox", source, "-e", "floating-point", "-b", "32", target, "rate", "-v", "24000"], check=True)
    theirs, ours = soundfile.read(target)[0], samples_of(track(source))
    assert len(ours) == pytest.approx(len(theirs), abs=1)
    inner = slice(2000, min(len(ours), len(theirs)) - 2000)
    assert np.max(np.abs(ours[inner] - theirs[inner])) < 2**-15


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
    made = track(write_audio(tmp_path / "dead.wav", stereo, subtype="FLOAT"))
    assert (made.channels, made.channels_used) == (2, 1)
    assert samples_of(made) == pytest.approx(tone(2.0), abs=1e-5)
    hiss = np.random.default_rng(0).normal(0, 1e-3, 48000)
    made = track(write_audio(tmp_path / "hiss.wav", np.stack([hiss, tone(2.0)], axis=1), subtype="FLOAT"))
    assert samples_of(made) == pytest.approx(tone(2.0), abs=1e-5)


def test_living_channels_are_averaged(tmp_path: Path) -> None:
    both = np.stack([tone(2.0), tone(2.0) * 0.5], axis=1)
    made = track(write_audio(tmp_path / "a.wav", both, subtype="FLOAT"))
    assert made.channels_used == 2
    assert samples_of(made) == pytest.approx(tone(2.0) * 0.75, abs=1e-5)


def test_channels_of_opposite_phase_do_not_cancel_each_other(tmp_path: Path) -> None:
    made = track(write_audio(tmp_path / "a.wav", np.stack([tone(2.0), -tone(2.0) * 0.9], axis=1), subtype="FLOAT"))
    assert samples_of(made) == pytest.approx(tone(2.0), abs=1e-5)


def test_an_offset_is_measured_and_taken_out(tmp_path: Path) -> None:
    made = track(write_audio(tmp_path / "a.wav", tone(2.0, level=0.2) + 0.1, subtype="FLOAT"))
    assert made.dc_offset == pytest.approx(0.1, abs=1e-3)
    assert samples_of(made).mean() == pytest.approx(0, abs=1e-4)
    assert isinstance(take(write_audio(tmp_path / "b.wav", np.full(48000, 0.1), subtype="FLOAT")), Silent)


def test_clipping_is_found_where_it_is(tmp_path: Path) -> None:
    """Loud for the second of three seconds."""
    samples = speech(3.0, 44100, level=0.4)
    samples[44100:88200] = np.clip(samples[44100:88200] * 20, -0.9, 0.9)
    made = track(write_audio(tmp_path / "a.wav", samples, 44100))
    shares = [made.original(Span(start, start + 1.0)).clipped_share for start in (0.0, 1.0, 2.0)]
    assert shares[1] > 0.01
    assert shares[0] == shares[2] == 0


def test_a_long_recording_takes_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    """Twenty minutes of stereo at 48 kHz are 460 MB as float32."""
    block = np.stack([speech(10.0, 48000), speech(10.0, 48000, take=1)], axis=1)
    with soundfile.SoundFile(tmp_path / "a.wav", "w", 48000, 2, "PCM_16") as sound:
        for _ in range(120):
            sound.write(block)
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from cosytune.audio.decode import *; from cosytune.audio.probe import *\n"
        "source = Path(sys.argv[1]); before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "track = decode(source, probe(source), source.with_suffix('.f32'), 24000)\n"
        "print(track.duration_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tools")}
    command = [sys.executable, "-c", code, str(tmp_path / "a.wav")]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
    assert float(said[0]) == pytest.approx(1200, abs=0.01)
    assert int(said[1]) < 150_000  # kB


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


def test_a_track_that_does_not_fit_on_the_disk_is_never_taken_for_written(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk."""
    source = write_audio(tmp_path / "a.wav", tone(2.0))
    code = (
        "import resource; from pathlib import Path\n"
        "from cosytune.audio.decode import *; from cosytune.audio.probe import *\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        f"source = Path({str(source)!r})\n"
        "decode(source, probe(source), source.with_suffix('.f32'), 24000)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tools")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "File too large" in done.stderr


@pytest.mark.parametrize("rate_hz", [22050, 44100])
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_long_recording_in_parts_is_the_same_as_in_one_go(tmp_path: Path, rate_hz: int, suffix: str) -> None:
    samples = np.tile(speech(9.0, rate_hz), 3)[: 25 * rate_hz + 123] + 0.02
    samples[12 * rate_hz : 14 * rate_hz] = np.clip(samples[12 * rate_hz : 14 * rate_hz] * 9, -0.9, 0.9)
    source = write_audio(tmp_path / f"a.{suffix}", samples, rate_hz)
    whole, found = track(source), probe(source)
    assert isinstance(found, Probe)
    seen = decoding.survey(Blocks(source, found))
    assert isinstance(seen, decoding.Survey)
    target = tmp_path / "parts.f32"
    parts = [decoding.Part(0, 7), decoding.Part(7, 13), decoding.Part(13)]
    made = {}
    for part in reversed(parts):  # in any order
        made[part] = decoding.render(decoding.around(source, found, part), found, seen, part, target, 24000)
    joined = decoding.finish([made[part] for part in parts], found, seen, target, 24000)
    assert isinstance(joined, Track)
    assert joined.frames == whole.frames
    assert samples_of(joined) == pytest.approx(samples_of(whole), abs=1e-6)
    assert np.array_equal(joined.clipped, whole.clipped)
    assert whole.clipped[1200:1400].sum() > 100


def test_only_what_can_be_cut_exactly_is_decoded_in_parts() -> None:
    hour = Probe("libsndfile", 3600.4, 44100, 1, is_exact=True)
    parts = decoding.parts(hour)
    assert [part.start_s for part in parts] == list(range(0, 3600, 300))[: len(parts)]
    assert all(before.end_s == after.start_s for before, after in itertools.pairwise(parts))
    assert parts[-1].end_s is None
    assert decoding.parts(Probe("libsndfile", 3600.4, 44100, 1)) == [decoding.Part()]
    assert decoding.parts(Probe("libsndfile", 599.0, 44100, 1, is_exact=True)) == [decoding.Part()]
