"""A clip -> its sound at 16 kHz, which both of upstream's ONNX models hear; decoded by stage 1, kept for stage 2."""

from __future__ import annotations

import functools
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cosytune import files

MODEL_RATE_HZ = 16000
ARCHIVE = "sound_16k.zip"
"""Of the clips that stage 1 decoded, until stage 2 is done: 64 kB a second."""


def read_16k(path: Path) -> torch.Tensor:
    """A clip -> float32 [1, samples] at 16 kHz, the mean of its channels."""
    import soundfile

    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    mono = torch.from_numpy(samples.mean(axis=1, keepdims=True).T.copy())
    if rate_hz == MODEL_RATE_HZ or not mono.numel():
        return mono
    resampled: torch.Tensor = _resampler(rate_hz)(mono)
    return resampled


@functools.lru_cache(maxsize=8)
def _resampler(rate_hz: int) -> Any:
    """torchaudio's, whose filter takes longer to make than a clip to resample."""
    import torchaudio

    return torchaudio.transforms.Resample(rate_hz, MODEL_RATE_HZ)


class Sounds:
    """Decoded clips by the sha256 of their files, in a zip archive, whose own checksums tell a damaged one."""

    def __init__(self, archive: zipfile.ZipFile | None) -> None:
        self._archive = archive
        self._names = frozenset(archive.namelist()) if archive else frozenset()
        self._one_at_a_time = threading.Lock()

    def get(self, digest: str, path: Path) -> torch.Tensor:
        """As `read_16k`; from the archive where the sound is in it and whole."""
        if self._archive is not None and digest in self._names:
            try:
                return torch.from_numpy(np.frombuffer(self._archive.read(digest), dtype=np.float32).copy())[None]
            except (zipfile.BadZipFile, OSError, ValueError):
                pass  # damaged: the clip itself is at hand
        return read_16k(path)

    def put(self, digest: str, path: Path) -> torch.Tensor:
        """Decode, and keep for the next stage."""
        sound = read_16k(path)
        with self._one_at_a_time:
            assert self._archive is not None, "opened by writing()"
            self._archive.writestr(digest, sound.numpy().tobytes())
        return sound


@contextmanager
def writing(path: Path) -> Iterator[Sounds]:
    """An archive in place of the former one, there when the block ends well."""
    with files.atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        yield Sounds(archive)


@contextmanager
def reading(path: Path) -> Iterator[Sounds]:
    """The archive that stage 1 left, or an empty one."""
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile):
        yield Sounds(None)
        return
    with archive:
        yield Sounds(archive)
