"""A text -> how many spoken units it has, for the pace of a clip: units a second."""

from __future__ import annotations

import re

from cosytune.text.clean import without_sounds
from cosytune.text.normal import normalize

_SECOND_HALVES = re.compile("[ァィゥェォャュョヮ]")  # キャ is one mora; ッ, ン and ー are one each


def spoken_length(text: str, language: str) -> int:
    """Moras for ja, characters for zh and yue, letters and digits for the others; of the words as they are said.

    Letters of foreign words count one each. Sounds such as [laughter], punctuation and spaces count nothing.
    """
    said = without_sounds(normalize(text, language, "katakana" if language == "ja" else "written"))
    return sum(character.isalnum() for character in _SECOND_HALVES.sub("", said))
