"""One synthetic voice -> many speakers: Open JTalk's speech, taken apart by WORLD and put together otherwise.

A speaker has a vocal tract of another length (two warps of the frequency axis, below and above 2.5 kHz), another pitch
and range, another pace, tilt and breath. Time stays as Open JTalk gave it, so that one utterance can be had in two
voices, sample for sample.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 24000
MEI_PITCH_HZ = 338.0
"""The mean pitch of the voice that Open JTalk comes with, who is the demo's speaker and in no training."""
MARGIN_WARP, MARGIN_SEMITONES = 0.06, 3.0
_BEND_HZ = 2500.0
_TOP_HZ = 11000.0
"""The resampler from 48 kHz leaves nothing near 12 kHz: silence that no other voice should have."""
_FLOOR_HZ, _CEILING_HZ = 140.0, 600.0
_TILT_FROM_HZ, _BREATH_FROM_HZ = 500.0, 1500.0


@dataclass(frozen=True)
class Voice:
    """A speaker. warp_low, warp_high: above 1 a shorter vocal tract. pitch_hz: mean. pitch_range: of its deviations.

    speed: 1 is Open JTalk's own. tilt_db: per octave above 500 Hz. breath: 0 to 1, of noise above 1.5 kHz.
    """

    name: str
    warp_low: float
    warp_high: float
    pitch_hz: float
    pitch_range: float
    speed: float
    tilt_db: float
    breath: float


CANONICAL = Voice("canonical", 0.88, 0.90, 200.0, 1.0, 1.0, 0.0, 0.0)
"""The voice in which the speech tokenizer learns to hear everybody."""
_FIELDS = 7
_APART = 1.5
"""Two voices differ by more than this, in steps that one can hear; see `difference`."""
_STRANGERS_FROM = 48


def cast(speakers: int, strangers: int) -> list[Voice]:
    """s01, s02, ... and x01, x02, ...: spread evenly over all that a voice is; none near another or the demo's speaker.

    Always the same ones: a smaller cast has the first of a larger one. Raises ValueError for more than 48 speakers.
    """
    if speakers > _STRANGERS_FROM:
        raise ValueError(f"{speakers} speakers: there are {_STRANGERS_FROM}, the voices behind them are strangers")
    found: list[Voice] = []
    number = 0
    while len(found) < _STRANGERS_FROM + strangers:
        number += 1
        voice = _voice(number, "")
        is_apart = all(difference(voice, other) > _APART for other in (*found, CANONICAL))
        if is_apart and not is_near_mei(voice):
            found.append(voice)
    own = [replace(voice, name=f"s{n + 1:02d}") for n, voice in enumerate(found[:speakers])]
    return own + [replace(voice, name=f"x{n + 1:02d}") for n, voice in enumerate(found[_STRANGERS_FROM:])]


def _voice(number: int, name: str) -> Voice:
    """A place in an additive recurrence (the R sequence of M. Roberts), which leaves no holes and no lumps."""
    root = 1.0
    for _ in range(64):  # the root of x ** (fields + 1) = x + 1
        root = (1 + root) ** (1 / (_FIELDS + 1))
    low, pitch, high, spread, speed, tilt, breath = (
        (0.5 + number * root**-place) % 1 for place in range(1, _FIELDS + 1)
    )
    warp = 0.80 * (1.30 / 0.80) ** low
    return Voice(
        name,
        warp_low=warp,
        warp_high=min(max(warp * (0.92 + 0.16 * high), 0.80), 1.30),
        pitch_hz=95 * (380 / 95) ** pitch,
        pitch_range=0.6 + 0.7 * spread,
        speed=0.88 + 0.27 * speed,
        tilt_db=-1.5 + 3.0 * tilt,
        breath=0.35 * breath**2,
    )


def difference(one: Voice, other: Voice) -> float:
    """In audible steps: 5 % of a warp, 2 semitones, 1 dB per octave, and so on."""
    steps = (
        np.log(one.warp_low / other.warp_low) / 0.05,
        np.log(one.warp_high / other.warp_high) / 0.05,
        12 * np.log2(one.pitch_hz / other.pitch_hz) / 2,
        (one.tilt_db - other.tilt_db) / 1.0,
        (one.breath - other.breath) / 0.15,
        (one.pitch_range - other.pitch_range) / 0.3,
    )
    return float(np.sqrt(sum(step**2 for step in steps)))


