"""Measured clips -> the reasons why a clip is not used; none, and it passes.

Voice, duplicates and pace compare clips with each other: they are judged after the clips that fail by themselves were
put aside, so that a broken clip neither shifts a speaker's centre nor is the one that is kept of two.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cosytune.quality import duplicates, rates, voices
from cosytune.quality.duplicates import Fingerprint
from cosytune.quality.measure import Measured
from cosytune.quality.voices import Float
from cosytune.schema import GatesConfig

Value = float | str | None


@dataclass(frozen=True)
class Reason:
    """Why a clip is not used. `reason`: snake_case. `meaning`: for people; it names the setting."""

    reason: str
    value: Value
    threshold: Value
    meaning: str


@dataclass(frozen=True)
class Candidate:
    """A clip before the gates. `digest`: of its samples. `letters`: that are spoken, None without a transcript.
    `cer`: between transcript and what Whisper hears. `logprob`, `repetition`: of a transcript that is Whisper's own.
    None: not known, and the gate does not apply.
    """

    utt: str
    speaker: str
    language: str
    measured: Measured
    digest: str
    fingerprint: Fingerprint | None = None
    voice: Float | None = None
    letters: int | None = None
    cer: float | None = None
    logprob: float | None = None
    repetition: float | None = None


Verdicts = dict[str, list[Reason]]


def judge(
    candidates: Sequence[Candidate], gates: GatesConfig, min_duration_s: float, max_duration_s: float
) -> Verdicts:
    """Utterance -> all reasons against it, the most telling first; an empty list: it passes."""
    verdicts = {one.utt: list(_alone(one, gates, min_duration_s, max_duration_s)) for one in candidates}
    ordered = sorted(candidates, key=lambda one: one.utt)
    for compare in (_equal, _voices, _pace, _alike):
        sound = [one for one in ordered if not verdicts[one.utt]]
        for utt, reason in compare(sound, gates):
            verdicts[utt].append(reason)
    return verdicts


def _alone(one: Candidate, gates: GatesConfig, min_duration_s: float, max_duration_s: float) -> Iterator[Reason]:
    """What a clip fails by itself."""
    measured = one.measured
    if measured.silence_share >= 1 or measured.loudness_lufs is None:
        yield Reason("no_speech", None, None, "no speech was found in it")
    checks: list[tuple[str, float | None, float | None, bool, str, int]] = [
        ("too_short", measured.duration_s, min_duration_s, False, "audio.min_duration_s", 3),
        ("too_long", measured.duration_s, max_duration_s, True, "audio.max_duration_s", 3),
        ("clipped", measured.clipped_share, gates.max_clipped_share, True, "max_clipped_share", 5),
        ("too_quiet", measured.loudness_lufs, gates.min_loudness_lufs, False, "min_loudness_lufs", 1),
        ("low_snr", measured.snr_db, gates.min_snr_db, False, "min_snr_db", 1),
        ("mostly_silence", measured.silence_share, gates.max_silence_share, True, "max_silence_share", 2),
        ("narrow_band", measured.bandwidth_hz, gates.min_bandwidth_hz, False, "min_bandwidth_hz", 0),
        ("dc_offset", abs(measured.dc_offset), gates.max_dc_offset, True, "max_dc_offset", 3),
        ("transcript_mismatch", one.cer, gates.max_cer, True, "max_cer", 3),
        ("doubtful_transcript", one.logprob, gates.min_transcript_logprob, False, "min_transcript_logprob", 2),
        ("repeated_transcript", one.repetition, gates.max_transcript_repetition, True, "max_transcript_repetition", 2),
        ("cut_off_start", measured.start_level_db, gates.max_edge_level_db, True, "max_edge_level_db", 1),
        ("cut_off_end", measured.end_level_db, gates.max_edge_level_db, True, "max_edge_level_db", 1),
    ]
    for reason, value, threshold, over, setting, digits in checks:
        if value is not None and threshold is not None and (value > threshold if over else value < threshold):
            yield _reason(reason, round(value, digits), threshold, over, setting)


def _reason(reason: str, value: Value, threshold: float, over: bool, setting: str) -> Reason:
    where = setting if "." in setting else f"audio.gates.{setting}"
    return Reason(reason, value, threshold, f"{'over' if over else 'under'} {where} = {threshold:g}")


def _equal(sound: Sequence[Candidate], gates: GatesConfig) -> Iterator[tuple[str, Reason]]:
    for utt, kept in duplicates.equal({one.utt: one.digest for one in sound}).items():
        yield utt, Reason("duplicate", kept, None, "the same samples as another one")


def _voices(sound: Sequence[Candidate], gates: GatesConfig) -> Iterator[tuple[str, Reason]]:
    threshold = gates.min_voice_similarity
    heard = [(one, one.voice) for one in sound if one.voice is not None]
    if threshold is None or not heard:
        return
    similar = voices.similarities([voice for _, voice in heard], [one.speaker for one, _ in heard])
    for (one, _), value in zip(heard, similar, strict=True):
        if value is not None and value < threshold:
            yield one.utt, _reason("other_voice", round(value, 3), threshold, False, "min_voice_similarity")


def _pace(sound: Sequence[Candidate], gates: GatesConfig) -> Iterator[tuple[str, Reason]]:
    threshold = gates.max_rate_deviation
    if threshold is None:
        return
    groups: dict[tuple[str, str], list[Candidate]] = defaultdict(list)
    for one in sound:
        if one.letters is not None:
            groups[one.speaker, one.language].append(one)
    for group in groups.values():
        unusual = rates.deviations([one.letters or 0 for one in group], [one.measured.speech_s for one in group])
        for one, value in zip(group, unusual, strict=True):
            if value is not None and abs(value) > threshold:
                yield one.utt, _reason("speaking_rate", round(value, 2), threshold, True, "max_rate_deviation")


def _alike(sound: Sequence[Candidate], gates: GatesConfig) -> Iterator[tuple[str, Reason]]:
    """A clip like one that is kept; of three in a row, where only neighbours are alike, the first and third stay."""
    threshold = gates.near_duplicate_similarity
    printed = [(one.utt, one.fingerprint) for one in sound if one.fingerprint is not None]
    if threshold is None:
        return
    dropped: set[int] = set()
    for pair in duplicates.near_duplicates([fingerprint for _, fingerprint in printed], threshold):
        if pair.first in dropped or pair.second in dropped:
            continue
        dropped.add(pair.second)
        kept = printed[pair.first][0]
        meaning = f"like another one, over audio.gates.near_duplicate_similarity = {threshold:g}"
        yield printed[pair.second][0], Reason("near_duplicate", f"{kept} {pair.similarity:.3f}", threshold, meaning)
