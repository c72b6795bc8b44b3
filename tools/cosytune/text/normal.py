"""Text as someone typed it -> one line of the same words: what transcripts, synthesis and the report have in common."""

from __future__ import annotations

import unicodedata
from typing import Literal

from cosytune.text.clean import clean, without_sounds

NORMALIZER = "cosytune-2"
"""Name and version: recorded with data and voices; a new number whenever `normalize` answers differently."""

Script = Literal["written", "katakana"]
"""What a model family wants to read; `katakana` says something about Japanese alone."""


def normalize(text: str, language: str, script: Script = "written") -> str:
    """Cleaned text in the given script. The same answer for what it answered: nothing changes twice.

    `language` is the config's (ja, zh, en, ...).
    """
    return clean(text).text


def is_speakable(text: str) -> bool:
    """Whether there is anything to say: at least one letter or digit, sounds such as [laughter] aside."""
    return any(unicodedata.category(character)[0] in "LN" for character in without_sounds(text))
