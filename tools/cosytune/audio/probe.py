"""An audio file -> how long it is and what can decode it, or why nothing can."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import soundfile

from cosytune.audio.folder import printable

_ANY_LENGTH = (0, 0xFFFFFFFF)  # what a program that writes into a pipe leaves as the length


@dataclass(frozen=True)
class Broken:
    """Why a file cannot be used, and the remedy."""

    reason: str


@dataclass(frozen=True)
class Probe:
    """`duration_s`: as the file's header says."""

    decoder: Literal["libsndfile", "ffmpeg"]
    duration_s: float
    rate_hz: int
    channels: int


def probe(audio: Path) -> Probe | Broken:
    """Look at the beginning of a file; the samples are not decoded."""
    try:
        if mistaken := _mistaken(audio):
            return Broken(mistaken)
        if missing := _missing_bytes(audio):
            return Broken(f"truncated, {missing} bytes of samples are missing; copy or export it again")
    except OSError as failure:
        return Broken(f"{failure.strerror}; make it readable (chmod u+r)")
    try:
        info = soundfile.info(str(audio))
    except soundfile.SoundFileError:
        return _ask_ffmpeg(audio)
    if info.frames <= 0:
        return Broken("it holds no samples; record or export it again")
    return Probe("libsndfile", info.frames / info.samplerate, info.samplerate, info.channels)


def _mistaken(audio: Path) -> str | None:
    """What is often saved under an audio file's name by mistake."""
    with audio.open("rb") as stream:
        head = stream.read(512)
    if not head:
        return "empty (0 bytes); copy it again"
    if head.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, not the audio; run git lfs pull where it came from and copy it again"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, not audio; download the audio file itself"
    return None


def _missing_bytes(audio: Path) -> int:
    """How many bytes fewer than its header says a WAV holds: libsndfile reads what is there and says nothing."""
    with audio.open("rb") as stream:
        head = stream.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return 0
        data_bytes = _data_chunk_bytes(stream)
        present = audio.stat().st_size - stream.tell()
    return 0 if data_bytes in _ANY_LENGTH else max(0, data_bytes - present)


def _data_chunk_bytes(stream: BinaryIO) -> int:
    """Go to the first sample of a WAV and return how many bytes of samples its header announces."""
    while len(header := stream.read(8)) == 8:
        size = int.from_bytes(header[4:], "little")
        if header[:4] == b"data":
            return size
        stream.seek(size + size % 2, 1)  # chunks are padded to an even length
    return 0


def _ask_ffmpeg(audio: Path) -> Probe | Broken:
    command = ["ffprobe", "-v", "error", "-select_streams", "a:0", "-show_entries"]
    command += ["stream=duration,sample_rate,channels:format=duration"]
    done = subprocess.run([*command, "-of", "json", f"file:{audio}"], capture_output=True, stdin=subprocess.DEVNULL)
    try:
        said = json.loads(done.stdout)
        stream = said["streams"][0]
        duration_s = float(stream.get("duration") or said["format"]["duration"])
        return Probe("ffmpeg", duration_s, int(stream["sample_rate"]), int(stream["channels"]))
    except (ValueError, LookupError):
        why = done.stderr.decode(errors="replace").strip().rsplit("\n", 1)[-1].rsplit(": ", 1)[-1]
        return Broken(f"not readable as audio ({printable(why) or 'no audio stream'}); export it again as wav")