def is_near_mei(voice: Voice) -> bool:
    """Whether the demo's speaker could be taken for this one."""
    semitones = abs(12 * np.log2(voice.pitch_hz / MEI_PITCH_HZ))
    is_warped = max(abs(voice.warp_low - 1), abs(voice.warp_high - 1)) > MARGIN_WARP
    return not is_warped and bool(semitones < MARGIN_SEMITONES)


@dataclass(frozen=True)
class Parts:
    """WORLD's view of mei's speech, every 5 ms: pitch [frames] in Hz (0 unvoiced), envelope and aperiodicity."""

    pitch: NDArray[np.float64]
    envelope: NDArray[np.float64]
    aperiodicity: NDArray[np.float64]


def take_apart(sound: NDArray[np.float64]) -> Parts:
    """float64 [samples] at 24 kHz -> its parts."""
    import pyworld

    rough, times = pyworld.dio(sound, RATE_HZ, f0_floor=_FLOOR_HZ, f0_ceil=_CEILING_HZ)
    pitch = pyworld.stonemask(sound, rough, times, RATE_HZ)
    envelope = pyworld.cheaptrick(sound, pitch, times, RATE_HZ)
    return Parts(pitch, envelope, _aperiodicity(sound, pitch, times))


def _aperiodicity(
    sound: NDArray[np.float64], pitch: NDArray[np.float64], times: NDArray[np.float64]
) -> NDArray[np.float64]:
    """[frames, bins], of every second frame: it changes slowly, and is the dearest to find.

    A frame between two takes after the one before it, or after the next if only that one is voiced.
    """
    import pyworld

    found = pyworld.d4c(sound, np.ascontiguousarray(pitch[::2]), np.ascontiguousarray(times[::2]), RATE_HZ)
    place = np.arange(len(pitch)) // 2
    is_onset = (pitch[1:-1] > 0) & (pitch[:-2] == 0) & (np.arange(1, len(pitch) - 1) % 2 == 1)
    place[1:-1][is_onset] += 1
    return np.ascontiguousarray(found[place])


def speak(parts: Parts, voice: Voice, samples: int) -> NDArray[np.float64]:
    """The same words at the same moments in another voice: float64 [samples] at 24 kHz."""
    import pyworld

    envelope = np.exp(_warped(np.log(parts.envelope), voice) + _tilt(parts.envelope.shape[1], voice))
    aperiodicity = _breathy(parts.aperiodicity, voice)
    sound = pyworld.synthesize(_pitch(parts.pitch, voice), np.ascontiguousarray(envelope), aperiodicity, RATE_HZ)
    return np.pad(sound[:samples], (0, max(0, samples - len(sound))))


def _warped(spectra: NDArray[np.float64], voice: Voice) -> NDArray[np.float64]:
    """[frames, bins]: what stood at f / warp stands at f; beyond what mei has, her highest is repeated."""
    bins = spectra.shape[1]
    frequency = np.linspace(0, RATE_HZ / 2, bins)
    bend = _BEND_HZ * voice.warp_low
    source = np.where(frequency < bend, frequency / voice.warp_low, _BEND_HZ + (frequency - bend) / voice.warp_high)
    places = np.minimum(source, _TOP_HZ) / (RATE_HZ / 2) * (bins - 1)
    lower = places.astype(int)
    share = places - lower
    return np.asarray(spectra[:, lower] * (1 - share) + spectra[:, lower + 1] * share)


def _tilt(bins: int, voice: Voice) -> NDArray[np.float64]:
    """To be added to the logarithm of a power spectrum [bins]."""
    octaves = np.log2(np.maximum(np.linspace(0, RATE_HZ / 2, bins), _TILT_FROM_HZ) / _TILT_FROM_HZ)
    return np.asarray(voice.tilt_db * octaves * (np.log(10) / 10))


def _breathy(aperiodicity: NDArray[np.float64], voice: Voice) -> NDArray[np.float64]:
    """It is not warped: noise belongs to the glottis."""
    frequency = np.linspace(0, RATE_HZ / 2, aperiodicity.shape[1])
    return aperiodicity + (1 - aperiodicity) * (voice.breath * np.clip(frequency / _BREATH_FROM_HZ - 1, 0, 1))


def _pitch(pitch: NDArray[np.float64], voice: Voice) -> NDArray[np.float64]:
    """Around the speaker's mean instead of mei's (a constant: a sentence may lie high), with the speaker's range."""
    deviation = np.log2(np.maximum(pitch, 1.0) / MEI_PITCH_HZ)
    return np.where(pitch > 0, voice.pitch_hz * np.exp2(deviation * voice.pitch_range), 0.0)
