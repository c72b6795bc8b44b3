"""A transcript that the user corrected by hand in data/all/text survives whatever happens to its recording."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosytune.errors import UserError
from cosytune.layout import Layout
from recordings import make_recipe, run_prepare, run_stage_0, speech, texts, write_clip


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = make_recipe(tmp_path)
    write_clip(layout.audio / "a.wav", "あ。", samples=speech(1.5))
    write_clip(layout.audio / "b.wav", "い。", samples=speech(3.0))
    run_prepare(layout)
    return layout


def correct(layout: Layout, old: str, new: str) -> None:
    path = layout.data_all / "text"
    content = path.read_text(encoding="utf-8")
    assert old in content
    path.write_text(content.replace(old, new), encoding="utf-8")


def test_a_corrected_line_is_kept_and_counted(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    correct(layout, "mine-a あ。", "mine-a 直した。")
    for _ in range(2):
        report = run_prepare(layout)
        assert texts(layout) == {"mine-a": "直した。", "mine-b": "い。"}
        assert report["corrected_by_hand"] == 1
        assert (report["clips"][0]["text"], report["clips"][0]["source_text"]) == ("直した。", "あ。")
        assert "1 transcript(s) corrected by hand in data/all/text: kept" in capsys.readouterr().out


def test_correcting_does_not_make_the_stage_stale(layout: Layout) -> None:
    run_stage_0(layout)
    correct(layout, "mine-a あ。", "mine-a 直した。")
    assert "nothing to do" in run_stage_0(layout).stdout
    assert texts(layout)["mine-a"] == "直した。"


def test_a_new_source_transcript_wins_only_where_nothing_was_corrected(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    correct(layout, "mine-a あ。", "mine-a 直した。")
    (layout.audio / "a.txt").write_text("新しい。", encoding="utf-8")
    (layout.audio / "b.txt").write_text("新しい。", encoding="utf-8")
    run_prepare(layout)
    assert texts(layout) == {"mine-a": "直した。", "mine-b": "新しい。"}
    assert "1 of them have a new source transcript, too; the corrected line stays: mine-a" in capsys.readouterr().out


def test_a_correction_outlives_a_run_that_drops_its_clip(layout: Layout) -> None:
    correct(layout, "mine-a あ。", "mine-a 直した。")
    run_prepare(layout, "audio.min_duration_s=2")
    assert texts(layout) == {"mine-b": "い。"}
    run_prepare(layout, "audio.min_duration_s=2")
    run_prepare(layout, "audio.min_duration_s=1")
    assert texts(layout) == {"mine-a": "直した。", "mine-b": "い。"}


def test_a_correction_follows_its_recording_to_another_id(layout: Layout) -> None:
    write_clip(layout.audio / "c d.wav", "う。", samples=speech(take=3))
    run_prepare(layout)
    correct(layout, "mine-c_d う。", "mine-c_d 直した。")
    write_clip(layout.audio / "c_d.wav", "え。", samples=speech(take=4))
    run_prepare(layout)
    now = texts(layout)
    assert now.pop("mine-c_d") == "え。"
    assert sorted(now.values()) == ["あ。", "い。", "直した。"]


def test_a_correction_is_kept_when_the_report_is_lost(layout: Layout) -> None:
    correct(layout, "mine-a あ。", "mine-a 直した。")
    (layout.data_all / "report.json").unlink()
    run_prepare(layout)
    assert texts(layout) == {"mine-a": "直した。", "mine-b": "い。"}


def test_taking_a_correction_back(layout: Layout) -> None:
    correct(layout, "mine-a あ。", "mine-a 直した。")
    run_prepare(layout)
    correct(layout, "mine-a 直した。\n", "")
    assert run_prepare(layout)["corrected_by_hand"] == 0
    assert texts(layout) == {"mine-a": "あ。", "mine-b": "い。"}


def test_an_editors_line_ends_are_no_correction(layout: Layout) -> None:
    path = layout.data_all / "text"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b" \r\n"))
    assert run_prepare(layout)["corrected_by_hand"] == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mine-a あ。", "mine-a", "text:1: 'mine-a' says nothing"),
        ("mine-a あ。", "mine-x あ。", "text:1: 'mine-x' is no clip of this speaker"),
        ("mine-b い。", "mine-a い。", "text:2: 'mine-a' is already in line 1"),
    ],
)
def test_a_line_that_cannot_be_kept_is_an_error(layout: Layout, old: str, new: str, message: str) -> None:
    correct(layout, old, new)
    with pytest.raises(UserError, match=message):
        run_prepare(layout)
