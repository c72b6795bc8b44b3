"""A text of any length -> sentences that can be synthesized one by one."""

from __future__ import annotations

import re
import unicodedata

from cosytune.text.clean import clean
from cosytune.text.normal import Script, is_speakable, normalize

_LONG = 100  # characters; a quotation longer than this is cut at the sentence ends inside it

_WIDE_ENDS = "。｡！？．"
_NARROW_ENDS = ".!?"
_OPENING = "「『（(【〔《〈“["  # not ‘: its partner is also an apostrophe
_CLOSING = "」』）)】〕》〉”’]\"'"
_ENDS_WITH_TAIL = re.compile(rf"[{_WIDE_ENDS}{_NARROW_ENDS}…]+[{re.escape(_CLOSING)}]*")
_ABBREVIATION = re.compile(
    r"(?:mr|mrs|ms|dr|prof|st|sr|jr|vs|cf|col|gen|lt|capt|rev|hon|inc|ltd|dept|approx|e\.g|i\.e)", re.IGNORECASE
)
_BEFORE_NUMBERS = re.compile(r"(?:no|fig|ver|vol|pp|ca)", re.IGNORECASE)
_INITIALS = re.compile(r"(?:[A-Z]\.)*[A-HJ-Z]")  # of a name; "so did I." ends a sentence


def split_sentences(text: str, language: str, script: Script = "written") -> list[str]:
    """Normalised sentences in order; joined, they say every speakable character of `text`. No empty pieces.

    Ends are 。！？ and their relatives anywhere, .!? before a space or the text's end or after Japanese or
    Chinese script, and line breaks. What stands in brackets or quotation marks stays with its sentence.
    """
    pieces: list[str] = []
    for line in text.splitlines():
        for piece in _split_line(clean(line).text, keep_quotations=True):
            parts = _split_line(piece, keep_quotations=False) if len(piece) > _LONG else [piece]
            pieces += parts
    return [normalize(piece, language, script) for piece in _attach_unspeakable(pieces)]


def _split_line(line: str, *, keep_quotations: bool) -> list[str]:
    depths = _depths(line) if keep_quotations else [0] * (len(line) + 1)
    pieces, start = [], 0
    for match in _ENDS_WITH_TAIL.finditer(line):
        if depths[match.end()] == 0 and _is_end(line, match) and match.end() > start:
            pieces.append(line[start : match.end()].strip())
            start = match.end()
    return [piece for piece in (*pieces, line[start:].strip()) if piece]


def _depths(line: str) -> list[int]:
    """How many brackets are open before each character; all 0 if they do not match, so that none swallows the rest."""
    depths, depth = [0], 0
    for character in line:
        if character in _OPENING:
            depth += 1
        elif character in _CLOSING and character not in "\"'’":
            depth -= 1
        if depth < 0:
            return [0] * (len(line) + 1)
        depths.append(depth)
    return depths if depth == 0 else [0] * (len(line) + 1)


def _is_end(line: str, match: re.Match[str]) -> bool:
    """Whether the end marks that `match` found close a sentence there."""
    marks = match.group().rstrip(_CLOSING)
    before, after = line[: match.start()], line[match.end() :]
    if len(match.group()) > len(marks) and after and _is_continued(after):
        return False  # 「行こう。」と言った
    if "．" in marks and before[-1:].isdigit() and after[:1].isdigit():
        return False
    if any(mark in _WIDE_ENDS for mark in marks):
        return True
    if set(marks) <= {"…"}:
        return after.startswith(" ") or not after
    if after and not after[0].isspace():
        return _is_wide(before[-1:])
    if after.lstrip()[:1].islower():
        return False  # "Really?" she said
    return marks != "." or not _is_abbreviation(before, after)


def _is_continued(after: str) -> bool:
    """After a closed quotation, only a new one, a space or the end begin a new sentence."""
    return not after[0].isspace() and after[0] not in _OPENING


def _is_abbreviation(before: str, after: str) -> bool:
    """`Dr`, `e.g`, the initial of a name, or `No` and a number around a full stop."""
    word = re.split(r"[^A-Za-z.]", before)[-1]
    if _BEFORE_NUMBERS.fullmatch(word):
        return after.lstrip()[:1].isdigit()
    return any(pattern.fullmatch(word) for pattern in (_ABBREVIATION, _INITIALS))


def _is_wide(character: str) -> bool:
    return bool(character) and unicodedata.east_asian_width(character) in "WF"


def _attach_unspeakable(pieces: list[str]) -> list[str]:
    """A piece without a letter or digit (a stray mark) goes to the sentence before it, or before the next one."""
    attached: list[str] = []
    pending = ""
    for piece in pieces:
        if not is_speakable(piece):
            if attached:
                attached[-1] += piece
            else:
                pending += piece
        else:
            attached.append(pending + piece)
            pending = ""
    return attached
