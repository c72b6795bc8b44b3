"""python tests/bench/compare_segmenting.py ../shared/data/ljspeech24: our segmenter beside pydub's split_on_silence.

Clips of speech, glued with pauses and noise into one long recording -> what either makes of it, a Markdown table.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile
import soxr

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from cosytune.audio.cut import cut
from cosytune.audio.listen import join, listen, parts
from cosytune.audio.span import Span
from cosytune.audio.vad import SpeechDetector
from cosytune.schema import SegmentConfig

RATE_HZ = 24000
PAUSE_S = (0.4, 2.5)
SHORTEST_S = 1.0
VERSIONS = {"clean": (-65.0, 0.0), "noisy": (-35.0, 0.0), "quiet": (-65.0, -30.0), "quiet and noisy": (-35.0, -30.0)}
"""Level of the noise in dBFS and the gain in dB that then follows."""


@dataclass(frozen=True)
class Long:
    """A long recording, float32 [n] at 24 kHz; what is known of it: the spans of speech, and where nothing is said."""

    samples: np.ndarray
    speech: list[Span]
    pauses: list[Span]


@dataclass(frozen=True)
class Score:
    clips: list[Span]
    kept: float
    """Share of the speech that is in a clip."""
    farthest_s: float
    """From a clip's border to the nearest pause, 0 inside one: the worst of all borders."""
    cpu_s_per_hour: float


def glue(clips: Sequence[Path], noise_dbfs: float, gain_db: float, seed: int = 3) -> Long:
    """The clips in a row, a pause before each and after the last, white noise over all.

    What is speech is measured by level on the clean clips, not by the detector that is on trial: all but the pauses.
    """
    draw = np.random.default_rng(seed)
    pieces, pauses = [], []
    position_s = 0.0
    for clip in clips:
        silence = np.zeros(round(draw.uniform(*PAUSE_S) * RATE_HZ), np.float32)
        samples, rate_hz = soundfile.read(clip, dtype="float32")
        piece = np.concatenate([silence, soxr.resample(samples, rate_hz, RATE_HZ)])
        pauses += [Span(span.start_s + position_s, span.end_s + position_s) for span in quiet_spans(piece)]
        pieces.append(piece)
        position_s += len(piece) / RATE_HZ
    pauses.append(Span(position_s, position_s + PAUSE_S[1]))
    glued = np.concatenate([*pieces, np.zeros(round(PAUSE_S[1] * RATE_HZ), np.float32)])
    noise = draw.normal(scale=10 ** (noise_dbfs / 20), size=len(glued))
    speech = [Span(before.end_s, after.start_s) for before, after in pairwise(pauses)]
    return Long(((glued + noise) * 10 ** (gain_db / 20)).astype(np.float32), speech, pauses)


def quiet_spans(samples: np.ndarray) -> list[Span]:
    """Where the level of 10 ms stays 30 dB below the loud tenth of the sound for 0.1 s or longer."""
    frame = RATE_HZ // 100
    power = np.square(samples[: len(samples) // frame * frame].reshape(-1, frame)).mean(axis=1)
    quiet = np.concatenate([[False], power < np.percentile(power[power > 0], 90) * 1e-3, [False]])
    edges = np.flatnonzero(quiet[1:] != quiet[:-1]).reshape(-1, 2)
    return [Span(start / 100, end / 100) for start, end in edges.tolist() if end - start >= 10]


def hear(samples: np.ndarray, detector: SpeechDetector):
    """As stage 0 hears it: from a track on disk, in parts."""
    with tempfile.TemporaryDirectory() as directory:
        track = Path(directory) / "track.f32"
        samples.astype("<f4").tofile(track)
        return join([listen(track, RATE_HZ, *part, detector) for part in parts(len(samples), RATE_HZ)])


def ours(samples: np.ndarray) -> list[Span]:
    cuts = cut(hear(samples, SpeechDetector()), SegmentConfig(), SHORTEST_S)
    return [piece.span for piece in cuts.pieces]


def split_on_silence(samples: np.ndarray) -> list[Span]:
    """The same call as in the scripts that are handed round, and their filter: only 3 to 10 s are saved."""
    from pydub import AudioSegment, silence

    pcm = np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
    audio = AudioSegment(pcm, sample_width=2, frame_rate=RATE_HZ, channels=1)
    segments = silence.split_on_silence(audio, min_silence_len=500, silence_thresh=-40, keep_silence=200)
    spans, position = [], 0
    for segment in segments:
        position = pcm.index(segment.raw_data, position)
        start_s = position / 2 / RATE_HZ
        spans.append(Span(start_s, start_s + segment.frame_count() / RATE_HZ))
        position += 2
    return [span for span in spans if 3.0 <= span.duration_s <= 10.0]


def score(recording: Long, segment: Callable[[np.ndarray], list[Span]]) -> Score:
    began_s = time.process_time()
    clips = segment(recording.samples)
    cpu_s = time.process_time() - began_s
    kept_s = sum(clip.overlap_s(speech) for clip in clips for speech in recording.speech)
    borders_s = [border for clip in clips for border in (clip.start_s, clip.end_s)]
    return Score(
        clips=clips,
        kept=kept_s / sum(span.duration_s for span in recording.speech),
        farthest_s=max((distance_s(border, recording.pauses) for border in borders_s), default=float("nan")),
        cpu_s_per_hour=cpu_s * 3600 * RATE_HZ / len(recording.samples),
    )


def distance_s(moment_s: float, spans: Sequence[Span]) -> float:
    """To the nearest span, 0 inside one."""
    return min(max(span.start_s - moment_s, moment_s - span.end_s, 0.0) for span in spans)


def main() -> int:
    clips = sorted(Path(sys.argv[1]).glob("*.wav"))
    print("| recording | cut by | clips | speech kept | farthest border from a pause, s | CPU s per hour |")
    print("|---|---|---|---|---|---|")
    for version, (noise_dbfs, gain_db) in VERSIONS.items():
        recording = glue(clips, noise_dbfs, gain_db)
        for name, segment in (("CosyTune", ours), ("split_on_silence", split_on_silence)):
            found = score(recording, segment)
            farthest = f"{found.farthest_s:.2f}" if found.clips else "none"
            figures = f"{len(found.clips)} | {found.kept:.1%} | {farthest} | {found.cpu_s_per_hour:.1f}"
            print(f"| {version} | {name} | {figures} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
