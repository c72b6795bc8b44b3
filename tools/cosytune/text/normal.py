"""Text as someone typed it -> one line of the same words: what transcripts, synthesis and the report have in common."""

from __future__ import annotations

import unicodedata

NORMALIZER = "cosytune-nfc-1"
"""Name and version: recorded with data and voices; a new number whenever `normalize` answers differently."""

_UNSEEN = frozenset({"Cc", "Cf", "Cs"})  # control characters, zero-width and BOM, lone surrogates


def normalize(text: str, language: str) -> str:
    """NFC, nothing invisible, single ASCII spaces between words and none at the ends.

    `language` is the config's (ja, zh, en, ...). All languages share these rules so far; every caller names its
    language because readings of numerals and units will differ.
    """
    composed = unicodedata.normalize("NFC", text)
    return " ".join("".join(character for character in composed if _is_seen(character)).split())


def is_speakable(text: str) -> bool:
    """Whether there is anything to say: at least one letter or digit."""
    return any(unicodedata.category(character)[0] in "LN" for character in text)


def _is_seen(character: str) -> bool:
    """White space (also the control characters that are, such as tab) stays here: `split` turns it into one space."""
    if character.isspace():
        return True
    return unicodedata.category(character) not in _UNSEEN and not _is_variation_selector(character)


def _is_variation_selector(character: str) -> bool:
    """A choice of glyph, as for the two forms of 葛; the word is the same, the tokenizer would see another."""
    return "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"
