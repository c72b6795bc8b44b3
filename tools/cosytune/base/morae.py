"""Katakana -> one token per mora: the text tokenizer of the tiny base, in the files of Qwen2's tokenizer.

    python -c "from cosytune.base import morae; print(morae.encode('キャベツ、トーキョー。'))"

A byte-level BPE, as AutoTokenizer loads it, whose merges are written, not learned: those that make one token of each
kana, mark and mora of two kana, and no other. Everything else stays bytes, so that it covers every text. `encode`
needs no transformers.
"""

from __future__ import annotations

import functools
import unicodedata
from pathlib import Path

from cosytune import files
from cosytune.base import text

MARKS = "、。？！"
_KANA = "".join(map(chr, range(ord("ァ"), ord("ヶ") + 1))) + "ー"
_WITH_SMALL = {
    "ャュョ": "キギシジチヂニヒビピミリテデフヴ",
    "ェ": "イウヴキギクグシジチツデニヒビピフミリ",
    "ァ": "クグツフヴ",
    "ィ": "ウクグシスズツテデフヴ",
    "ォ": "ウクグツフヴ",
    "ゥ": "クグトド",
    "ヮ": "クグ",
}
"""small kana -> those before them with which they are one mora, as Open JTalk has them."""
MORAE = dict.fromkeys(kana + small for smalls, before in _WITH_SMALL.items() for small in smalls for kana in before)
"""Those of two kana, in the order of their ids."""


def write_tokenizer(directory: Path) -> dict[str, int]:
    """Write vocab.json, merges.txt and tokenizer_config.json; return the ids of the special tokens."""
    directory.mkdir(parents=True, exist_ok=True)
    vocabulary, merges = _tables()
    files.write_json(directory / "vocab.json", vocabulary)
    lines = "".join(f"{first} {second}\n" for first, second in merges)
    files.write_text(directory / "merges.txt", f"#version: 0.2\n{lines}")
    ids = special_tokens()
    files.write_json(directory / "tokenizer_config.json", text.settings(ids))
    return ids


def special_tokens() -> dict[str, int]:
    """The ids of the marks right behind the vocabulary; upstream adds about 20 of its own behind these."""
    first = len(_tables()[0])
    return {token: first + offset for offset, token in enumerate(text.SPECIAL)}


def encode(kana: str) -> list[int]:
    """The ids that the written tokenizer gives, for any text that holds no special token (`<|im_end|>`, `[breath]`)."""
    ids = _tables()[0]
    letters = unicodedata.normalize("NFC", kana)
    tokens: list[int] = []
    place = 0
    while place < len(letters):
        pair = letters[place : place + 2]
        if pair in MORAE:
            tokens.append(ids[_spelled(pair)])
            place += 2
            continue
        tokens += _of_letter(letters[place])
        place += 1
    return tokens


@functools.cache
def _of_letter(letter: str) -> tuple[int, ...]:
    """One id for kana and marks; else its bytes, of which the first two may be one token."""
    ids = _tables()[0]
    spelled = _spelled(letter)
    if spelled in ids:
        return (ids[spelled],)
    if spelled[:2] in ids:
        return (ids[spelled[:2]], *(ids[byte] for byte in spelled[2:]))
    return tuple(ids[byte] for byte in spelled)


@functools.cache
def _tables() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Ids by token, and the merges in their order: two bytes, the third of a letter, the second kana of a mora."""
    letters = [_spelled(letter) for letter in (*MARKS, *_KANA)]
    merges = list(dict.fromkeys((letter[0], letter[1]) for letter in letters))
    merges += [(letter[:2], letter[2]) for letter in letters]
    merges += [(_spelled(mora[0]), _spelled(mora[1])) for mora in MORAE]
    tokens = [*sorted(_letters_of_bytes()), *(first + second for first, second in merges)]
    return {token: number for number, token in enumerate(tokens)}, merges


def _spelled(words: str) -> str:
    """The UTF-8 bytes, each as the one letter by which byte-level BPE writes it."""
    letters = _letters_of_bytes()
    return "".join(letters[byte] for byte in words.encode("utf-8"))


@functools.cache
def _letters_of_bytes() -> tuple[str, ...]:
    """GPT-2's alphabet: printable Latin-1 letters stand for themselves, the others are moved up to 256 and behind."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    moved = iter(range(256, 512))
    return tuple(chr(byte if byte in printable else next(moved)) for byte in range(256))
