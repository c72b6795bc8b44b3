"""One file of a data directory, in whatever form -> its lines as they should be, and what was changed in which line.

Only what needs no guess: encoding, line ends, white space, NFC, order, and lines that are there twice.
"""

from __future__ import annotations

import codecs
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from cosytune.kaldi.form import is_odd


@dataclass
class Mended:
    """`lines`: (id, value) in order; an id comes twice if its lines say different things."""

    path: Path
    lines: list[tuple[str, str]] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    lines_seen: set[tuple[str, str]] = field(default_factory=set)

    @property
    def ids(self) -> set[str]:
        return {key for key, _ in self.lines}

    @property
    def content(self) -> bytes:
        return "".join(f"{key} {value}".rstrip(" ") + "\n" for key, value in self.lines).encode()

    def note(self, number: int, what: str) -> None:
        self.changes.append(f"{self.path}:{number}: {what}")

    def drop(self, ids: set[str]) -> None:
        self.lines = [(key, value) for key, value in self.lines if key not in ids]


def mend(path: Path, *, is_path: bool = False) -> Mended | None:
    """None when the encoding cannot be told. `is_path`: values are paths, whose spaces and letters are names."""
    mended = Mended(path)
    raw = path.read_bytes()
    text = _decode(mended, raw)
    if text is None:
        return None
    if text and not text.endswith("\n"):
        mended.note(text.count("\n") + 1, "line end added")
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        _mend_line(mended, number, line, is_path)
    in_order = sorted(mended.lines, key=lambda one: one[0])
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


def _mend_line(mended: Mended, number: int, raw: str, is_path: bool) -> None:
    line = raw.removesuffix("\r")
    if line != raw:
        mended.note(number, "Windows line end taken out")
    words = _visible(line).strip().split(maxsplit=1)
    if not words:
        mended.note(number, "empty line deleted")
        return
    key = unicodedata.normalize("NFC", words[0])
    value = words[1] if len(words) > 1 else ""
    if is_path:
        value = line.strip().split(maxsplit=1)[1] if value else ""
    else:
        value = unicodedata.normalize("NFC", " ".join(value.split()))
    if (key, value) in mended.lines_seen:
        mended.note(number, f"'{key}': the same line again, deleted")
        return
    if f"{key} {value}".rstrip(" ") != line:
        mended.note(number, f"'{key}': white space or composed letters mended")
    mended.lines_seen.add((key, value))
    mended.lines.append((key, value))


def _visible(line: str) -> str:
    """Odd white space as a space, control characters gone. NUL stays: what it stood for is not known."""
    return "".join(" " if one.isspace() else "" if is_odd(one) else one for one in line)
