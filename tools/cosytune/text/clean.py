"""Text as someone typed it -> one line of what is said, and a count of everything that was taken out."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field

SOUNDS = frozenset(
    {
        "[breath]",
        "[quick_breath]",
        "[laughter]",
        "[cough]",
        "[clucking]",
        "[accent]",
        "[noise]",
        "[hissing]",
        "[sigh]",
        "[vocalized-noise]",
        "[lipsmack]",
        "[mn]",
        "<strong>",
        "</strong>",
        "<laughter>",
        "</laughter>",
    }
)
"""What CosyVoice's tokenizer knows as one token each (`additional_special_tokens` of upstream's QwenTokenizer)."""

_COMMAND = re.compile(r"<\|[^<>|]*\|>")
_TOKEN = re.compile(r"\[[A-Za-z]{2,}(?:[_-][A-Za-z]+)*\]|</?[A-Za-z]+\s*/?>")
"""The shape of SOUNDS: one ASCII word. 【注】, [音楽], [1] and [A] are ordinary text."""
_SOUND = re.compile("|".join(sorted(map(re.escape, SOUNDS))))
_UNSEEN = frozenset({"Cc", "Cf", "Cs"})  # control characters, zero-width and BOM, lone surrogates


@dataclass(frozen=True)
class Cleaned:
    """`changes`: kind -> how often. White space is folded without being counted."""

    text: str
    changes: Counter[str] = field(default_factory=Counter)


def clean(text: str) -> Cleaned:
    """NFC, nothing invisible, no commands to a model, single ASCII spaces between words and none at the ends.

    `<|...|>` goes, for it would command the model; so does a token like [applause] that no tokenizer of the family
    knows. SOUNDS stay, letter for letter. The same for all languages.
    """
    changes: Counter[str] = Counter()
    composed = unicodedata.normalize("NFC", text)
    seen = "".join(character for character in composed if _is_seen(character))
    changes["invisible character"] = len(composed) - len(seen)
    while True:  # until nothing is found: what is left around a token may make up another one
        less, commands = _COMMAND.subn("", seen)
        unknown = [token for token in _TOKEN.findall(less) if token not in SOUNDS]
        changes["model command <|...|>"] += commands
        changes["unknown token [...] or <...>"] += len(unknown)
        if not commands and not unknown:
            # once more NFC: characters that were apart may have met
            return Cleaned(unicodedata.normalize("NFC", " ".join(less.split())), +changes)
        seen = _TOKEN.sub(lambda match: match.group() if match.group() in SOUNDS else "", less)


def split_sounds(text: str) -> list[str]:
    """Text and SOUNDS in turn: an odd number of pieces, every second one a sound; the pieces may be empty."""
    return re.split(f"({_SOUND.pattern})", text)


def without_sounds(text: str) -> str:
    return _SOUND.sub("", text)


def _is_seen(character: str) -> bool:
    """White space (also the control characters that are, such as tab) stays here: `split` turns it into one space."""
    if character.isspace():
        return True
    return unicodedata.category(character) not in _UNSEEN and not _is_variation_selector(character)


def _is_variation_selector(character: str) -> bool:
    """A choice of glyph, as for the two forms of 葛; the word is the same, the tokenizer would see another."""
    return "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"
