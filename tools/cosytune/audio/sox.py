"""The sox program: mono samples -> 16 bits with dither; the same input, the same bytes."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
from numpy.typing import NDArray

from cosytune.errors import UserError

_RAW = ("-t", "raw", "-L")
_FLOAT = (*_RAW, "-e", "floating-point", "-b", "32", "-c", "1")
_SIXTEEN_BITS = (*_RAW, "-e", "signed-integer", "-b", "16", "-c", "1")


def require_programs() -> None:
    """Sox and ffmpeg, or an error with the command that installs them."""
    missing = [program for program in ("sox", "ffmpeg", "ffprobe") if shutil.which(program) is None]
    if missing:
        raise UserError(
            f"{', '.join(missing)}: not installed; run tools/install.sh, or apt-get install sox libsox-fmt-all ffmpeg"
        )


def dither(samples: NDArray[np.floating], rate_hz: int) -> bytes:
    """Mono samples, full scale = 1 -> 16-bit little-endian samples. -R: the draws are the same every time."""
    command = ["sox", "-R", "-V1", *_FLOAT, "-r", str(rate_hz), "-", *_SIXTEEN_BITS, "-", "dither"]
    done = subprocess.run(command, input=samples.astype("<f4").tobytes(), capture_output=True)
    if done.returncode != 0 or len(done.stdout) != 2 * len(samples):
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode(errors='replace')}")
    return done.stdout
