"""From measurements to verdicts: good speech passes as it is, each kind of spoilt clip is named, none decides alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import quality_speech as speech
from cosytune.quality import rates
from cosytune.quality.gates import Candidate, judge
from cosytune.quality.measure import Measured
from cosytune.schema import GatesConfig

GOOD = Measured(
    duration_s=4.0,
    peak_dbfs=-6.0,
    clipped_share=0.0,
    loudness_lufs=-23.0,
    snr_db=40.0,
    silence_share=0.25,
    bandwidth_hz=11000.0,
    dc_offset=0.0,
    start_level_db=-40.0,
    end_level_db=-40.0,
)
OFF = GatesConfig(**dict.fromkeys(GatesConfig.model_fields))
VOICE = np.eye(256, dtype=np.float32)


def clip(utt: str, *, voice: int | None = None, tone: int | None = None, **facts: Any) -> Candidate:
    """A candidate that passes but for `facts`, of Measured or of Candidate. `tone`: alike clips have the same."""
    of_measured = {name: value for name, value in facts.items() if name in GOOD.__dataclass_fields__}
    of_candidate = {"speaker": "a", "language": "ja", "digest": utt}
    of_candidate |= {name: value for name, value in facts.items() if name not in of_measured}
    if tone is not None:
        shape = np.random.default_rng(tone).standard_normal(960)
        of_candidate["fingerprint"] = np.array([3.0, *shape / np.linalg.norm(shape)], np.float32)
    if voice is not None:
        of_candidate["voice"] = VOICE[voice]
    return Candidate(utt=utt, measured=dataclasses.replace(GOOD, **of_measured), **of_candidate)


def reasons(candidates: list[Candidate], gates: GatesConfig | None = None) -> dict[str, list[str]]:
    verdicts = judge(candidates, gates or GatesConfig(), 1.0, 30.0)
    assert sorted(verdicts) == sorted(one.utt for one in candidates)
    return {utt: [one.reason for one in found] for utt, found in verdicts.items() if found}


SPOILT = [
    ("too_short", {"duration_s": 0.9}),
    ("too_long", {"duration_s": 30.1}),
    ("clipped", {"clipped_share": 0.01}),
    ("too_quiet", {"loudness_lufs": -60.0}),
    ("low_snr", {"snr_db": 6.0}),
    ("mostly_silence", {"silence_share": 0.8}),
    ("narrow_band", {"bandwidth_hz": 3950.0}),
    ("dc_offset", {"dc_offset": -0.1}),
    ("cut_off_start", {"start_level_db": 1.0}),
    ("cut_off_end", {"end_level_db": 1.0}),
    ("transcript_mismatch", {"cer": 0.7}),
]


@pytest.mark.parametrize(("reason", "facts"), SPOILT)
def test_each_gate_names_its_reason_value_threshold_and_setting(reason: str, facts: dict[str, float]) -> None:
    (found,) = judge([clip("x", **facts)], GatesConfig(), 1.0, 30.0)["x"]
    assert found.reason == reason
    (value,) = facts.values()
    assert found.value == abs(value) if reason == "dc_offset" else found.value == value
    assert isinstance(found.threshold, float)
    setting = found.meaning.split()[1]
    assert found.meaning.endswith(f"{setting} = {found.threshold:g}")
    name = setting.rsplit(".", 1)[1]
    assert setting in ("audio.min_duration_s", "audio.max_duration_s") or name in GatesConfig.model_fields


def test_a_good_clip_passes_and_what_cannot_be_told_is_no_reason() -> None:
    unknown = {"snr_db": None, "bandwidth_hz": None, "start_level_db": None, "end_level_db": None}
    assert reasons([clip("a"), clip("b", cer=0.1, letters=20), clip("c", **unknown)]) == {}
    assert judge([], GatesConfig(), 1.0, 30.0) == {}


def test_no_speech_is_said_first_and_needs_no_threshold() -> None:
    silent = clip("x", silence_share=1.0, loudness_lufs=None, snr_db=None)
    assert reasons([silent])["x"] == ["no_speech", "mostly_silence"]
    assert reasons([silent], OFF)["x"] == ["no_speech"]


def test_all_reasons_of_a_clip_are_given() -> None:
    worst = {name: value for _, facts in SPOILT[2:] for name, value in facts.items()}
    assert set(reasons([clip("x", **worst)])["x"]) == {reason for reason, _ in SPOILT[2:]}


def test_null_switches_each_gate_off() -> None:
    worst = [clip(f"x{i}", **facts) for i, (_, facts) in enumerate(SPOILT) if i >= 2]
    strangers = [clip(f"v{i}", voice=0 if i < 5 else 1) for i in range(6)]
    alike = [clip("t1", tone=1), clip("t2", tone=1)]
    paced = [clip(f"p{i}", letters=20 if i else 100) for i in range(9)]
    everything = [*worst, *strangers, *alike, *paced]
    assert len(reasons(everything)) == len(worst) + 3
    assert reasons(everything, OFF) == {}


def test_a_stranger_is_found_and_broken_clips_do_not_shift_the_centre() -> None:
    good = [clip(f"good{i}", voice=0) for i in range(4)]
    assert reasons([*good, clip("other", voice=1)]) == {"other": ["other_voice"]}
    broken = [clip(f"broken{i}", voice=1, snr_db=0.0) for i in range(9)]
    assert set(reasons([*good, *broken])) == {one.utt for one in broken}


def test_of_equal_clips_the_first_good_one_is_kept() -> None:
    same = [clip("a", digest="d", snr_db=0.0), clip("c", digest="d"), clip("b", digest="d")]
    verdicts = judge(same, GatesConfig(), 1.0, 30.0)
    assert [one.reason for one in verdicts["a"]] == ["low_snr"]
    assert verdicts["b"] == []
    (found,) = verdicts["c"]
    assert (found.reason, found.value, found.threshold) == ("duplicate", "b", None)
    assert found.meaning == "the same samples as another one"


def test_of_clips_alike_one_is_kept_and_named() -> None:
    verdicts = judge([clip("b", tone=1), clip("a", tone=1), clip("c", tone=2)], GatesConfig(), 1.0, 30.0)
    (found,) = verdicts["b"]
    assert (found.reason, found.threshold) == ("near_duplicate", GatesConfig().near_duplicate_similarity)
    assert isinstance(found.value, str) and found.value.startswith("a ") and "like a" in found.meaning
    assert not verdicts["a"] and not verdicts["c"]


def test_pace_is_judged_among_clips_of_one_speaker_and_language() -> None:
    usual = [clip(f"u{i}", letters=20 + i) for i in range(8)]
    assert reasons([*usual, clip("x", letters=60), clip("y", letters=7)]) == {
        "x": ["speaking_rate"],
        "y": ["speaking_rate"],
    }
    assert reasons([*usual, clip("x", letters=60, language="en"), clip("y", letters=60, speaker="b")]) == {}
    assert reasons([*usual[:6], clip("x", letters=60)]) == {}  # from so few there is no telling


def test_deviations_are_signed_robust_and_mild_on_short_clips() -> None:
    even = rates.deviations([20] * 9 + [40, 10], [2.0] * 11)
    assert even[:9] == [0.0] * 9
    assert even[9] == pytest.approx(-(even[10] or 0)) and (even[9] or 0) > 4
    short = rates.deviations([20] * 9 + [4], [2.0] * 9 + [0.2])
    assert abs(short[9] or 9) < 2
    assert rates.deviations([20] * 9 + [0], [2.0] * 8 + [0.0, 2.0])[8:] == [None, None]


@pytest.mark.skipif(not speech.LJSPEECH.is_dir(), reason="../shared/data/ljspeech24 is not there")
def test_all_of_ljspeech_and_of_the_demo_pass_and_their_spoilt_versions_do_not() -> None:
    import pyopenjtalk

    ljspeech, mei = speech.read(speech.LJSPEECH), speech.demo(40)
    texts = {path.stem: path.read_text(encoding="utf-8") for path in speech.LJSPEECH.glob("*.txt")}
    sentences = (speech.ROOT / "egs/demo/local/sentences.txt").read_text(encoding="utf-8").split("\n")
    letters = {name: sum(map(str.isalpha, text)) for name, text in texts.items()}
    letters |= {f"mei-{i:02d}": len(pyopenjtalk.g2p(text, kana=True)) for i, text in enumerate(sentences, start=1)}
    good = [
        speech.candidate(one, speaker, letters[one.name], with_voice=True)
        for speaker, clips in (("lj", ljspeech), ("mei", mei))
        for one in clips
    ]
    assert reasons(good) == {}
    spoilt = {
        "clipped": speech.clipped(ljspeech[3], 6),
        "low_snr": speech.with_noise(ljspeech[4], 5),
        "narrow_band": speech.telephone(ljspeech[5]),
        "dc_offset": ljspeech[6].changed(ljspeech[6].samples * 0.5 + 0.1),
        "mostly_silence": speech.padded(ljspeech[7], 4.0, 4.0),
        "cut_off_start": speech.cut_in_vowels(ljspeech[8]),
        "too_quiet": ljspeech[10].changed(ljspeech[10].samples * 0.01),
    }
    bad = [dataclasses.replace(speech.candidate(one, "lj"), utt=reason) for reason, one in spoilt.items()]
    found = reasons([*good, *bad])
    assert set(found) == set(spoilt)
    assert all(found[reason][0] == reason for reason in spoilt)
