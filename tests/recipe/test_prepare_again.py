"""What a user has said of clips survives every way in which stage 0 can run again, be stopped, or be fed anew."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cosytune import config as configs
from cosytune import decisions, files, kaldi
from cosytune.corpus import store
from cosytune.errors import UserError
from cosytune.layout import ROOT, Layout
from cosytune.review import edits
from recordings import make_recipe, run_prepare, speech, texts, write_audio, write_clip

WORD = "これは一つ目の文です。"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Three clips, of which b has no text."""
    made = make_recipe(tmp_path)
    for take, name in enumerate("abc"):
        write_clip(made.audio / f"{name}.wav", None if name == "b" else WORD, samples=speech(2.0, take=take))
    (made.recipe / "conf.yaml").write_text("language: ja\nbase: random\ntranscribe: {model: none}\n", encoding="utf-8")
    return made


def type_text(layout: Layout, text: str) -> None:
    edits.set_text(layout, "ja", "audio/b.wav", text, "")


def correct(layout: Layout, utt: str, line: str) -> None:
    kaldi.write_table(layout.data_all / "text", {**texts(layout), utt: line})


def test_a_line_is_newer_than_what_was_typed_before_it_and_comes_back(layout: Layout) -> None:
    run_prepare(layout)
    type_text(layout, "打った文。")
    run_prepare(layout)
    assert texts(layout)["mine-b"] == "打った文。"
    correct(layout, "mine-b", "直した文。")
    with pytest.raises(UserError, match="no clip is left"):
        run_prepare(layout, "audio.gates.max_silence_share=0.001")
    report = files.read_json(layout.data_all / "report.json")
    assert {one["line"] for one in report["set_aside_corrections"]} == {"直した文。"}
    run_prepare(layout, "audio.gates.max_silence_share=0.7")
    assert texts(layout)["mine-b"] == "直した文。"


def test_what_is_typed_after_a_correction_went_to_quarantine_is_newer(layout: Layout) -> None:
    run_prepare(layout)
    correct(layout, "mine-a", "直した文。")
    with pytest.raises(UserError, match="no clip is left"):
        run_prepare(layout, "audio.gates.max_silence_share=0.001")
    edits.set_text(layout, "ja", "audio/a.wav", "もっと新しい文。", "直した文。")
    run_prepare(layout, "audio.gates.max_silence_share=0.7")
    assert texts(layout)["mine-a"] == "もっと新しい文。"


def test_a_deleted_line_means_what_was_typed_or_what_the_source_says(layout: Layout) -> None:
    run_prepare(layout)
    type_text(layout, "打った文。")
    run_prepare(layout)
    correct(layout, "mine-a", "直した文。")
    (layout.data_all / "text").write_text("mine-c " + WORD + "\n", encoding="utf-8")
    for _ in range(2):
        run_prepare(layout)
        assert texts(layout) == {"mine-a": WORD, "mine-b": "打った文。", "mine-c": WORD}


@pytest.mark.parametrize("broken", [1, 2, 3, 4, 5, 6, 7, 8, 9])
def test_a_run_that_is_stopped_while_it_writes_loses_no_correction(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, broken: int
) -> None:
    """It dies at the n-th file that it writes; a clip is new, one goes to quarantine, one comes back from there."""
    run_prepare(layout)
    type_text(layout, "打った文。")
    correct(layout, "mine-a", "直した文。")
    correct(layout, "mine-c", "別の直した文。")
    decisions.save(layout, decisions.load(layout).put("audio/c.wav", "mine-c", "drop", None))
    run_prepare(layout)
    decisions.save(layout, decisions.load(layout).put("audio/c.wav", "mine-c", None, None))
    decisions.save(layout, decisions.load(layout).put("audio/a.wav", "mine-a", "drop", None))
    write_clip(layout.audio / "new.wav", WORD, samples=speech(2.0, take=9))

    count = 0
    write = files.write_bytes

    def stop(path: Path, data: bytes) -> None:
        nonlocal count
        count += 1
        if count == broken:
            raise KeyboardInterrupt
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_bytes", stop)
        with pytest.raises(KeyboardInterrupt):
            run_prepare(layout)
    run_prepare(layout)
    assert texts(layout) == {"mine-b": "打った文。", "mine-c": "別の直した文。", "mine-new": WORD}
    decisions.save(layout, decisions.load(layout).put("audio/a.wav", "mine-a", None, None))
    run_prepare(layout)
    assert texts(layout)["mine-a"] == "直した文。"
    assert kaldi.validate(layout.data_all, deep=True) == []


