"""The bytes of transcripts: UTF-8 as it is, other encodings converted when they can be told, an error otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosytune.errors import UserError
from cosytune.text import read_encoded, read_text
from cosytune.text.read import decode

JA = "日本語の文章です。ABCと「カタカナ」も、１２個。\n"
ZH = "你好！我是小王，今天天气很好。\n"

CONVERTED = {
    "utf-8": ("utf-8", JA, "ja", "UTF-8"),
    "utf-8 with bom": ("utf-8-sig", JA, "ja", "UTF-8"),
    "utf-16 with bom": ("utf-16", JA, "ja", "UTF-16"),
    "utf-16-le": ("utf-16-le", JA, "ja", "UTF-16"),
    "utf-16-be": ("utf-16-be", JA, "ja", "UTF-16"),
    "utf-16-le 一": ("utf-16-le", "一つ。\n", "ja", "UTF-16"),
    "utf-16 russian": ("utf-16-be", "Привет, как дела?\n", "ru", "UTF-16"),
    "utf-16 english": ("utf-16-le", "It's 9.\n", "en", "UTF-16"),
    "shift-jis": ("cp932", JA, "ja", "Shift-JIS"),
    "shift-jis short": ("cp932", "はい", "ja", "Shift-JIS"),
    "shift-jis kanji": ("cp932", "東京都。", "ja", "Shift-JIS"),
    "shift-jis of windows": ("cp932", "①～②は㈱髙橋の－です。これはとても長い文章。", "ja", "Shift-JIS"),
    "shift-jis half width": ("cp932", "ｺﾝﾆﾁﾊ｡ﾊｲ", "ja", "Shift-JIS"),
    "euc-jp": ("euc_jp", JA, "ja", "EUC-JP"),
    "euc-jp short": ("euc_jp", "はい", "ja", "EUC-JP"),
    "gb18030": ("gb18030", ZH, "zh", "GB18030"),
    "gb18030 short": ("gb18030", "你好", "zh", "GB18030"),
    "shift-jis without a hint": ("cp932", JA, "", "Shift-JIS"),
    "gb18030 without a hint": ("gb18030", ZH, "", "GB18030"),
}

UNTOLD = {
    "latin-1": ("café déjà vu".encode("latin-1"), "ja"),
    "windows-1252": ("“It’s naïve”".encode("cp1252"), "en"),
    "koi8-r": ("Привет, как дела? Хорошо.".encode("koi8_r"), "ja"),
    "korean": ("안녕하세요. 반갑습니다.".encode("euc_kr"), "ja"),
    "chinese read as japanese": ("我们这儿有三个人，您呢？谢谢。".encode("gb18030"), "ja"),
    "japanese read as chinese": (JA.encode("cp932"), "zh"),
    "japanese in euc-jp read as chinese": (JA.encode("euc_jp"), "zh"),
    "utf-16 cut": (JA.encode("utf-16")[:-1], "ja"),
    "nul among ascii": (b"a\0b\0\0\0c", "ja"),
    "random": (bytes(range(128, 256)), "ja"),
    "euc-jp kanji alone": ("東京都。".encode("euc_jp"), "ja"),
    "utf-8 with one broken byte": (JA.encode()[:-3] + b"\xff\n", "ja"),
}


@pytest.mark.parametrize("case", CONVERTED)
def test_what_can_be_told_is_read(tmp_path: Path, case: str) -> None:
    codec, text, language, encoding = CONVERTED[case]
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode(codec))
    assert read_encoded(path, language=language) == (text, encoding)
    assert read_text(path, language=language) == text


@pytest.mark.parametrize("case", UNTOLD)
def test_what_cannot_be_told_is_an_error_with_the_command(case: str) -> None:
    data, language = UNTOLD[case]
    remedy = r"UTF-8(, in the program that wrote it| \(iconv -f .* -t UTF-8\))$"
    with pytest.raises(UserError, match=r"^a\.txt: not UTF-8, it looks like .*; save it as " + remedy):
        decode(data, "a.txt", language)


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n"])
@pytest.mark.parametrize("codec", ["utf-8", "utf-16", "cp932"])
def test_lines_of_every_system_end_alike(end: str, codec: str) -> None:
    assert decode(f"はい。{end}いいえ。{end}".encode(codec), "a.txt", "ja")[0] == "はい。\nいいえ。\n"
