"""Japanese text -> the same text with its numeral expressions in katakana, or all of it in katakana.

The readings are Open JTalk's, in context: 1本 イッポン, 20日 ハツカ, 4月 シガツ. What it cannot read by itself (9:30,
1/2, telephone numbers) is written out for it first. Kanji numerals (一人, 二十日) are words and stay as they are.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cosytune.text.expressions import spell_out

if TYPE_CHECKING:
    from pyopenjtalk.types import SurfacePhonemeMapping

_LONGEST = 500
"""Characters that Open JTalk gets at once; it refuses more than about 2,700."""
_LOCK = threading.Lock()  # Open JTalk shares one analyser
_STOPS = "。、！？!?」』）)… "
_NARROW_KANA = re.compile("[\uff61-\uff9f]+")
_WIDE_ASCII = {code: code - 0xFEE0 for code in (*range(0xFF10, 0xFF1A), *range(0xFF21, 0xFF3B), *range(0xFF41, 0xFF5B))}
_WIDE_POINT = re.compile("(?<=[0-9])[．，](?=[0-9])")
_KATAKANA = re.compile("[\u30a1-\u30fe]+")
_READABLE = "\u3041-\u3096\u30a1-\u30fa\u3400-\u9fff\U00020000-\U0003ffffA-Za-z0-9"
_APART = re.compile(f"(?<=[0-9])(?= [0-9])|((?<![{_READABLE}ー])ー+)")
_BEFORE_WORDS = re.compile(f"[^{_READABLE}]*")
"""Open JTalk reads `4 10` as one numeral, and complains on stderr about marks before the first word and about a ー that
lengthens nothing: it never sees them so."""


def written(text: str) -> str:
    """Half-width kana and full-width letters and digits in their usual width; numeral expressions in katakana."""
    text = _usual_width(text)
    if not _has_digit(text):
        return text
    return "".join(map(_read_numerals, _pieces(spell_out(text))))


def katakana(text: str) -> str:
    """Everything that Open JTalk can read as it sounds (は as ワ, ヨー), marks and foreign words as they are."""
    return "".join(map(_read_all, _pieces(written(text))))


def _usual_width(text: str) -> str:
    wide = _NARROW_KANA.sub(lambda match: unicodedata.normalize("NFKC", match.group()), text)
    return _WIDE_POINT.sub(lambda match: {"．": ".", "，": ","}[match.group()], wide.translate(_WIDE_ASCII))


def _has_digit(text: str) -> bool:
    return re.search("[0-9]", text) is not None


def _pieces(text: str) -> Iterator[str]:
    """At most `_LONGEST` characters each, cut after a mark or else where no numeral is near."""
    for part in filter(None, _APART.split(text)):
        for piece in _short_pieces(part):
            words = _BEFORE_WORDS.sub("", piece, count=1)
            yield from filter(None, (piece.removesuffix(words), words))


def _short_pieces(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > _LONGEST:
        places = range(start + _LONGEST, start + _LONGEST // 2, -1)
        after_mark = (place for place in places if text[place - 1] in _STOPS)
        between_words = (place for place in places if not _has_digit(text[place - 4 : place + 1]))
        end = next(after_mark, None) or next(between_words, places[0])
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def _read_numerals(text: str) -> str:
    """Replace the words that hold a digit, and the numerals and counters that follow them at once."""
    if not _has_digit(text):
        return text
    said: list[str] = []
    end, inside = 0, False
    for word in _words(text):
        first, last = _span(word, end)
        is_numeral = _has_digit(text[first:last]) or (first == last and word["pos_group1"] == "数")
        inside = word["pos"] != "記号" and (is_numeral or (inside and first == end and _belongs_to_numeral(word)))
        said.append(text[end:first] + (_spelled(word) if inside else text[first:last]))
        end = last
    return "".join(said) + text[end:]


def _belongs_to_numeral(word: SurfacePhonemeMapping) -> bool:
    is_of_rank = word["pos_group1"] == "接尾" and word["surface"] in ("目", "間")
    return word["pos_group1"] == "数" or word["pos_group2"] == "助数詞" or is_of_rank


def _read_all(text: str) -> str:
    said: list[str] = []
    end = 0
    for word in _words(text):
        first, last = _span(word, end)
        source, sound = text[first:last], _sound(word)
        is_said = source.isalnum() and not _KATAKANA.fullmatch(source) and _KATAKANA.fullmatch(sound)
        is_foreign = word["is_unknown"] and source.isascii()  # it would be spelled letter by letter
        said.append(text[end:first] + (sound if is_said and not is_foreign else source))
        end = last
    return "".join(said) + text[end:]


def _words(text: str) -> Sequence[SurfacePhonemeMapping]:
    import pyopenjtalk

    if _BEFORE_WORDS.fullmatch(text):
        return []
    with _LOCK:
        return pyopenjtalk.g2p_mapping(text)


def _span(word: SurfacePhonemeMapping, end: int) -> tuple[int, int]:
    """Where the word stands; the ten of 24, which no digit stands for, has no place of its own."""
    first, last = word["char_span"]
    return (first, last) if last > first else (end, end)


def _sound(word: SurfacePhonemeMapping) -> str:
    """Without the mark of a voiceless vowel."""
    return word["pron"].replace("’", "")


def _spelled(word: SurfacePhonemeMapping) -> str:
    """The sound with its long vowels as kana are usually written, ジュウ for ジュー; zero before a point is レイ."""
    sound, read = _sound(word), word["read"]
    if len(sound) == len(read):
        pairs = zip(sound, read, strict=True)
        sound = "".join(kana if mark == "ー" and kana in "アイウエオ" else mark for mark, kana in pairs)
    return "レイ" if sound == "レー" else sound
