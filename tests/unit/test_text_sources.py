"""Transcripts of every form and encoding in one folder: as typed, as normalised, and what was converted and removed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cosytune import kaldi
from cosytune.audio.folder import scan
from cosytune.audio.sources import Found, find_sources
from cosytune.layout import ROOT
from recordings import make_recipe, run_prepare, write_audio, write_clip

# root passes permission bits unless it gives that right away
AS_A_USER = (
    ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")
    if os.geteuid() == 0
    else ()
)


def find(root: Path, language: str = "ja") -> Found:
    return find_sources(scan(root), "mine", "single", language)


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_each_form_in_each_encoding(tmp_path: Path) -> None:
    root = tmp_path / "audio"
    for name in ("a", "b", "c", "wavs/d", "e", "f"):
        write_audio(root / f"{name}.wav")
    put(root / "a.txt", "\ufeff一つ目。\r\n".encode())
    put(root / "b.txt", "二つ目です。\r\n".encode("cp932"))
    put(root / "c.lab", "3つ目です。\r".encode("utf-16"))
    put(root / "metadata.csv", "d|四つ目です。\r\n".encode("euc_jp"))
    line = json.dumps({"audio": "e.wav", "text": "五つ目です。"}, ensure_ascii=False)
    put(root / "list.jsonl", f"{line}\r\n".encode("cp932"))
    found = find(root)
    assert found.problems == []
    assert [source.written for source in found.sources] == [
        "一つ目。\n", "二つ目です。\n", "3つ目です。\n", "五つ目です。", None, "四つ目です。"
    ]  # fmt: skip
    assert [source.text for source in found.sources] == [
        "一つ目。", "二つ目です。", "ミッツメです。", "五つ目です。", None, "四つ目です。"
    ]  # fmt: skip
    assert found.encodings == {"Shift-JIS": 2, "UTF-16": 1, "EUC-JP": 1}
    assert found.changes == {}


def test_what_cleaning_takes_out_is_counted_over_all(tmp_path: Path) -> None:
    root = tmp_path / "audio"
    texts = {"a": "<|x|>はい[applause]。", "b": "い\u200bいえ<|y|>[laughter]。", "c": "ええ。"}
    for name, text in texts.items():
        write_audio(root / f"{name}.wav")
        put(root / f"{name}.txt", text.encode())
    found = find(root)
    assert [source.text for source in found.sources] == ["はい。", "いいえ[laughter]。", "ええ。"]
    assert [source.written for source in found.sources] == list(texts.values())
    assert found.changes == {
        "model command <|...|>": 2,
        "unknown token [...] or <...>": 1,
        "invisible character": 1,
    }


def test_nothing_but_tokens_is_an_empty_transcript(tmp_path: Path) -> None:
    root = tmp_path / "audio"
    for name, text in (("a", "<|endofprompt|>"), ("b", "[laughter]"), ("c", "\u200b[Music]。")):
        write_audio(root / f"{name}.wav")
        put(root / f"{name}.txt", text.encode())
    problems = find(root).problems
    assert [problem.split(";")[0] for problem in problems] == [
        f"audio/{name}.txt: empty transcript" for name in ("a", "b", "c")
    ]


@pytest.mark.parametrize(
    "folders",
    [("Anna", "Anna(old)"), ("a b", "a_b"), ("a", "a-b", "a_b", "a_b-c", "a-b-c", "a!")],
)
def test_clips_of_speakers_with_names_that_begin_alike_stand_together(tmp_path: Path, folders: tuple[str, ...]) -> None:
    """Kaldi wants utt2spk in one order by its first column and by its second."""
    layout = make_recipe(tmp_path)
    for folder in folders:
        for name in ("!", "a", "b", "z"):
            write_clip(layout.audio / folder / f"{name}.wav")
    report = run_prepare(layout, "audio.speakers=by_folder")
    assert len({clip["speaker"] for clip in report["clips"]}) == len(folders)
    assert kaldi.validate(layout.data_all, deep=True) == []


def test_a_speaker_keeps_the_name_of_the_folder_where_it_can(tmp_path: Path) -> None:
    for folder in ("a", "a_b", "b-c", "花子"):
        write_audio(tmp_path / "audio" / folder / "x.wav")
    found = find_sources(scan(tmp_path / "audio"), "mine", "by_folder", "ja")
    assert [source.speaker for source in found.sources] == ["a", "a_b", "b-c", "花子"]


def test_files_that_may_not_be_read_are_lines_among_the_others(tmp_path: Path) -> None:
    layout = make_recipe(tmp_path)
    for name in ("a", "b", "c"):
        write_clip(layout.audio / f"{name}.wav", "" if name == "c" else "はい。")
    put(layout.audio / "list.jsonl", b"{}")
    for name in ("a.txt", "b.txt", "list.jsonl", "b.wav"):
        (layout.audio / name).chmod(0)
    code = (
        "from pathlib import Path; from cosytune.audio.folder import scan; from cosytune.audio.probe import probe\n"
        "from cosytune.audio.sources import find_sources\n"
        f"print(*find_sources(scan(Path({str(layout.audio)!r})), 'mine', 'single', 'ja').problems, sep='\\n')\n"
        f"print('audio/b.wav:', probe(Path({str(layout.audio / 'b.wav')!r})).reason)"
    )
    command = [*AS_A_USER, sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tools")}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    assert sorted(said) == [
        "audio/a.txt: permission denied; make it readable (chmod u+r)",
        "audio/b.txt: permission denied; make it readable (chmod u+r)",
        "audio/b.wav: permission denied; make it readable (chmod u+r)",
        "audio/c.txt: empty transcript; write what is said, or remove it to have the recording transcribed",
        "audio/list.jsonl: permission denied; make it readable (chmod u+r)",
    ]
