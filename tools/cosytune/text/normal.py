"""Text as someone typed it -> one line of the same words: what transcripts, synthesis and the report have in common."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Literal

from cosytune.text import chinese, english, japanese
from cosytune.text.clean import clean, split_sounds, without_sounds

NORMALIZER = "cosytune-2"
"""Name and version: recorded with data and voices; a new number whenever `normalize` answers differently. A voice of an
older one is spoken with today's: what it would read otherwise is nearer to what was said in its recordings."""

Script = Literal["written", "katakana"]
"""What a model family wants to read; `katakana` says something about Japanese alone."""

_MOST_ROUNDS = 4
"""A reading may read differently in its new surroundings; after one or two rounds nothing moves."""


def normalize(text: str, language: str, script: Script = "written") -> str:
    """Cleaned text in the given script, numerals as they are said. What it answered, it answers again.

    `language` is the config's: ja by Open JTalk, zh and yue and en by wetext; the others are cleaned only. SOUNDS such
    as [laughter] stay letter for letter. Safe to call from several threads; the first call for a language is slow.
    """
    say = _way_to_say(language, script)
    current = clean(text).text
    for _ in range(_MOST_ROUNDS):
        pieces = split_sounds(current)
        said = "".join(piece if place % 2 else _within_spaces(say, piece) for place, piece in enumerate(pieces))
        before, current = current, clean(said).text
        if current == before:
            break
    return current


def _way_to_say(language: str, script: Script) -> Callable[[str], str]:
    if language == "ja":
        return japanese.written if script == "written" else japanese.katakana
    if language in ("zh", "yue"):
        return chinese.written
    return english.written if language == "en" else str


def _within_spaces(say: Callable[[str], str], piece: str) -> str:
    """Only the text between the spaces at both ends; they separate it from a sound."""
    core = piece.strip()
    return piece.replace(core, say(core), 1) if core else piece


def is_speakable(text: str) -> bool:
    """Whether there is anything to say: at least one letter or digit, sounds such as [laughter] aside."""
    return any(unicodedata.category(character)[0] in "LN" for character in without_sounds(text))
