"""decisions.json: what the user said comes back, and what is damaged is refused by name."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest

from cosytune import decisions
from cosytune.decisions import Decision, Decisions
from cosytune.errors import UserError
from cosytune.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "私の voice")


def test_nothing_said_is_no_file(layout: Layout) -> None:
    assert decisions.load(layout) == Decisions()
    assert decisions.load(layout).of("audio/a.wav") == Decision()
    assert decisions.load(layout).of("audio/a.wav").is_empty


def test_what_was_saved_is_read_again(layout: Layout) -> None:
    said = (
        Decisions()
        .put("audio/会議.wav@12.34-19.87", "s-001", None, "こんにちは。")
        .put("audio/a.wav", "s-a", "drop", None)
    )
    decisions.save(layout, said)
    read = decisions.load(layout)
    assert read == said
    assert read.of("audio/a.wav").verdict == "drop"
    assert read.of("audio/会議.wav@12.34-19.87").text == "こんにちは。"
    assert datetime.fromisoformat(read.of("audio/a.wav").at).tzinfo is not None
    assert "会議" in decisions.path(layout).read_text(encoding="utf-8")  # people read this file


def test_a_word_taken_back_leaves_no_entry(layout: Layout) -> None:
    said = Decisions().put("audio/a.wav", "a", "keep", None).put("audio/b.wav", "b", "drop", None)
    assert said.put("audio/a.wav", "a", None, None).clips.keys() == {"audio/b.wav"}
    assert said.clips.keys() == {"audio/a.wav", "audio/b.wav"}


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("{", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        ("[]", 'no "clips"'),
        ('{"version": 2, "clips": {}}', "version 2"),
        ('{"clips": {}}', "version None"),
    ],
)
def test_a_damaged_file_is_refused_with_the_remedy(layout: Layout, content: str | bytes, what: str) -> None:
    decisions.path(layout).parent.mkdir(parents=True)
    decisions.path(layout).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        decisions.load(layout)
    assert what in str(caught.value) and "move it away" in str(caught.value)


def test_every_bad_entry_is_named(layout: Layout) -> None:
    clips = {
        "audio/a.wav": {"utt": "a", "decision": "maybe", "text": None, "at": ""},
        "audio/b.wav": {"utt": "b", "decision": None, "text": "two\nlines", "at": ""},
        "audio/c.wav": "drop",
        "audio/d.wav": {"utt": 4, "decision": "drop"},
        "audio/e.wav": {"decision": "keep"},
    }
    decisions.path(layout).parent.mkdir(parents=True)
    decisions.path(layout).write_text(json.dumps({"version": 1, "clips": clips}))
    with pytest.raises(UserError) as caught:
        decisions.load(layout)
    assert [message.split("'")[1] for message in caught.value.messages] == sorted(clips)[:4]
