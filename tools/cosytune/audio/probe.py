"""An audio file -> how long it is and what can decode it, or why nothing can."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import soundfile

from cosytune.audio.folder import printable

_ANY_LENGTH = (0, 0xFFFFFFFF)  # what a program that writes into a pipe leaves as the length
_SOX_ANY_LENGTH = (0x7FFFF000, 0x7F000008)  # SoX: in a WAV, in an AIFF; less what does not fill a frame
_PADDING = 4096  # bytes after the samples that may be the rest of a block
_PRINTABLE = range(0x20, 0x7F)
_SAMPLES: dict[tuple[bytes, bytes], tuple[bytes, Literal["little", "big"]]] = {
    (b"RIFF", b"WAVE"): (b"data", "little"),
    (b"FORM", b"AIFF"): (b"SSND", "big"),
    (b"FORM", b"AIFC"): (b"SSND", "big"),
}
"""What a file is -> the chunk that its samples are in, and the order of bytes in lengths."""


@dataclass(frozen=True)
class Broken:
    """Why a file cannot be used, and the remedy."""

    reason: str


@dataclass(frozen=True)
class Probe:
    """`duration_s`: as the file's header says. `is_exact`: it holds that many frames, and any of them can be found."""

    decoder: Literal["libsndfile", "ffmpeg"]
    duration_s: float
    rate_hz: int
    channels: int
    is_exact: bool = False


def probe(audio: Path) -> Probe | Broken:
    """Look at the beginning of a file; the samples are not decoded."""
    try:
        if mistaken := _mistaken(audio):
            return Broken(mistaken)
        if wrong := _wrong_length(audio):
            return Broken(wrong)
    except PermissionError:
        return Broken("permission denied; make it readable (chmod u+r)")
    except OSError as failure:
        return Broken(f"{failure.strerror}; copy it again")
    try:
        with quiet():
            info = soundfile.info(str(audio))
    except soundfile.SoundFileError:
        return _ask_ffmpeg(audio)
    if info.frames <= 0:
        return Broken("it holds no samples; record or export it again")
    is_exact = info.format in ("WAV", "WAVEX", "FLAC", "AIFF")
    return Probe("libsndfile", info.frames / info.samplerate, info.samplerate, info.channels, is_exact)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the notes that libsndfile's MP3 decoder writes to stderr, in a worker process: there is nobody else to
    write to it meanwhile.
    """
    if multiprocessing.parent_process() is None:
        yield
        return
    stderr = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


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


def _wrong_length(audio: Path) -> str | None:
    """What libsndfile says nothing about: a WAV or AIFF holds fewer bytes of samples than its header says, or more.

    A header cannot say more than 4 GB, and keeps its first number where a recorder was switched off.
    """
    with audio.open("rb") as stream:
        announced = _go_to_samples(stream)
        present = audio.stat().st_size - stream.tell()
        if announced in _ANY_LENGTH or any(0 <= length - announced < 256 for length in _SOX_ANY_LENGTH):
            return None
        if announced > present:
            return f"truncated, {announced - present} bytes of samples are missing; copy or export it again"
        stream.seek(announced, os.SEEK_CUR)
        after = stream.read(1 << 16)
    pad = announced % 2  # some programs forget it
    is_chunk = any(all(byte in _PRINTABLE for byte in after[start : start + 4]) for start in (0, pad))
    if len(after) < _PADDING or is_chunk or not any(after):
        return None
    surplus = present - announced - pad
    return f"its header says {announced} bytes of samples, and {surplus} more follow; export it again as FLAC or W64"


def _go_to_samples(stream: BinaryIO) -> int:
    """Go to the first sample of a WAV or AIFF and return how many bytes of samples its header announces; 0: unknown."""
    head = stream.read(12)
    wanted, order = _SAMPLES.get((head[:4], head[8:]), (b"", "little"))
    while wanted and len(header := stream.read(8)) == 8:
        size = int.from_bytes(header[4:], order)
        if header[:4] == wanted:
            return size
        stream.seek(size + size % 2, os.SEEK_CUR)  # chunks are padded to an even length
    return 0


def _ask_ffmpeg(audio: Path) -> Probe | Broken:
    command = ["ffprobe", "-v", "error", "-select_streams", "a:0", "-show_entries"]
    command += ["stream=duration,sample_rate,channels:format=duration"]
    done = subprocess.run([*command, "-of", "json", f"file:{audio}"], capture_output=True, stdin=subprocess.DEVNULL)
    try:
        stream, container = (said := json.loads(done.stdout))["streams"][0], said["format"]
        rate_hz, channels = int(stream["sample_rate"]), int(stream["channels"])
    except (ValueError, LookupError):
        why = done.stderr.decode(errors="replace").strip().rsplit("\n", 1)[-1].rsplit(": ", 1)[-1]
        return Broken(f"not readable as audio ({printable(why) or 'no audio stream'}); export it again as wav")
    try:
        return Probe("ffmpeg", float(stream.get("duration") or container["duration"]), rate_hz, channels)
    except (ValueError, LookupError):
        return Broken("it does not say how long it is; export it again as wav")
