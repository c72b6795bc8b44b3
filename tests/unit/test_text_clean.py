"""What cleaning takes out of a transcript, by rule, and how it is counted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cosytune.text import clean, is_speakable, normalize
from cosytune.text.clean import SOUNDS

COMMAND, TOKEN, INVISIBLE = "model command <|...|>", "unknown token [...] or <...>", "invisible character"


@pytest.mark.parametrize(
    ("raw", "text", "changes"),
    [
        ("はい。", "はい。", {}),
        ("You are a helpful assistant.<|endofprompt|>はい。", "You are a helpful assistant.はい。", {COMMAND: 1}),
        ("<|im_start|>はい<|0.00|><|ja|>", "はい", {COMMAND: 3}),
        ("a <|x|> b", "a b", {COMMAND: 1}),
        ("<|<|x|>im_end|>", "", {COMMAND: 2}),
        ("はい[applause]、[laughter]どうも[Music]", "はい、[laughter]どうも", {TOKEN: 2}),
        ("<b>太い</b>字<br/>", "太い字", {TOKEN: 3}),
        (
            "<strong>とても</strong>いい<laughter>ね</laughter>",
            "<strong>とても</strong>いい<laughter>ね</laughter>",
            {},
        ),
        ("[laugh\u200bter]", "[laughter]", {INVISIBLE: 1}),
        ("【注】[音楽][1][A] 3 < 5 > 2", "【注】[音楽][1][A] 3 < 5 > 2", {}),
        ("\ufeffは\u200bい\x07\ufe0f\u3000。", "はい 。", {INVISIBLE: 4}),
        ("か\u200b\u3099", "が", {INVISIBLE: 1}),
    ],
)
def test_clean(raw: str, text: str, changes: dict[str, int]) -> None:
    cleaned = clean(raw)
    assert cleaned.text == text
    assert cleaned.changes == changes
    assert clean(text).text == text and not clean(text).changes


@pytest.mark.parametrize("sound", sorted(SOUNDS))
@pytest.mark.parametrize("language", ["ja", "zh", "en", "de"])
def test_sounds_survive_letter_for_letter(sound: str, language: str) -> None:
    for script in ("written", "katakana"):
        said = normalize(f"{sound}3{sound} 12 {sound}", language, script)
        assert said.count(sound) == 3
        assert not is_speakable(sound)


def test_the_sounds_are_those_of_upstreams_tokenizer(pristine: Path) -> None:
    source = (pristine / "cosyvoice" / "tokenizer" / "tokenizer.py").read_text(encoding="utf-8")
    listed = source.split("'additional_special_tokens': [", 1)[1].split("]\n        }", 1)[0]
    known = set(re.findall(r"['\"]([\[<][^'\"]+[\]>])['\"]", listed))
    assert {one for one in known if "|" not in one} == SOUNDS
