"""The bytes of a text file -> its text and its encoding, or an error that names the command that converts it.

UTF-8 is read as it is. Other encodings are converted when it is certain which one it is: the bytes must decode without
a single error, and what comes out must look like the language. Everything else stays an error.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

from cosytune.errors import UserError

UTF_8 = "UTF-8"

_LEGACY = (("cp932", "Shift-JIS", "CP932"), ("euc_jp", "EUC-JP", "EUC-JP"), ("gb18030", "GB18030", "GB18030"))
"""Python's name, what people call it, what iconv calls it."""
_BY_LANGUAGE = {"ja": ("cp932", "euc_jp"), "zh": ("gb18030",), "yue": ("gb18030",)}
_BOMS = (b"\xff\xfe", b"\xfe\xff")
_USUAL = (("\u3000", "\u33ff"), ("\uff01", "\uff5e"), ("\u2460", "\u24ff"), ("\u2160", "\u217f"))
"""Beside kanji: kana and punctuation, full-width ASCII, ① and Ⅳ."""
_LEAST_SHARE = 0.85
"""Of what is not ASCII: kana, punctuation and the kanji of everyday life. The wrong encoding gives about a half."""


def read_text(path: Path, shown: str | None = None, language: str = "") -> str:
    """The text alone; see `read_encoded`."""
    return read_encoded(path, shown, language)[0]


def read_encoded(path: Path, shown: str | None = None, language: str = "") -> tuple[str, str]:
    """The text of a file, lines ending in a plain line feed, and its encoding: UTF-8, UTF-16, Shift-JIS, ...

    `shown`: how messages name the file. `language`: of the config, a hint where encodings compete. Raises UserError
    where the encoding cannot be told, and where the file may not be read.
    """
    try:
        data = path.read_bytes()
    except PermissionError:
        raise UserError(f"{shown or path}: permission denied; make it readable (chmod u+r)") from None
    return decode(data, shown or str(path), language)


def decode(data: bytes, shown: str, language: str = "") -> tuple[str, str]:
    """As `read_encoded`, of bytes that are read already."""
    text, encoding = _decode(data, shown, language)
    return text.replace("\r\n", "\n").replace("\r", "\n"), encoding


def _decode(data: bytes, shown: str, language: str) -> tuple[str, str]:
    if data.startswith(_BOMS) or b"\0" in data:
        if (text := _utf_16(data)) is None:
            raise UserError(_message(shown, "UTF-16", "UTF-16"))
        return text, "UTF-16"
    try:
        return data.decode("utf-8-sig"), UTF_8
    except UnicodeDecodeError:
        pass
    readings = [(text, called) for codec, called, _ in _LEGACY if (text := _legacy(data, codec, language)) is not None]
    if len(readings) != 1:
        raise UserError(_message(shown, *_guess(data)))
    return readings[0]


def _utf_16(data: bytes) -> str | None:
    """With a byte order mark, or else in the one order of bytes that gives a text."""
    if data.startswith(_BOMS):
        return _decoded(data, "utf-16")
    orders = [_strictly(data, codec) for codec in ("utf-16-le", "utf-16-be")]
    texts = [text for text in orders if text is not None and _is_mostly(_is_common, text)]
    return texts[0] if len(texts) == 1 else None


def _is_common(character: str) -> bool:
    """In use: ASCII and other alphabets, Hangul, or likely in Japanese or Chinese. Swapped bytes give rare kanji."""
    is_alphabetic = character < "\u0600" or "\uac00" <= character <= "\ud7a3"
    return is_alphabetic or _is_likely(character, "euc_jp") or _is_likely(character, "gb18030")


def _legacy(data: bytes, codec: str, language: str) -> str | None:
    """The text if `data` can be this encoding.

    Bytes of EUC-JP are valid Chinese and Korean, too: kana must speak for it, and against Chinese.
    """
    hinted = _BY_LANGUAGE.get(language)
    if hinted is not None and codec not in hinted:
        return None
    text = _strictly(data, codec)
    if text is None or not _is_plausible(text, codec):
        return None
    is_kanji_alone_well = codec == "cp932" and hinted is not None
    return text if is_kanji_alone_well or _has_kana(text) is (codec != "gb18030") else None


def _strictly(data: bytes, codec: str) -> str | None:
    """Nothing undecodable, unassigned or private, and no control characters but white space."""
    text = _decoded(data, codec)
    if text is None:
        return None
    strange = (one for one in text if unicodedata.category(one) in ("Cc", "Cn", "Co", "Cs") and not one.isspace())
    return None if any(strange) else text


def _decoded(data: bytes, codec: str) -> str | None:
    try:
        return data.decode(codec)
    except UnicodeDecodeError:
        return None


def _is_plausible(text: str, codec: str) -> bool:
    letters = [character for character in text if not character.isascii()]
    if all("\uff61" <= character <= "\uff9f" for character in letters):
        # half-width katakana; every other byte of EUC-JP's kana would be a mark among them
        return codec == "cp932" and 3 * sum(character <= "\uff65" for character in letters) <= len(letters)
    return _is_mostly(lambda character: _is_likely(character, codec), letters)


def _is_mostly(is_likely: Callable[[str], bool], characters: Sequence[str]) -> bool:
    return sum(map(is_likely, characters)) >= _LEAST_SHARE * len(characters)


def _is_likely(character: str, codec: str) -> bool:
    if "\u4e00" <= character <= "\u9fff":
        return _is_everyday(character, codec)
    return character in "…—―‘’“”·→×" or any(first <= character <= last for first, last in _USUAL)


def _is_everyday(character: str, codec: str) -> bool:
    """Level 1 of JIS X 0208 (2,965 kanji) and of GB 2312 (3,755 hanzi) stand in one block at the front."""
    table, last = ("gb2312", 0xD7) if codec == "gb18030" else ("euc_jp", 0xCF)
    code = character.encode(table, errors="ignore")
    return len(code) == 2 and 0xB0 <= code[0] <= last


def _has_kana(text: str) -> bool:
    return re.search("[\u3041-\u3096\u30a1-\u30fa\uff66-\uff9d]", text) is not None


def _guess(data: bytes) -> tuple[str, str]:
    """What people call the likely encoding, and what iconv calls it."""
    for codec, called, iconv in _LEGACY:
        if _strictly(data, codec) is not None:
            return called, iconv
    return "some other encoding", ""


def _message(name: str, called: str, iconv: str) -> str:
    command = f" (iconv -f {iconv} -t UTF-8)" if iconv else ", in the program that wrote it"
    return f"{name}: not UTF-8, it looks like {called}; save it as UTF-8{command}"
