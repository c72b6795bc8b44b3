"""The sox program: mono samples -> another rate, or 16 bits with dither; the same input, the same bytes."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cosytune.errors import UserError

Samples = NDArray[np.float32]

_RAW = ("-t", "raw", "-L")
_FLOAT = (*_RAW, "-e", "floating-point", "-b", "32", "-c", "1")
_SIXTEEN_BITS = (*_RAW, "-e", "signed-integer", "-b", "16", "-c", "1")
_HEADROOM = 0.5  # the resampler overshoots, and sox cuts what passes full scale


def require_programs() -> None:
    """Sox and ffmpeg, or an error with the command that installs them."""
    missing = [program for program in ("sox", "ffmpeg", "ffprobe") if shutil.which(program) is None]
    if missing:
        raise UserError(
            f"{', '.join(missing)}: not installed; run tools/install.sh, or apt-get install sox libsox-fmt-all ffmpeg"
        )


def resample(blocks: Iterable[Samples], peak: float, rate_hz: int, wanted_hz: int, destination: Path) -> int:
    """`rate -v` over a stream, written to `destination` as raw little-endian float32; -> frames written.

    `peak` is the largest sample of all; nothing is clipped. What `blocks` raises comes through. Python writes the
    file: sox ends with status 0 when the disk is full.
    """
    scale = np.float32(_HEADROOM / peak)
    source, target = [*_FLOAT, "-r", str(rate_hz), "-"], [*_FLOAT, "-r", str(wanted_hz), "-"]
    command = ["sox", "-R", "-V1", *source, *target, "rate", "-v", str(wanted_hz)]
    frames = 0
    with destination.open("wb") as track:
        for data in _through((block * scale for block in blocks), command):
            samples = np.frombuffer(data, "<f4") / scale
            track.write(samples.astype("<f4", copy=False).tobytes())
            frames += len(samples)
    return frames


def dither(samples: NDArray[np.floating], rate_hz: int) -> bytes:
    """Mono samples, full scale = 1 -> 16-bit little-endian samples. -R: the draws are the same every time."""
    command = ["sox", "-R", "-V1", *_FLOAT, "-r", str(rate_hz), "-", *_SIXTEEN_BITS, "-", "dither"]
    done = subprocess.run(command, input=samples.astype("<f4").tobytes(), capture_output=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode(errors='replace')}")
    return done.stdout


def _through(blocks: Iterable[Samples], command: list[str]) -> Iterator[bytes]:
    """What the program makes of the blocks, while they are still coming."""
    failures: list[Exception] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as sox:
        assert sox.stdout is not None and sox.stderr is not None
        feeder = threading.Thread(target=_feed, args=(blocks, sox, failures))
        feeder.start()
        try:
            while data := sox.stdout.read(1 << 20):
                yield data
        except BaseException:
            sox.kill()  # or the feeder would wait for a reader for ever
            raise
        finally:
            feeder.join()
        said = sox.stderr.read().decode(errors="replace")
    if failures:
        raise failures[0]
    if sox.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: status {sox.returncode}: {said}")


def _feed(blocks: Iterable[Samples], sox: subprocess.Popen[bytes], failures: list[Exception]) -> None:
    """In a thread of its own: sox reads and writes at the same time."""
    assert sox.stdin is not None
    try:
        for block in blocks:
            sox.stdin.write(block.astype("<f4", copy=False).tobytes())
    except BrokenPipeError:
        pass  # sox ended early; its status says so
    except Exception as failure:
        failures.append(failure)
    finally:
        with contextlib.suppress(BrokenPipeError):
            sox.stdin.close()
