"""Transcripts of every form and encoding in one folder: as typed, as normalised, and what was converted and removed."""

from __future__ import annotations

import json
from pathlib import Path

from cosytune.audio.folder import scan
from cosytune.audio.sources import Found, find_sources
from recordings import write_audio


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
