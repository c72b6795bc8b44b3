"""A text file -> its text, or an error that names the file, its encoding and the command that converts it."""

from __future__ import annotations

from pathlib import Path

from cosytune.errors import UserError

_OTHERS = (("cp932", "Shift-JIS", "CP932"), ("euc_jp", "EUC-JP", "EUC-JP"), ("gb18030", "GB18030", "GB18030"))


def read_text(path: Path, shown: str | None = None) -> str:
    """The text of a UTF-8 file, with or without BOM. `shown`: how messages name the file."""
    name = shown or str(path)
    data = path.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data:
        raise UserError(_message(name, "UTF-16", "UTF-16"))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(_message(name, *_guess(data))) from None


def _guess(data: bytes) -> tuple[str, str]:
    """What people call the likely encoding, and what iconv calls it."""
    for codec, called, iconv in _OTHERS:
        try:
            data.decode(codec)
        except UnicodeDecodeError:
            continue
        return called, iconv
    return "some other encoding", "ENCODING"


def _message(name: str, called: str, iconv: str) -> str:
    return f"{name}: not UTF-8, it looks like {called}; save it as UTF-8 (iconv -f {iconv} -t UTF-8)"
