"""Numerals as Japanese text writes them -> the words between them written out, for Open JTalk to read the rest.

9:30 becomes 9時30分, 1/2 2分の1, -5 マイナス5, ¥100 100円, 2024/3/14 2024年3月14日; telephone numbers are read here.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_DIGITS = dict(
    zip("0123456789", ("ゼロ", "イチ", "ニー", "サン", "ヨン", "ゴー", "ロク", "ナナ", "ハチ", "キュウ"), strict=True)
)
_AMOUNT = r"(\d[\d,]*(?:\.\d+)?[万億兆千百]*)"
_COUNTERS = "年月日時分秒円人個本枚冊匹頭台回度歳才名件点位番階週歩杯倍割代つ"


def spell_out(text: str) -> str:
    """The rules in order; each sees what the ones before it made."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def _digit_by_digit(match: re.Match[str]) -> str:
    groups = match.group().split("-")
    return "ノ".join("".join(_DIGITS[digit] for digit in group) for group in groups)


def _date(match: re.Match[str]) -> str:
    year, month, day = match[1], int(match[3]), int(match[4])
    return f"{year}年{month}月{day}日" if 1 <= month <= 12 and 1 <= day <= 31 else match.group()


def _time(match: re.Match[str]) -> str:
    hour, minute = int(match[1]), int(match[2])
    return f"{hour}時" + (f"{minute}分" if minute or match[3] else "") + (f"{int(match[3])}秒" if match[3] else "")


_Replacement = str | Callable[[re.Match[str]], str]


def _rule(pattern: str, replacement: _Replacement) -> tuple[re.Pattern[str], _Replacement]:
    return re.compile(pattern, re.ASCII), replacement  # \d: the digits that can be read


_RULES = (
    _rule(rf"(?<=\d) (?=[{_COUNTERS}])", ""),
    _rule(r"(?<![\d-])0\d{1,4}-\d{1,4}-\d{3,4}(?![\d-])", _digit_by_digit),  # telephone
    _rule(r"(?<=〒)\d{3}-\d{4}(?!\d)", _digit_by_digit),
    _rule(r"(?<![\d.])0[5789]0\d{8}(?!\d)", _digit_by_digit),
    _rule(r"(?<!\d)(\d{4})([/.-])(\d{1,2})\2(\d{1,2})(?!\d)", _date),
    _rule(r"(?<![\d:])([01]?\d|2[0-4]):([0-5]\d)(?::([0-5]\d))?(?![\d:])", _time),
    _rule(r"(?<=\d):(?=\d)", "対"),
    _rule(r"\d+(?:\.\d+){2,}", lambda match: match.group().replace(".", "テン")),  # a version
    _rule(r"(?<![\d/])(\d+)/(\d+)(?![\d/])", r"\2分の\1"),
    _rule(rf"[¥￥] ?{_AMOUNT}円?", r"\1円"),
    _rule(rf"[$＄] ?{_AMOUNT}", r"\1ドル"),
    _rule(rf"€ ?{_AMOUNT}", r"\1ユーロ"),
    _rule(rf"[£￡] ?{_AMOUNT}", r"\1ポンド"),
    _rule(r"(?<=\d)([^\s\d、。！？「」『』（）]{0,3})[〜～~](?=\d)", r"\1から"),  # 10時〜12時
    _rule(rf"(?<![\d-])(\d+)[-−－–](?=\d+(?:(?!番)[{_COUNTERS}]|%))", r"\1から"),  # 2020-2024年
    _rule(r"(?<=\d)[-−－–](?=\d)", "の"),
    _rule(r"(?<![A-Za-z0-9)）])[-−－](?=\d)", "マイナス"),
    _rule(r"(?<![A-Za-z0-9)）])[+＋](?=\d)", "プラス"),
    _rule(r"(?<=\d)k?m²|(?<=\d)㎡", lambda match: "平方キロメートル" if match.group()[0] == "k" else "平方メートル"),
    _rule(r"(?<=\d)m³", "立方メートル"),
)
