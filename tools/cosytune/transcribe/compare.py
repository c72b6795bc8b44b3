"""Two texts of the same sound -> how far they are apart."""

from __future__ import annotations

import unicodedata

from cosytune.text import Script, normalize
from cosytune.text.clean import without_sounds


def cer(reference: str, heard: str, language: str) -> float:
    """Character error rate: edits that turn `heard` into `reference`, for each character of `reference`.

    Only what is spoken counts (letters and digits, NFKC, case-folded), both texts as they are normalised for training.
    Japanese is compared by its readings: 今日 and きょう are the same word. 1.0 when `reference` says nothing and
    `heard` does.
    """
    from rapidfuzz.distance import Levenshtein

    said, understood = _spoken(reference, language), _spoken(heard, language)
    if not said:
        return float(bool(understood))
    return Levenshtein.distance(said, understood) / len(said)


def _spoken(text: str, language: str) -> str:
    script: Script = "katakana" if language == "ja" else "written"
    plain = unicodedata.normalize("NFKC", without_sounds(normalize(text, language, script))).casefold()
    return "".join(character for character in plain if unicodedata.category(character)[0] in "LMN")
