"""An audio file of any format -> a mono 16-bit WAV at one rate and one loudness; the same input, the same bytes."""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from cosytune import files
from cosytune.audio import loudness
from cosytune.audio.folder import printable
from cosytune.audio.loudness import Samples
from cosytune.audio.probe import Broken, Probe
from cosytune.errors import UserError
from cosytune.schema import AudioConfig

_HEADROOM = 0.5  # the resampler overshoots, and sox cuts what passes full scale


@dataclass(frozen=True)
class Clip:
    """What was written. `source_lufs`: before the gain; `true_peak_dbfs`: after it."""

    duration_s: float
    loudness_lufs: float
    source_lufs: float
    gain_db: float
    true_peak_dbfs: float


@dataclass(frozen=True)
class Silent:
    """Nothing written: there is no speech to hear at this peak."""

    peak_dbfs: float


def require_programs() -> None:
    """Sox and ffmpeg, or an error with the command that installs them."""
    missing = [program for program in ("sox", "ffmpeg", "ffprobe") if shutil.which(program) is None]
    if missing:
        raise UserError(
            f"{', '.join(missing)}: not installed; run tools/install.sh, or apt-get install sox libsox-fmt-all ffmpeg"
        )


def convert(audio: Path, found: Probe, destination: Path, settings: AudioConfig) -> Clip | Silent | Broken:
    """Decode, mix to mono, resample, bring to the loudness, write `destination` atomically."""
    try:
        decoded, rate_hz = _decode(audio, found)
    except _DecodingError as failure:
        return Broken(f"cannot be decoded ({printable(str(failure))}); export it again as wav")
    if not np.isfinite(decoded).all():
        return Broken("it holds NaN or infinite samples; export it again as 16-bit wav")
    mono = loudness.mix_to_mono(decoded)
    peak_dbfs = loudness.peak_dbfs(mono)
    if peak_dbfs < loudness.SILENCE_DBFS:
        return Silent(round(peak_dbfs, 2))
    samples = _resample(mono, rate_hz, settings.sample_rate_hz)
    source_lufs = loudness.measure_lufs(samples, settings.sample_rate_hz)
    if source_lufs is None:
        return Silent(round(peak_dbfs, 2))
    gain_db = loudness.gain_db(source_lufs, samples, settings.loudness_lufs, settings.peak_ceiling_dbfs)
    louder = samples * 10 ** (gain_db / 20)
    _write(louder, settings.sample_rate_hz, destination)
    return Clip(
        duration_s=len(samples) / settings.sample_rate_hz,
        loudness_lufs=round(source_lufs + gain_db, 2),
        source_lufs=round(source_lufs, 2),
        gain_db=round(gain_db, 2),
        true_peak_dbfs=round(loudness.true_peak_dbfs(louder), 2),
    )


class _DecodingError(Exception):
    """The decoder's own words."""


def _decode(audio: Path, found: Probe) -> tuple[Samples, int]:
    """-> (float64 [frames, channels], rate in Hz)."""
    if found.decoder == "libsndfile":
        return _read(audio)
    with tempfile.TemporaryDirectory() as directory:
        wav = Path(directory) / "decoded.wav"
        command = ["ffmpeg", "-nostdin", "-v", "error", "-xerror", "-i", f"file:{audio}", "-map", "0:a:0", "-vn"]
        done = subprocess.run([*command, "-c:a", "pcm_f32le", "-bitexact", str(wav)], capture_output=True)
        if done.returncode != 0:
            raise _DecodingError(done.stderr.decode(errors="replace").strip().rsplit("\n", 1)[-1])
        return _read(wav)


def _read(audio: Path) -> tuple[Samples, int]:
    try:
        with soundfile.SoundFile(str(audio)) as sound:
            promised, exact = sound.frames, sound.format in ("WAV", "FLAC", "AIFF")
            samples = sound.read(dtype="float64", always_2d=True)
            rate_hz = int(sound.samplerate)
    except soundfile.SoundFileError as failure:
        raise _DecodingError(str(failure)) from None
    if exact and len(samples) < promised:
        raise _DecodingError(f"truncated, {promised - len(samples)} of {promised} frames are missing")
    return samples, rate_hz


def _resample(mono: Samples, rate_hz: int, wanted_hz: int) -> Samples:
    """`rate -v`, scaled around it so that nothing is clipped."""
    scale = _HEADROOM / np.max(np.abs(mono))
    out = _sox(mono * scale, rate_hz, ["-e", "floating-point", "-b", "32"], ["rate", "-v", str(wanted_hz)])
    resampled: Samples = np.frombuffer(out, "<f4").astype(np.float64) / scale
    return resampled


def _write(samples: Samples, rate_hz: int, destination: Path) -> None:
    """Dithered to 16 bits. Python writes the file: sox ends with status 0 when the disk is full."""
    content = io.BytesIO()
    with wave.open(content, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(rate_hz)
        wav.writeframes(_sox(samples, rate_hz, ["-e", "signed-integer", "-b", "16"], ["dither"]))
    files.write_bytes(destination, content.getvalue())


def _sox(samples: Samples, rate_hz: int, encoding: list[str], effects: list[str]) -> bytes:
    """Mono samples -> raw ones, little-endian, through `effects`. -R: the dither's draws are the same every time."""
    raw = ["-t", "raw", "-L"]
    source = [*raw, "-e", "floating-point", "-b", "32", "-c", "1", "-r", str(rate_hz), "-"]
    command = ["sox", "-R", "-V1", *source, *raw, *encoding, "-", *effects]
    done = subprocess.run(command, input=samples.astype("<f4").tobytes(), capture_output=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode(errors='replace')}")
    return done.stdout
