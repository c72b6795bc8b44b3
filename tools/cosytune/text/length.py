"""A text -> how many spoken units it has, for the pace of a clip: units a second."""

from __future__ import annotations

from cosytune.text.normal import Script, normalize


def spoken_length(text: str, language: str) -> int:
    """Moras for ja, characters for zh and yue, letters and digits for the others; of the words as they are said.

    Sounds such as [laughter], punctuation and spaces count nothing.
    """
    script: Script = "katakana" if language == "ja" else "written"
    said = normalize(text, language, script)
    return sum(character.isalnum() for character in said)
