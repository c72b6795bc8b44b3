"""Chinese text -> numerals, dates, money and units as they are said; 儿 and interjections stay."""

from __future__ import annotations

import re

from cosytune.text.grammar import say

_CLAUSE = re.compile(r"""([，。！？；、“”‘’"'\\]|(?<=[A-Za-z])-(?=\d))""")
"""The grammar escapes quotation marks and reads the hyphen of GPT-4 as a minus: it never sees them."""
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


def written(text: str) -> str:
    """Clause by clause, and only those that hold a digit."""
    clauses = _CLAUSE.split(_THOUSANDS.sub("", text))
    return "".join(say(clause, "zh") if re.search(r"\d", clause) else clause for clause in clauses)
