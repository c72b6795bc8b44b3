"""Edits of the review page: none is lost when several come at once, and none is made while a stage is at work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError

import pytest

import made_review as made
from cosytune import decisions, files, kaldi
from cosytune.errors import UserError
from cosytune.layout import ROOT, Layout
from cosytune.record import Record, capture
from cosytune.review import clips, edits
from cosytune.stages import STAGES

COUNT = 24
PROGRAM = (sys.executable, "-m", "cosytune.review")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "tools")}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Many clips; nothing here is played, so the wav files are empty."""
    layout = Layout(tmp_path / "私の voice")
    files.write_text(layout.conf, "language: ja\n")
    names = [f"r-{number:03d}" for number in range(COUNT)]
    for utt in names:
        files.write_bytes(layout.data_all / "wav" / f"{utt}.wav", b"")
    kaldi.write_table(layout.data_all / "text", {utt: f"これは {utt} です。" for utt in names})
    kept = [made.entry(utt, f"これは {utt} です。", 2.0) for utt in names]
    files.write_bytes(layout.recipe / "data" / "quarantine" / "r-900.wav", b"")
    dropped = made.entry("r-900", "雑音です。", 2.0) | {"reasons": made.QUARANTINED["r-004"][1]}
    made.write_report(layout, kept, [dropped])
    return layout


def text_of(layout: Layout, utt: str) -> str:
    return clips.read_lines(layout)[utt]


@contextmanager
def a_stage_at_work(layout: Layout) -> Iterator[None]:
    """Another process that holds what stages 0 to 3 hold, for as long as the block lasts."""
    code = (
        "import sys; from pathlib import Path; from cosytune.layout import Layout; from cosytune.stages import runner\n"
        "with runner._alone(Layout(Path(sys.argv[1])), runner._stage('tokenize')):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(layout.recipe)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as holder:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        yield
        assert holder.stdin
        holder.stdin.close()


def test_edits_at_once_are_all_there_afterwards(layout: Layout) -> None:
    new = {f"r-{number:03d}": f"{chr(ord('か') + number)}行です。" for number in range(COUNT)}

    def edit(number: int) -> None:
        source, utt = made.source(f"r-{number:03d}"), f"r-{number:03d}"
        edits.set_text(layout, "ja", source, new[utt], text_of(layout, utt))
        edits.set_verdict(layout, source, "drop")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(edit, range(COUNT)))
    assert clips.read_lines(layout) == new
    assert not kaldi.read_table(layout.data_all / "text").problems
    assert {one.utt for one in decisions.load(layout).clips.values()} == new.keys()
    assert sorted(path.name for path in (layout.recipe / "data").iterdir()) == [
        *("all", "decisions.json", "done", "quarantine")
    ]


def test_an_edit_made_in_an_editor_meanwhile_stays(layout: Layout) -> None:
    path = layout.data_all / "text"
    path.write_text(path.read_text().replace("これは r-003 です。", "手で 直しました。"))
    edits.set_text(layout, "ja", made.source("r-001"), "はい。", "これは r-001 です。")
    assert (text_of(layout, "r-001"), text_of(layout, "r-003")) == ("はい。", "手で 直しました。")
    with pytest.raises(edits.RefusedError, match="changed_meanwhile"):
        edits.set_text(layout, "ja", made.source("r-003"), "いいえ。", "これは r-003 です。")
    assert text_of(layout, "r-003") == "手で 直しました。"


def test_nothing_is_written_while_a_stage_is_at_work(layout: Layout) -> None:
    with a_stage_at_work(layout):
        for edit in (
            lambda: edits.set_verdict(layout, made.source("r-001"), "drop"),
            lambda: edits.set_text(layout, "ja", made.source("r-001"), "はい。", "これは r-001 です。"),
        ):
            with pytest.raises(edits.RefusedError, match="busy") as caught:
                edit()
            assert caught.value.status == 409
    assert text_of(layout, "r-001") == "これは r-001 です。"
    edits.set_verdict(layout, made.source("r-001"), "drop")
    assert decisions.load(layout).of(made.source("r-001")).verdict == "drop"


def test_a_clip_that_a_new_run_has_renamed_is_found_by_its_source(layout: Layout) -> None:
    renamed = made.entry("r-001", "これは r-001 です。", 2.0) | {"utt": "s-001"}
    kaldi.write_table(layout.data_all / "text", {"s-001": "これは r-001 です。"})
    clips.read_clips(layout)
    made.write_report(layout, [renamed], [])
    edits.set_text(layout, "ja", made.source("r-001"), "はい。", "これは r-001 です。")
    assert clips.read_lines(layout) == {"s-001": "はい。"}
    with pytest.raises(edits.RefusedError, match="gone"):
        edits.set_verdict(layout, made.source("r-002"), "drop")


def test_what_stage_3_has_read_is_no_longer_pending(layout: Layout) -> None:
    edits.set_text(layout, "ja", made.source("r-001"), "はい。", "これは r-001 です。")
    assert [one["utt"] for one in clips.view(layout) if one["pending"]] == ["r-001"]
    pack = next(stage for stage in STAGES if stage.name == "pack")
    Record({}, capture(layout, [layout.data_all / "text"]), {}).write(layout, pack)
    assert not any(one["pending"] for one in clips.view(layout))
    edits.set_text(layout, "ja", made.source("r-002"), "いいえ。", "これは r-002 です。")
    assert {one["utt"] for one in clips.view(layout) if one["pending"]} == {"r-001", "r-002"}


