"""Stage 0: every form of input becomes the same kind of clip, ids are one of a kind, and nothing vanishes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cosytune import kaldi
from cosytune.errors import UserError
from cosytune.layout import ROOT, Layout
from cosytune.text import NORMALIZER
from recordings import make_recipe, run_prepare, run_stage_0, speech, texts, write_audio, write_clip


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_recipe(tmp_path)


def snapshot(directory: Path) -> dict[str, str]:
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_every_form_in_one_folder(layout: Layout) -> None:
    audio = layout.audio
    for number, suffix in enumerate(["wav", "mp3", "flac", "m4a", "ogg", "WAV"]):
        write_clip(audio / f"clip{number}.{suffix}", f"テキスト{'あいうえおか'[number]}。", rate_hz=44100)
    write_clip(audio / "take 1" / "deep" / "a.wav", "ラブ。", suffix=".lab")
    for name in ("LJ-1", "LJ-2"):
        write_audio(audio / "lj" / "wavs" / f"{name}.wav", rate_hz=22050)
    (audio / "lj" / "metadata.csv").write_text('LJ-1|in 1820 "so|in eighteen twenty "so\nLJ-2|two\n', encoding="utf-8")
    write_audio(audio / "same" / "x.wav")
    (audio / "same" / "metadata.csv").write_text("id|text\nx.wav|header and suffix\n", encoding="utf-8")
    write_audio(audio / "lines" / "j.flac")
    (audio / "lines" / "all.jsonl").write_text(
        json.dumps({"audio": "j.flac", "text": "ジェイソン"}) + "\n\n", encoding="utf-8"
    )
    write_audio(audio / "kaldi" / "wav" / "k 1.wav")
    (audio / "kaldi" / "wav.scp").write_text("u-2  wav/k 1.wav\n", encoding="utf-8")
    (audio / "kaldi" / "text").write_text("u-2\tカルディ の 文\n", encoding="utf-8")

    report = run_prepare(layout, "audio.gates.max_rate_deviation=null")  # three languages in one speaker's mouth

    assert texts(layout) == {
        **{f"mine-clip{number}": f"テキスト{letter}。" for number, letter in enumerate("あいうえおか")},
        "mine-take_1-deep-a": "ラブ。",
        "mine-lj-wavs-LJ-1": 'in eighteen twenty "so',
        "mine-lj-wavs-LJ-2": "two",
        "mine-same-x": "header and suffix",
        "mine-lines-j": "ジェイソン",
        "mine-kaldi-u-2": "カルディ の 文",
    }
    assert report["input"] == report["kept"] == 12
    assert report["unused_files"] == []
    assert report["normalizer"] == NORMALIZER
    assert kaldi.validate(layout.data_all) == []
    for utterance in kaldi.read(layout.data_all).utterances:
        info = soundfile.info(utterance.wav)
        assert (info.samplerate, info.channels, info.subtype) == (24000, 1, "PCM_16")
        assert utterance.duration_s == pytest.approx(1.5, abs=0.15)  # mp3 and aac add silence of their own
        assert utterance.duration_s == pytest.approx(info.frames / 24000, abs=1e-5)


def test_drops_are_counted_with_reason_value_and_threshold(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    for name, seconds in (("short", 0.9), ("just", 1.0), ("limit", 2.0), ("long", 2.1)):
        write_clip(layout.audio / f"{name}.wav", samples=speech(seconds))
    write_clip(layout.audio / "silence.wav", samples=np.zeros(36000))
    write_clip(layout.audio / "quiet.wav", samples=speech(level=0.02))
    report = run_prepare(layout, "audio.max_duration_s=2.0", "audio.segment.min_s=1", "audio.segment.max_s=2")
    assert sorted(texts(layout)) == ["mine-just", "mine-limit", "mine-quiet"]
    assert report["dropped"] == {"silent": 1, "too_long": 1, "too_short": 1}
    drops = {drop["source"]: drop for drop in report["drops"]}
    assert drops["audio/short.wav"]["reasons"] == [
        {
            "reason": "too_short",
            "value": 0.9,
            "threshold": 1.0,
            "meaning": "under audio.min_duration_s = 1",
        }
    ]
    (long,), (silence,) = drops["audio/long.wav"]["reasons"], drops["audio/silence.wav"]["reasons"]
    assert (long["reason"], long["value"], long["threshold"]) == ("too_long", 2.1, 2.0)
    assert silence["reason"] == "silent"
    assert layout.quarantine_table.read_text(encoding="utf-8").splitlines() == [
        "id\treason\tvalue\tthreshold\tsource\ttext",
        "mine-short\ttoo_short\t0.9\t1\taudio/short.wav\tこんにちは。",
        "\ttoo_long\t2.1\t2\taudio/long.wav\t",
        "\tsilent\t-200\t-60\taudio/silence.wav\t",
    ]
    seconds = report["seconds"]
    assert seconds["recordings"] == pytest.approx(0.9 + 1 + 2 + 2.1 + 1.5 + 1.5)
    assert seconds["recordings"] == pytest.approx(seconds["kept"] + sum(seconds["dropped"].values()))
    shown = capsys.readouterr().out
    assert "6 recordings" in shown
    assert "3 kept" in shown
    assert "1 in quarantine: too_short (under audio.min_duration_s = 1)" in shown


def test_recordings_without_transcript_wait_in_quarantine(layout: Layout) -> None:
    write_clip(layout.audio / "a.wav")
    write_clip(layout.audio / "b.wav", text=None)
    report = run_prepare(layout, "transcribe.model=none")
    assert list(texts(layout)) == ["mine-a"]
    assert report["dropped"] == {"no_transcript": 1}
    assert (layout.quarantine / "mine-b.wav").is_file()


STRANGE = [
    "with space",
    "全角\u3000空白",
    "quote'\"",
    "$(touch X)",
    "`touch X`",
    "-rf",
    "back\\slash",
    "pipe |",
    "line\nbreak",
    "tab\there",
    "100%;&",
    "bell\x07",
    unicodedata.normalize("NFD", "ガギグ"),
    "あ" * 80,
]


def test_strange_names_become_ids_and_no_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = make_recipe(tmp_path, "私の 声's")
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(STRANGE):
        write_clip(layout.audio / name / f"{name}.wav", f"文{chr(0x3042 + number)}。", samples=speech(1.2, take=number))
    run_prepare(layout)
    read = kaldi.read(layout.data_all)
    assert len(read.utterances) == len(STRANGE)
    assert {one.text for one in read.utterances} == {f"文{chr(0x3042 + number)}。" for number in range(len(STRANGE))}
    for one in read.utterances:
        assert one.utt.startswith("私の_声's-")
        assert one.utt == unicodedata.normalize("NFC", one.utt)
        assert not any(character.isspace() or character == "/" or ord(character) < 32 for character in one.utt)
        assert one.wav.is_file()
    ids = {one.text: one.utt for one in read.utterances}
    assert ids["文あ。"] == "私の_声's-with_space-with_space"
    assert ids["文い。"] == "私の_声's-quote'\"-quote'\""
    assert ids["文ぎ。"] == "私の_声's-ガギグ-ガギグ"
    assert not list(tmp_path.rglob("X"))


def test_two_sources_of_one_id_are_told_apart_the_same_way_every_time(layout: Layout) -> None:
    write_clip(layout.audio / "a b.wav", "一。")
    run_prepare(layout)
    assert texts(layout) == {"mine-a_b": "一。"}
    write_clip(layout.audio / "a_b.wav", "二。", samples=speech(take=3))
    (layout.audio / "c").mkdir()
    write_clip(layout.audio / "c" / "d.wav", "三。", samples=speech(take=4))
    write_clip(layout.audio / "c-d.wav", "四。", samples=speech(take=5))
    run_prepare(layout)
    first = texts(layout)
    assert len(first) == 4
    assert first["mine-a_b"] == "二。"
    assert first["mine-c-d"] == "四。"
    run_prepare(layout)
    assert texts(layout) == first


def test_nfc_and_nfd_names_belong_together(layout: Layout) -> None:
    write_audio(layout.audio / unicodedata.normalize("NFD", "が.wav"))
    (layout.audio / unicodedata.normalize("NFC", "が.txt")).write_text("が。", encoding="utf-8")
    write_audio(layout.audio / "s" / "wavs" / unicodedata.normalize("NFD", "ぎ.wav"))
    (layout.audio / "s" / "metadata.csv").write_text("ぎ|ぎ。\n", encoding="utf-8")
    run_prepare(layout)
    assert texts(layout) == {"mine-が": "が。", "mine-s-wavs-ぎ": "ぎ。"}


def test_a_second_run_is_byte_identical_and_a_third_does_nothing(layout: Layout) -> None:
    for number in range(3):
        write_clip(layout.audio / f"{number}.mp3", rate_hz=44100, samples=speech(2.0, 44100, take=number))
    assert run_stage_0(layout).returncode == 0
    before = snapshot(layout.data_all)
    write_clip(layout.audio / "new.wav")
    assert "audio/new.txt is new" in run_stage_0(layout).stdout
    (layout.audio / "new.wav").unlink()
    (layout.audio / "new.txt").unlink()
    assert run_stage_0(layout).returncode == 0
    assert snapshot(layout.data_all) == before
    assert "nothing to do" in run_stage_0(layout).stdout


def test_clips_of_recordings_that_are_gone_are_removed_and_no_others(layout: Layout) -> None:
    write_clip(layout.audio / "a.wav")
    write_clip(layout.audio / "b.wav")
    run_prepare(layout)
    mine = write_audio(layout.data_all / "wav" / "kept by me.wav")
    (layout.audio / "b.wav").unlink()
    (layout.audio / "b.txt").unlink()
    run_prepare(layout)
    assert sorted(path.name for path in (layout.data_all / "wav").iterdir()) == ["kept by me.wav", "mine-a.wav"]
    assert mine.is_file()


def test_links_are_followed_and_loops_are_named(layout: Layout, tmp_path: Path) -> None:
    write_clip(tmp_path / "elsewhere" / "a.wav")
    (layout.audio / "linked").symlink_to(tmp_path / "elsewhere")
    run_prepare(layout)
    assert list(texts(layout)) == ["mine-linked-a"]
    (layout.audio / "loop").symlink_to(layout.audio)
    with pytest.raises(UserError, match="audio/loop: a link to a folder that it lies in"):
        run_prepare(layout)


def test_audio_outside_that_a_list_names_is_watched(layout: Layout, tmp_path: Path) -> None:
    outside = write_audio(tmp_path / "outside.wav")
    line = json.dumps({"audio": str(outside), "text": "外。"})
    (layout.audio / "list.jsonl").write_text(line, encoding="utf-8")
    assert run_stage_0(layout).returncode == 0
    assert texts(layout) == {"mine-outside": "外。"}
    write_audio(outside, speech(take=440))
    assert "outside.wav has changed" in run_stage_0(layout).stdout


def test_sub_folders_are_one_person_and_by_folder_makes_them_speakers(layout: Layout) -> None:
    for folder in ("morning", "evening"):
        write_clip(layout.audio / folder / "a.wav", samples=speech(take=ord(folder[0])))
    run_prepare(layout)
    assert list(kaldi.read(layout.data_all).speakers) == ["mine"]
    run_prepare(layout, "speaker=花子")
    assert sorted(texts(layout)) == ["花子-evening-a", "花子-morning-a"]
    run_prepare(layout, "audio.speakers=by_folder")
    assert {name: [one.utt for one in ones] for name, ones in kaldi.read(layout.data_all).speakers.items()} == {
        "evening": ["evening-a"],
        "morning": ["morning-a"],
    }


def test_look_alike_speakers_can_be_one_or_several(layout: Layout) -> None:
    for folder in ("SPK1", "SPK2"):
        write_clip(layout.audio / folder / "a.wav", suffix=".lab")
    assert _speakers(layout, "audio.speakers=single") == ["mine"]
    assert _speakers(layout, "audio.speakers=by_folder") == ["SPK1", "SPK2"]


def _speakers(layout: Layout, choice: str) -> list[str]:
    run_prepare(layout, choice)
    return list(kaldi.read(layout.data_all).speakers)


def test_kaldi_and_jsonl_may_state_the_speakers(layout: Layout) -> None:
    for name in ("a", "b"):
        write_audio(layout.audio / f"{name}.wav")
    (layout.audio / "wav.scp").write_text("1 a.wav\n", encoding="utf-8")
    (layout.audio / "text").write_text("1 一。\n", encoding="utf-8")
    (layout.audio / "utt2spk").write_text("1 X\n", encoding="utf-8")
    (layout.audio / "l.jsonl").write_text('{"audio": "b.wav", "text": "二。", "speaker": "Y"}\n', encoding="utf-8")
    assert _speakers(layout, "audio.speakers=by_folder") == ["X", "Y"]


def test_the_wrappers_call_the_root_from_anywhere(tmp_path: Path) -> None:
    for recipe in ("TEMPLATE", "demo"):
        root = tmp_path / f"ルート {recipe}"
        target = root / "egs" / "私の 声"
        target.mkdir(parents=True)
        (root / "run.sh").write_text('printf "%s\\n" "$@"\n', encoding="utf-8")
        wrapper = target / "run.sh"
        wrapper.write_bytes((ROOT / "egs" / recipe / "run.sh").read_bytes())
        wrapper.chmod(0o755)
        for place, command in (("/", str(wrapper)), (str(root / "egs"), "私の 声/run.sh"), (str(target), "./run.sh")):
            environment = {**os.environ, "CDPATH": "/tmp:/"}
            done = subprocess.run(
                [command, "--stage", "3", "description=a b"],
                cwd=place,
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            assert done.stdout.split("\n")[:-1] == [str(target), "--stage", "3", "description=a b"]


def test_real_speech_is_prepared_when_it_is_there(tmp_path: Path) -> None:
    speech = ROOT.parent / "shared" / "data" / "ljspeech24"
    if not speech.is_dir():
        pytest.skip(f"{speech} is not there: real speech for development")
    layout = make_recipe(tmp_path, "l j")
    layout.audio.rmdir()
    layout.audio.symlink_to(speech)
    report = run_prepare(layout, "language=en")
    assert report["kept"] == report["input"] == 24
    assert sum(clip["duration_s"] for clip in report["clips"]) == pytest.approx(164, abs=1)
    assert all(abs(clip["loudness_lufs"] + 23) < 0.1 or clip["true_peak_dbfs"] > -1.1 for clip in report["clips"])
    assert texts(layout)["l_j-LJ001-0002"] == "in being comparatively modern."
