"""An audio file of any format -> its samples, block by block, in memory that does not grow with the file."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from cosytune.audio.probe import Probe, quiet

Block = NDArray[np.float32]
"""[frames, channels], full scale = 1."""

_FRAMES = 1 << 20
_KEPT_SAMPLES = 1 << 23  # 32 MB: a clip is decoded once and kept for a second pass, a long recording is decoded again


class DecodingError(Exception):
    """The decoder's own words."""


class Blocks:
    """The samples of a file, as often as they are asked for; raises DecodingError on the way.

    `first` and `last`: frames [first, last) of a file that is exact.
    """

    def __init__(self, audio: Path, found: Probe, first: int = 0, last: int | None = None) -> None:
        self._audio, self._found = audio, found
        self._first, self._last = first, last
        self._kept: list[Block] | None = None

    def __iter__(self) -> Iterator[Block]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[Block] = []
        samples = 0
        decoder = self._libsndfile if self._found.decoder == "libsndfile" else self._ffmpeg
        for block in decoder():
            samples += block.size
            if samples <= _KEPT_SAMPLES:
                kept.append(block)
            else:
                kept.clear()
            yield block
        self._kept = kept if samples <= _KEPT_SAMPLES else None

    def _libsndfile(self) -> Iterator[Block]:
        read = 0
        try:
            with quiet():
                opened = soundfile.SoundFile(str(self._audio))
            with opened as sound:
                last = sound.frames if self._last is None else min(self._last, sound.frames)
                promised = last - self._first if self._found.is_exact else 0
                if self._first:
                    sound.seek(self._first)
                while len(block := _read(sound, promised - read if self._found.is_exact else _FRAMES)):
                    read += len(block)
                    yield block
        except soundfile.SoundFileError as failure:
            raise DecodingError(str(failure)) from None
        if read < promised:
            raise DecodingError(f"truncated, {promised - read} of {promised} frames are missing")

    def _ffmpeg(self) -> Iterator[Block]:
        channels, rate_hz = self._found.channels, self._found.rate_hz
        command = ["ffmpeg", "-nostdin", "-v", "error", "-xerror", "-i", f"file:{self._audio}", "-map", "0:a:0", "-vn"]
        command += ["-f", "f32le", "-c:a", "pcm_f32le", "-ac", str(channels), "-ar", str(rate_hz), "-"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as ffmpeg:
            assert ffmpeg.stdout is not None and ffmpeg.stderr is not None
            while data := ffmpeg.stdout.read(4 * channels * _FRAMES):
                whole = len(data) // (4 * channels)  # ffmpeg may die within a frame; its status tells
                yield np.frombuffer(data, "<f4", whole * channels).reshape(-1, channels)
            said = ffmpeg.stderr.read().decode(errors="replace").strip()
        if ffmpeg.returncode != 0:
            raise DecodingError(said.rsplit("\n", 1)[-1] or f"ffmpeg ended with status {ffmpeg.returncode}")


def _read(sound: soundfile.SoundFile, wanted: int) -> Block:
    with quiet():
        block: Block = sound.read(min(wanted, _FRAMES), dtype="float32", always_2d=True)
    return block