@pytest.mark.parametrize(
    ("utt", "verdict", "pending"),
    [("r-001", "drop", True), ("r-001", "keep", False), ("r-900", "drop", False), ("r-900", "keep", True)],
)
def test_a_verdict_is_pending_when_a_run_would_move_the_clip(
    layout: Layout, utt: str, verdict: decisions.Verdict, pending: bool
) -> None:
    edits.set_verdict(layout, made.source(utt), verdict)
    assert clips.view_one(layout, made.source(utt))["pending"] is pending


@pytest.mark.parametrize("verdict", ["keep", "drop", None])
def test_the_line_of_a_kept_clip_is_the_truth_whatever_was_typed_before(
    layout: Layout, verdict: decisions.Verdict | None
) -> None:
    source, other = made.source("r-001"), made.source("r-002")
    for one, utt in ((source, "r-001"), (other, "r-002")):
        decisions.save(layout, decisions.load(layout).put(one, utt, "keep", "前に書いた文です。"))
    edits.set_verdict(layout, source, verdict)
    said = decisions.load(layout).of(source)
    assert (said.verdict, said.text) == (verdict, None)
    edits.set_text(layout, "ja", other, "はい。", "これは r-002 です。")
    said = decisions.load(layout).of(other)
    assert (said.verdict, said.text, text_of(layout, "r-002")) == ("keep", None, "はい。")


@pytest.fixture
def waiting(layout: Layout) -> Layout:
    """Its correction by hand has gone to quarantine with the clip; what had been typed before is older."""
    dropped = made.entry("r-900", "雑音です。", 2.0) | {"reasons": made.QUARANTINED["r-004"][1]}
    line = {"utt": "r-900", "source": made.source("r-900"), "source_text": "雑音です。", "line": "直した行です。"}
    made.write_report(
        layout, [made.entry("r-001", "これは r-001 です。", 2.0)], [dropped], [line | {"typed": "古い。"}]
    )
    return layout


@pytest.mark.parametrize(
    ("typed", "shown"), [(None, "直した行です。"), ("古い。", "直した行です。"), ("新しい。", "新しい。")]
)
def test_a_correction_that_waits_is_shown_unless_something_newer_was_typed(
    waiting: Layout, typed: str | None, shown: str
) -> None:
    source = made.source("r-900")
    if typed:
        decisions.save(waiting, decisions.load(waiting).put(source, "r-900", None, typed))
    assert clips.view_one(waiting, source)["text"] == shown
    edits.set_text(waiting, "ja", source, "もっと新しい。", shown)
    assert clips.view_one(waiting, source)["text"] == "もっと新しい。"
    edits.set_text(waiting, "ja", source, "雑音です。", "もっと新しい。")  # as it was found: newer than the correction
    assert clips.view_one(waiting, source)["text"] == "雑音です。"


def test_a_correction_of_a_report_without_what_was_typed(layout: Layout) -> None:
    dropped = made.entry("r-900", "", 2.0) | {"reasons": made.QUARANTINED["r-005"][1]}
    line = {"utt": "r-900", "source": made.source("r-900"), "source_text": "", "line": "直した行です。"}
    made.write_report(layout, [], [dropped], [line])
    assert clips.view_one(layout, made.source("r-900"))["text"] == "直した行です。"
    edits.set_verdict(layout, made.source("r-900"), "keep")  # it has a text
    edits.set_text(layout, "ja", made.source("r-900"), "はい。", "直した行です。")
    assert clips.view_one(layout, made.source("r-900"))["text"] == "はい。"


def test_ids_that_are_paths_are_not_served(layout: Layout) -> None:
    made.write_report(layout, [made.entry("r-001", "はい。", 2.0) | {"utt": "../../conf.yaml"}], [])
    with pytest.raises(UserError, match="run stage 0 again"):
        clips.read_clips(layout)


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    hears = ("env", "--default-signal=INT")  # a job in the background ignores Ctrl-C, and so do its children
    return subprocess.Popen(
        [*hears, *PROGRAM, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )


@pytest.mark.parametrize(
    ("number", "status", "said"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "stopped")]
)
def test_the_program_serves_until_a_signal(layout: Layout, number: int, status: int, said: str) -> None:
    with start(layout.recipe) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline() == "私の voice: 24 kept + 1 in quarantine = 25 clips\n"
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:") and len(address.split("/")[3]) >= 40
        with urllib.request.urlopen(address) as answer:
            assert answer.status == 200
        with pytest.raises(HTTPError, match="404"):
            urllib.request.urlopen(address.rsplit("/", 2)[0] + "/")
        with start(layout.recipe, "--port", address.split("/")[2].split(":")[1]) as second:
            _, errors = second.communicate()
        assert second.returncode == 1
        assert "in use; leave --port out" in errors and "Traceback" not in errors
        process.send_signal(number)
        assert (process.wait(20), process.stderr.read().strip()) == (status, said)


def test_missing_and_damaged_data_are_said_before_anything_is_served(layout: Layout, tmp_path: Path) -> None:
    def fails(*arguments: str | Path) -> str:
        with start(*arguments) as process:
            _, errors = process.communicate()
        assert process.returncode in (1, 2) and "Traceback" not in errors
        return errors

    assert "no recipe there" in fails(tmp_path)
    assert "not a port" in fails(layout.recipe, "--port", "70000")
    decisions.path(layout).write_text("{")
    assert "decisions.json: no JSON" in fails(layout.recipe)
    decisions.path(layout).unlink()
    (layout.data_all / "report.json").write_text("[]")
    assert "report.json: damaged" in fails(layout.recipe)
    (layout.data_all / "report.json").unlink()
    assert "run stage 0 (prepare) first: --stage 0" in fails(layout.recipe)
