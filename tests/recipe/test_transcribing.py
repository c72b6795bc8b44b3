"""Recordings without a transcript, through stage 0 with a real, tiny, untrained Whisper: what it says means nothing,
but it says the same of the same sound, and everything around it is as with a trained one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cosytune import decisions, files, kaldi
from cosytune.errors import UserError
from cosytune.layout import Layout
from recordings import make_recipe, run_prepare, speech, texts, write_audio, write_clip
from tiny_whisper import CHARACTERS
from tiny_whisper import settings as tiny_whisper

TRUSTING = ("audio.gates.min_transcript_logprob=null", "audio.gates.max_transcript_repetition=null")
LONG = np.concatenate([part for take in range(5) for part in (speech(4.0, take=take), np.zeros(24000))])


@pytest.fixture(scope="module")
def models(shared_tmp: Path) -> tuple[str, ...]:
    made = tiny_whisper(shared_tmp)
    return (f"transcribe.model={made.model}", f"transcribe.align_model={made.align_model}", "transcribe.batch_size=4")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_recipe(tmp_path, "長い 話")


def test_a_long_recording_becomes_clips_with_texts(layout: Layout, models: tuple[str, ...]) -> None:
    write_audio(layout.audio / "talk.flac", LONG)
    report = run_prepare(layout, *models, *TRUSTING)
    assert report["recordings"] == 1
    assert report["transcribed_with"]["whisper"] == "faster-whisper-tiniest"
    everything = [*report["clips"], *report["drops"]]
    assert 3 <= len(everything) <= 6
    assert report["kept"] >= 1
    for clip in everything:
        assert clip["source"].startswith("audio/talk.flac@")
        assert clip["recording"] == "長い_話-talk"
        assert clip["end_s"] - clip["start_s"] == pytest.approx(clip["duration_s"], abs=1e-3)
        assert clip["asr_logprob"] is None or clip["asr_logprob"] < 0
    for clip in report["clips"]:
        assert clip["text"] == texts(layout)[clip["utt"]]
        assert 3 <= clip["duration_s"] <= 10
    seconds = report["seconds"]
    total_s = seconds["kept"] + seconds["between_clips"] + sum(seconds["dropped"].values())
    assert seconds["recordings"] == pytest.approx(total_s, abs=0.01) == pytest.approx(25.0, abs=0.01)
    assert {one.recording for one in kaldi.read(layout.data_all).utterances} == {"長い_話-talk"}
    assert kaldi.validate(layout.data_all, deep=True) == []


def test_nothing_is_heard_twice(layout: Layout, models: tuple[str, ...]) -> None:
    write_audio(layout.audio / "talk.wav", LONG)
    first = run_prepare(layout, *models, *TRUSTING)
    cached = {path: path.stat().st_mtime_ns for path in layout.transcripts.iterdir()}
    assert cached
    again = run_prepare(layout, *models, *TRUSTING, "audio.gates.min_snr_db=13")
    assert {path: path.stat().st_mtime_ns for path in layout.transcripts.iterdir()} == cached
    assert again["clips"] == first["clips"]


def test_a_text_that_whisper_does_not_trust_waits_for_an_ear(layout: Layout, models: tuple[str, ...]) -> None:
    write_audio(layout.audio / "talk.wav", LONG)
    with pytest.raises(UserError, match="no clip is left"):
        run_prepare(layout, *models)
    report = files.read_json(layout.data_all / "report.json")
    reasons = {reason["reason"] for drop in report["drops"] for reason in drop["reasons"]}
    assert "doubtful_transcript" in reasons
    drop = report["drops"][0]
    said = decisions.load(layout).put(drop["source"], drop["utt"], None, "これは本当の文です。")
    decisions.save(layout, said)
    report = run_prepare(layout, *models)
    assert {clip["utt"]: clip["text"] for clip in report["clips"]} == {drop["utt"]: "これは本当の文です。"}


def test_clip_by_clip_without_an_aligner(layout: Layout, models: tuple[str, ...]) -> None:
    write_audio(layout.audio / "talk.wav", LONG)
    report = run_prepare(
        layout, models[0], "transcribe.align_model=none", *TRUSTING, "audio.gates.max_rate_deviation=null"
    )
    assert report["transcribed_with"] == {"whisper": "faster-whisper-tiniest"}
    assert report["kept"] >= 1


def test_a_transcript_that_is_not_what_is_heard(layout: Layout, models: tuple[str, ...]) -> None:
    """The text of one clip is what Whisper hears in it; the other's is something else."""
    for take, name in enumerate(("right", "wrong")):
        write_clip(layout.audio / f"{name}.wav", "本日は晴天なり。", samples=speech(3.0, take=take))
    report = run_prepare(layout, *models, "audio.gates.max_cer=null")
    heard = {clip["source"]: clip["asr_text"] for clip in report["clips"]}
    (layout.audio / "right.txt").write_text(heard["audio/right.wav"], encoding="utf-8")
    report = run_prepare(layout, *models, "audio.gates.max_cer=0.4")
    assert [(clip["source"], clip["cer"]) for clip in report["clips"]] == [("audio/right.wav", 0.0)]
    assert report["dropped"] == {"transcript_mismatch": 1}
    assert run_prepare(layout, *models, "transcribe.check_given=never")["kept"] == 2


def test_a_long_recording_with_its_text_is_cut_between_words(layout: Layout, models: tuple[str, ...]) -> None:
    sentence = "".join(character for character in CHARACTERS if "ぁ" <= character <= "ん")[:20]
    write_clip(layout.audio / "long.wav", sentence * 5, samples=np.concatenate([LONG, LONG])[: 41 * 24000])
    report = run_prepare(layout, *models, "transcribe.check_given=never", "audio.gates.max_cer=null")
    clips = sorted([*report["clips"], *report["drops"]], key=lambda clip: clip["start_s"])
    assert len(clips) > 3
    assert "".join(clip["source_text"] for clip in clips) == sentence * 5


def test_cut_now_and_transcribe_by_hand(layout: Layout) -> None:
    write_audio(layout.audio / "talk.wav", LONG)
    with pytest.raises(UserError, match=r"python -m cosytune\.review"):
        run_prepare(layout, "transcribe.model=none")
    report = files.read_json(layout.data_all / "report.json")
    assert report["dropped"] == {"no_transcript": len(report["drops"])}
    for drop in report["drops"]:
        assert (layout.quarantine / f"{drop['utt']}.wav").is_file()
    first, second = report["drops"][:2]
    said = decisions.load(layout).put(first["source"], first["utt"], None, "一つ目の文。")
    decisions.save(layout, said.put(second["source"], second["utt"], "drop", "二つ目の文。"))
    report = run_prepare(layout, "transcribe.model=none")
    assert texts(layout) == {first["utt"]: "一つ目の文。"}
    assert report["dropped"]["review"] == 1
    assert not (layout.quarantine / f"{first['utt']}.wav").exists()
    (layout.data_all / "text").write_text(f"{first['utt']} 直した文。\n", encoding="utf-8")
    run_prepare(layout, "transcribe.model=none")
    assert texts(layout) == {first["utt"]: "直した文。"}
