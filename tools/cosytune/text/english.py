"""English text -> numerals, dates, money, times and units as they are said; all other words stay as they are written.

wetext's grammar sees the numeral expressions alone: given whole sentences, it escapes quotation marks, turns `March 14`
into `the fourteenth of march`, and fails on some texts.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from cosytune.text.grammar import say

_TITLES = {"Dr": "Doctor", "Mr": "Mister", "Mrs": "Missus", "Prof": "Professor"}
_MONEY = {"$": "dollars", "£": "pounds", "€": "euros"}
_MONTHS = [
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
]  # fmt: skip
_MONTH = f"(?:{'|'.join(_MONTHS)})"
_NOT_JOINED = r"(?<![\d/.-])"
_AMOUNT = r"(?:(?<![\w)])-)?[$£€]?(?:\d[\d,]*\d|\d)(?:\.\d+)?"
_UNIT = r"(?: ?(?:km|cm|mm|kg|mg|lbs?|ft|mph|GB|MB|kHz|Hz|°[CF])(?![A-Za-z])| ?%)"
_NUMERAL = re.compile(
    rf"\d{{1,2}}(?::\d\d)? ?[ap]m\b|\d{{1,2}}:\d\d|\d+(?:st|nd|rd|th)\b|\d+/\d+|{_AMOUNT}{_UNIT}?", re.ASCII
)


def written(text: str) -> str:
    """Years (in 1820), money, times, ordinals, ranges, decades, telephone numbers; Dr. and its like before a name."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return _NUMERAL.sub(_numeral, text)


def _numeral(match: re.Match[str]) -> str:
    """A letter that stood at the digits stands apart from the words."""
    before, after = match.string[: match.start()][-1:], match.string[match.end() :][:1]
    said = say(match.group(), "en")
    return f"{' ' * before.isalpha()}{said}{' ' * after.isalpha()}"


def _decade(match: re.Match[str]) -> str:
    year = say(match[1], "en")
    return f"{year[:-1]}ies" if year.endswith("y") else f"{year}s"


def _telephone(match: re.Match[str]) -> str:
    return ", ".join(" ".join(say(digit, "en") for digit in group) for group in match.group().split("-"))


def _date(year: str, month: str, day: str, otherwise: str) -> str:
    is_date = 1 <= int(month) <= 12 and 1 <= int(day) <= 31
    return f"{_MONTHS[int(month) - 1]} {int(day)}, {year}" if is_date else otherwise


def _ordinal(day: str) -> str:
    ending = "th" if 10 < int(day) < 20 else {"1": "st", "2": "nd", "3": "rd"}.get(day[-1], "th")
    return f"{int(day)}{ending}"


def _fraction(match: re.Match[str]) -> str:
    """3/4 is three quarters; 24/7 and 9/11 are not."""
    return match.group() if int(match[1]) < int(match[2]) <= 10 else f"{match[1]} {match[2]}"


_Replacement = str | Callable[[re.Match[str]], str]


def _rule(pattern: str, replacement: _Replacement) -> tuple[re.Pattern[str], _Replacement]:
    return re.compile(pattern, re.ASCII), replacement  # \d: the digits that can be read


_RULES = (
    _rule(rf"\b({'|'.join(_TITLES)})\.(?= ?[A-Z])", lambda match: _TITLES[match[1]]),
    _rule(r"\b([Nn])o\. ?(?=\d)", r"\1umber "),
    _rule(r" ?& ?", " and "),
    _rule(r"\b([ap])\.m\.(?=$| [A-Z])", r"\1m."),
    _rule(r"\b([ap])\.m\.", r"\1m"),
    _rule(r"\b(\d{3}0)['’]?s\b", _decade),
    _rule(r"(?<![\d-])(?:\d{3}-)?\d{3}-\d{4}(?![\d-])", _telephone),
    _rule(
        rf"{_NOT_JOINED}(\d{{4}})-(\d\d)-(\d\d)(?!\d)", lambda match: _date(match[1], match[2], match[3], match.group())
    ),
    _rule(
        rf"{_NOT_JOINED}(\d\d?)/(\d\d?)/(\d{{4}})(?!\d)",
        lambda match: _date(match[3], match[1], match[2], match.group()),
    ),
    _rule(rf"\b({_MONTH}) (\d\d?)(?![\d:]|[.,]\d|\w)", lambda match: f"{match[1]} {_ordinal(match[2])}"),
    _rule(rf"(?<![\d:.,])\b(\d\d?)(?= {_MONTH}\b)", lambda match: _ordinal(match[1])),
    _rule(r"(\d+(?:\.\d+){2,})", lambda match: match.group().replace(".", " point ")),
    _rule(r"(?<![\d/])(\d+)/(\d+)(?![\d/])", _fraction),
    _rule(r"(?<=\d)-(?=\d+-\d)|(?<=-\d)-(?=\d)", " "),
    _rule(r"(?<=\d) ?[-–] ?(?=[$£€]?\d)", " to "),
    _rule(
        r"([$£€])(\d[\d,.]*) (thousand|[a-z]{1,2}illion)\b", lambda match: f"{match[2]} {match[3]} {_MONEY[match[1]]}"
    ),
    _rule(r"(?<=\d) ?m\b(?!['’])", " meters"),
)
