"""One file of a data directory, in whatever form -> its lines as they should be, and what was changed in which line.

Only what needs no guess: encoding, line ends, white space, NFC, order, and lines that are there twice.
"""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cosytune.kaldi.form import is_odd
from cosytune.kaldi.tables import Line


@dataclass
class Mended:
    """`lines`: in order of their ids, each with its number in the file as it was; an id comes twice if its lines say
    different things. `changes`: `file:line: what was done`.
    """

    path: Path
    lines: list[Line] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)

    @property
    def ids(self) -> set[str]:
        return {line.key for line in self.lines}

    @property
    def content(self) -> bytes:
        return "".join(f"{line.key} {line.value}".rstrip(" ") + "\n" for line in self.lines).encode()

    def note(self, number: int, what: str) -> None:
        self.changes.append(f"{self.path}:{number}: {what}")

    def drop(self, ids: set[str], why: Callable[[str], str]) -> None:
        """`why`: id -> reason."""
        for line in self.lines:
            if line.key in ids:
                self.note(line.number, f"'{line.key}' dropped: {why(line.key)}")
        self.lines = [line for line in self.lines if line.key not in ids]

    def add(self, values: Mapping[str, str], what: str) -> None:
        """Lines that were not there: they have no number."""
        for key, value in values.items():
            self.changes.append(f"{self.path}: '{key} {value}' added, {what}")
            self.lines.append(Line(0, key, value))
        self.lines.sort(key=_by_id)


def _by_id(line: Line) -> str:
    return line.key


def mend(path: Path, *, as_typed: bool = False) -> Mended | None:
    """None when the encoding cannot be told. `as_typed`: values are paths or what a person wrote, and stay as they are
    but for white space around them.
    """
    mended = Mended(path)
    raw = path.read_bytes()
    text = _decode(mended, raw)
    if text is None:
        return None
    if text and not text.endswith("\n"):
        mended.note(text.count("\n") + 1, "line end added")
    seen: set[tuple[str, str]] = set()
    for number, raw_line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        line = _mend_line(mended, number, raw_line, as_typed)
        if line and (line.key, line.value) in seen:
            mended.note(number, f"'{line.key}': the same line again, deleted")
        elif line:
            seen.add((line.key, line.value))
            mended.lines.append(line)
    in_order = sorted(mended.lines, key=_by_id)
    if in_order != mended.lines:
        mended.note(1, "lines put in order")
    mended.lines = in_order
    return mended


def _decode(mended: Mended, raw: bytes) -> str | None:
    is_utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    # Bytes that are EUC-JP as well as Shift-JIS would be a guess: a person must say.
    encodings = ("utf-16",) if is_utf16 else ("utf-8",) if _decodes(raw, "euc_jp") else ("utf-8", "cp932")
    for encoding in encodings:
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding != "utf-8":
            mended.note(1, f"{'Shift-JIS' if encoding == 'cp932' else 'UTF-16'} made UTF-8")
        elif text.startswith("\ufeff"):
            mended.note(1, "byte order mark taken out")
        return text.removeprefix("\ufeff")
    return None


def _decodes(raw: bytes, encoding: str) -> bool:
    try:
        raw.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _mend_line(mended: Mended, number: int, raw: str, as_typed: bool) -> Line | None:
    """None for a line with nothing in it."""
    line = raw.removesuffix("\r")
    if line != raw:
        mended.note(number, "Windows line end taken out")
    words = _visible(line).strip().split(maxsplit=1)
    if not words:
        mended.note(number, "empty line deleted")
        return None
    key = unicodedata.normalize("NFC", words[0])
    value = words[1] if len(words) > 1 else ""
    if as_typed:
        value = line.strip().split(maxsplit=1)[1] if value else ""
    else:
        value = unicodedata.normalize("NFC", " ".join(value.split()))
    if f"{key} {value}".rstrip(" ") != line:
        mended.note(number, f"'{key}': white space or composed letters mended")
    return Line(number, key, value)


def _visible(line: str) -> str:
    """Odd white space as a space, control characters gone. NUL stays: what it stood for is not known."""
    return "".join(" " if one.isspace() else "" if is_odd(one) else one for one in line)