def test_a_piece_that_was_copied_back_into_audio_gets_an_id_of_its_own(layout: Layout) -> None:
    write_audio(layout.audio / "talk.wav", np.concatenate([speech(4.0, take=n) for n in range(20, 24)]))
    run_prepare(layout)
    piece = sorted(layout.quarantine.glob("mine-talk-*.wav"))[0]
    copy = layout.audio / piece.name.removeprefix("mine-")
    shutil.copy(piece, copy)
    copy.with_suffix(".txt").write_text(WORD, encoding="utf-8")
    report = run_prepare(layout)
    utts = [clip["utt"] for clip in [*report["clips"], *report["drops"]] if clip["utt"]]
    assert len(set(utts)) == len(utts)
    assert kaldi.validate(layout.data_all, deep=True) == []


def test_a_damaged_report_is_named(layout: Layout) -> None:
    run_prepare(layout)
    (layout.data_all / "report.json").write_text('{"clips": [{"utt": "x"}]}', encoding="utf-8")
    with pytest.raises(UserError, match=r"report\.json: damaged .*; move it away and run stage 0 again"):
        run_prepare(layout)
    (layout.data_all / "report.json").unlink()
    assert run_prepare(layout)["kept"] == 2


def test_ids_to_keep_that_cannot_be_kept_are_told_apart(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    write_clip(layout.audio / "silent.wav", WORD, samples=np.zeros(48000))
    with pytest.raises(UserError, match="nobody: no such clip") as mistake:
        run_prepare(layout, "audio.keep=[nobody, mine-silent]")
    assert "mine-silent: no clip could be made of it" in mistake.value.messages[1]
    run_prepare(layout, "audio.keep=[mine-b]")
    assert "audio.keep: not kept, see below: mine-b" in capsys.readouterr().out


def test_decisions_on_clips_that_are_gone_wait_and_are_named(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    decisions.save(layout, decisions.load(layout).put("audio/gone.wav", "mine-gone", "drop", None))
    assert run_prepare(layout)["waiting_decisions"] == ["audio/gone.wav"]
    assert "1 decision(s) of the review wait for clips that are not there: audio/gone.wav" in capsys.readouterr().out


def test_a_stage_that_is_asked_to_stop_ends_at_once_and_leaves_nothing(layout: Layout) -> None:
    for take in range(60):
        write_clip(layout.audio / "many" / f"{take}.wav", WORD, samples=speech(6.0, take=take % 6) * (1 + take / 100))
    frozen = configs.freeze(layout.recipe, layout.exp, ["audio.nj=2"], 0, 0)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tools")}
    stage = subprocess.Popen(
        [sys.executable, "-m", "cosytune.stages.prepare", str(frozen)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline_s = time.monotonic() + 60
    while not list(layout.data_all.parent.glob(".prepare-*/*.wav")):  # it is making clips
        assert stage.poll() is None and time.monotonic() < deadline_s
        time.sleep(0.02)
    stage.send_signal(signal.SIGTERM)
    said = stage.communicate(timeout=30)[1]
    assert stage.returncode == 143
    assert "Traceback" not in said
    assert said.count("stopped") == 1
    assert not list(layout.data_all.parent.glob(".prepare-*"))


def test_what_a_killed_run_left_goes_with_the_next(layout: Layout) -> None:
    left = layout.data_all.parent / ".prepare-dead"
    left.mkdir(parents=True)
    (left / "0.f32").write_bytes(b"x" * 100)
    with store.working_directory(layout):
        assert not left.exists()
