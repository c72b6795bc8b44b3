"""Real speech, and the ways in which recordings are spoilt: what the tests of the quality gates measure."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from cosytune.audio.span import Span
from cosytune.audio.vad import SpeechDetector, speech_spans
from cosytune.layout import ROOT
from cosytune.quality.clipping import clipped_samples
from cosytune.quality.duplicates import fingerprint
from cosytune.quality.gates import Candidate
from cosytune.quality.measure import Measured, Original, measure
from cosytune.quality.voices import windows

LJSPEECH = ROOT.parent / "shared" / "data" / "ljspeech24"
COMMON_VOICE = ROOT.parent / "shared" / "data" / "cv_ja4"
RATE_HZ = 24000

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Clip:
    """A recording as it was given: mono, at its own rate."""

    name: str
    samples: Samples
    rate_hz: int

    def at(self, rate_hz: int) -> Samples:
        return soxr.resample(self.samples, self.rate_hz, rate_hz).astype(np.float32)

    def changed(self, samples: NDArray[np.floating], rate_hz: int | None = None) -> Clip:
        """Another version of it, in 16 bits."""
        steps = np.clip(np.rint(samples * 32768), -32768, 32767)
        return Clip(self.name, (steps / 32768).astype(np.float32), rate_hz or self.rate_hz)


def read(directory: Path) -> list[Clip]:
    return [Clip(path.stem, *soundfile.read(path, dtype="float32")) for path in sorted(directory.glob("*.wav"))]


@functools.cache
def demo(sentences: int) -> list[Clip]:
    """The first sentences of the demo recipe, as its own script speaks and writes them."""
    import pyopenjtalk

    lines = (ROOT / "egs" / "demo" / "local" / "sentences.txt").read_text(encoding="utf-8").split("\n")
    clips = []
    for number, line in enumerate(lines[:sentences], start=1):
        samples, rate_hz = pyopenjtalk.tts(line)
        clips.append(Clip(f"mei-{number:02d}", np.zeros(0, np.float32), rate_hz).changed(samples / 32768))
    return clips


@functools.cache
def _detector() -> SpeechDetector:
    return SpeechDetector()


def speech(clip: Clip) -> list[Span]:
    samples = clip.at(16000)
    level = samples * (0.5 / np.max(np.abs(samples)))
    return speech_spans(_detector().probabilities([level]), len(samples) / 16000, 0.5)


def original(clip: Clip) -> Original:
    peak = float(np.max(np.abs(clip.samples)))
    share = len(clipped_samples(clip.samples[:, None], peak)) / len(clip.samples)
    return Original(share, float(np.mean(clip.samples)), 20 * float(np.log10(peak)))


def measured(clip: Clip, spans: Sequence[Span] | None = None) -> Measured:
    return measure(clip.at(RATE_HZ), RATE_HZ, speech(clip) if spans is None else spans, original(clip))


def candidate(clip: Clip, speaker: str = "a", letters: int | None = None, with_voice: bool = False) -> Candidate:
    """As stage 0 makes it. A voice takes a while: only where it is judged."""
    from cosytune.quality.voices import embed

    spans = speech(clip)
    voice = embed([windows(clip.at(16000), spans)])[0] if with_voice else None
    return Candidate(
        utt=clip.name,
        speaker=speaker,
        language="en",
        measured=measured(clip, spans),
        digest=hashlib.sha256(clip.samples.tobytes()).hexdigest(),
        fingerprint=fingerprint(clip.at(RATE_HZ), RATE_HZ),
        voice=voice,
        letters=letters,
    )


def with_noise(clip: Clip, snr_db: float, seed: int = 0) -> Clip:
    """White noise; the level of the whole clip counts as the level of the speech."""
    level = float(np.sqrt(np.mean(clip.samples**2))) * 10 ** (-snr_db / 20)
    noise = np.random.default_rng(seed).standard_normal(len(clip.samples)) * level
    return clip.changed(0.5 * (clip.samples + noise))


def clipped(clip: Clip, over_db: float, turned_down: float = 1.0) -> Clip:
    """Its peak would stand that much above full scale."""
    louder = clip.samples * (10 ** (over_db / 20) / np.max(np.abs(clip.samples)))
    return clip.changed(np.clip(louder, -1, 1) * turned_down)


def telephone(clip: Clip) -> Clip:
    """8 kHz, brought back to its own rate: 16 bits, so what resampling leaves is not zero."""
    narrow = clip.changed(clip.at(8000), 8000)
    return clip.changed(soxr.resample(narrow.samples, 8000, clip.rate_hz))


def cut_in_vowels(clip: Clip, fade_s: float = 0.0) -> Clip:
    """From the loudest 60 ms of its first half to the loudest of its second half."""
    size = round(0.02 * clip.rate_hz)
    power = np.mean(np.square(clip.samples[: len(clip.samples) // size * size].reshape(-1, size)), axis=1)
    loud = np.minimum(np.minimum(power[:-2], power[1:-1]), power[2:])
    half = len(loud) // 2
    first, last = int(np.argmax(loud[:half])) + 1, int(np.argmax(loud[half:])) + half + 1
    cut = clip.samples[first * size : (last + 1) * size].copy()
    fade = round(fade_s * clip.rate_hz)
    cut[:fade] *= np.linspace(0, 1, fade)
    cut[len(cut) - fade :] *= np.linspace(1, 0, fade)
    return clip.changed(cut)


def padded(clip: Clip, before_s: float, after_s: float) -> Clip:
    """Nearly silent recording, as a pause is, at both ends."""
    draw = np.random.default_rng(0)
    ends = [draw.standard_normal(round(s * clip.rate_hz)) * 1e-4 for s in (before_s, after_s)]
    return clip.changed(np.concatenate([ends[0], clip.samples, ends[1]]))
