"""What a file says of itself: how long it is, and why it cannot be used; nothing is read short without a word."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from cosytune.audio.decode import decode
from cosytune.audio.probe import Broken, Probe, probe
from cosytune.parallel import Workers
from recordings import write_audio


def tone(seconds: float) -> np.ndarray:
    """float64 [n] at 24 kHz."""
    return 0.3 * np.sin(2 * np.pi * 220 * np.arange(round(seconds * 24000)) / 24000)


def test_a_wav_from_a_pipe_has_no_length_and_is_whole(tmp_path: Path) -> None:
    whole = write_audio(tmp_path / "whole.wav", tone(2.0))
    piped = tmp_path / "piped.wav"
    with piped.open("wb") as stream:
        subprocess.run(["ffmpeg", "-v", "error", "-i", str(whole), "-f", "wav", "-"], stdout=stream, check=True)
    found = probe(piped)
    assert isinstance(found, Probe)
    assert found.duration_s == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize("kind", ["wav", "aiff"])
def test_what_sox_writes_into_a_pipe_is_whole(tmp_path: Path, kind: str) -> None:
    """It knows the length of a file, but not of what it reads from a pipe."""
    raw = np.repeat(tone(2.0) * 32767, 3).astype("<i2").tobytes()
    command = ["sox", "-t", "raw", "-r", "24000", "-e", "signed", "-b", "16", "-c", "3", "-", "-t", kind, "-"]
    piped = tmp_path / f"a.{kind}"
    piped.write_bytes(subprocess.run(command, input=raw, capture_output=True, check=True).stdout)
    found = probe(piped)
    assert isinstance(found, Probe)
    assert found.duration_s == pytest.approx(2.0, abs=0.01)


def wrong(source: Path, data: bytes) -> str:
    """Why the file cannot be used with `data` in it."""
    source.write_bytes(data)
    found = probe(source)
    assert isinstance(found, Broken), found
    return found.reason


def test_half_an_aiff_is_truncated(tmp_path: Path) -> None:
    source = write_audio(tmp_path / "a.aiff", tone(2.0))
    assert isinstance(probe(source), Probe)
    data = source.read_bytes()
    assert wrong(source, data[: len(data) // 2]).startswith(f"truncated, {len(data) - len(data) // 2} bytes of samples")


@pytest.mark.parametrize("kept", [20000, 20001])
def test_a_header_that_says_too_little_is_a_mistake_and_not_a_shorter_recording(tmp_path: Path, kept: int) -> None:
    """As after 4 GB, and as a recorder leaves it that was switched off."""
    source = write_audio(tmp_path / "a.wav", tone(2.0))
    data = source.read_bytes()
    assert data[36:40] == b"data"
    reason = wrong(source, data[:40] + kept.to_bytes(4, "little") + data[44:])
    assert reason == (
        f"its header says {kept} bytes of samples, and {96000 - kept - kept % 2} more follow; "
        "export it again as FLAC or W64"
    )


@pytest.mark.parametrize("after", [b"LIST" + (40000).to_bytes(4, "little") + b"\1" * 40000, bytes(40000), b"\1" * 500])
def test_what_may_follow_the_samples(tmp_path: Path, after: bytes) -> None:
    """A chunk with notes, zeros, the rest of a block."""
    source = write_audio(tmp_path / "a.wav", tone(2.0))
    source.write_bytes(source.read_bytes() + after)
    found = probe(source)
    assert isinstance(found, Probe)
    assert found.duration_s == 2.0


def test_a_stream_that_does_not_say_how_long_it_is(tmp_path: Path) -> None:
    whole, piped = write_audio(tmp_path / "whole.wav", tone(2.0)), tmp_path / "a.wma"
    with piped.open("wb") as stream:  # a recording of a browser has no length, either
        command = ["ffmpeg", "-v", "error", "-i", str(whole), "-c:a", "libopus", "-f", "webm", "-"]
        subprocess.run(command, stdout=stream, check=True)
    assert wrong(piped, piped.read_bytes()) == "it does not say how long it is; export it again as wav"


def test_a_decoder_that_dies_within_a_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_audio(tmp_path / "a.m4a", tone(2.0))
    found = probe(source)
    assert isinstance(found, Probe)
    dying = tmp_path / "ffmpeg"
    dying.write_text("#!/bin/sh\nhead -c 4099 /dev/zero\nkill -9 $$\n")
    dying.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    made = decode(source, found, tmp_path / "track.f32", 24000)
    assert made == Broken("cannot be decoded (ffmpeg ended with status -9); export it again as wav")


def test_the_notes_of_the_mp3_decoder_are_not_the_users(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "a.mp3"
    source.write_bytes(np.random.default_rng(0).bytes(50000))
    with Workers(1) as workers:
        (found,) = workers.map(probe, [source], "looking", "files")
    assert isinstance(found, Broken)
    assert "mpg123" not in capfd.readouterr().err
