"""Our own word lists and sentence forms -> Japanese sentences of daily life, and some around words that do not exist.

    python -c "from cosytune.tinybase.grammar import Grammar; print(*[Grammar(1).sentence() for _ in range(9)])"

The lists and forms are files in data/: words.txt, templates.txt, madeup.txt. A form names a list, `{place}`; with a
verb also which form of it, `{vi_go.te}`; `{@vt.te}` is a thing and what is done with it.
"""

from __future__ import annotations

import functools
import random
import re
from pathlib import Path

_DATA = Path(__file__).with_name("data")
_SLOT = re.compile(r"\{(@?)([a-z_]+)(?:\.([a-z]+))?\}")
_THINGS = ("eat", "drink", "read", "make", "buy", "carry", "watch", "listen", "learn")
_TWO_PARTS, _LONGEST = 0.1, 48
"""Share of the sentences, and characters."""
_GODAN = {
    "う": ("わ", "い", "え", "お", "って"),
    "く": ("か", "き", "け", "こ", "いて"),
    "ぐ": ("が", "ぎ", "げ", "ご", "いで"),
    "す": ("さ", "し", "せ", "そ", "して"),
    "つ": ("た", "ち", "て", "と", "って"),
    "ぬ": ("な", "に", "ね", "の", "んで"),
    "ぶ": ("ば", "び", "べ", "ぼ", "んで"),
    "む": ("ま", "み", "め", "も", "んで"),
    "る": ("ら", "り", "れ", "ろ", "って"),
}
"""Last kana of a five-row verb -> what stands for it in the forms a, i, e, o and te."""


def conjugate(verb: str, form: str) -> str:
    """`読む(u)`, `te` -> 読んで. Forms: u i a te ta e o, named after what follows (u: the dictionary's).

    (u): five rows, (r): one row, (s): with する.
    """
    word, kind = verb[:-3], verb[-2]
    last = word[-1]
    if kind == "s":
        root, (a, i, e, o, te) = word[:-2], ("し", "し", "すれ", "しよ", "して")
    elif kind == "r":
        root, (a, i, e, o, te) = word[:-1], ("", "", "れ", "よ", "て")
    else:
        root, (a, i, e, o, te) = word[:-1], _GODAN[last]
        te = "って" if word == "行く" else te
    endings = {"u": word.removeprefix(root), "a": a, "i": i, "e": e, "o": o, "te": te}
    endings["ta"] = te[:-1] + {"て": "た", "で": "だ"}[te[-1]]
    return root + endings[form]


class Grammar:
    """Draws sentences; the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._words = _words()
        self._templates = _templates("templates.txt")
        self._madeup = _templates("madeup.txt")

    def sentence(self) -> str:
        """Of one part; sometimes of two."""
        first = self._fill(self._templates)
        if self._random.random() >= _TWO_PARTS:
            return first
        both = first + self._fill(self._templates)
        return both if len(both) <= _LONGEST else first

    def madeup(self) -> str:
        """Around a word that does not exist: rare morae come as often as common ones."""
        return self._fill(self._madeup)

    def _fill(self, templates: tuple[list[str], list[int]]) -> str:
        template = self._random.choices(*templates)[0]
        return _SLOT.sub(lambda slot: self._slot(*slot.groups()), template)

    def _slot(self, pair: str, name: str, form: str | None) -> str:
        if pair:
            things = self._random.choice(_THINGS)
            return f"{self._one(things)}を{conjugate(self._one('vt_' + things), form or 'u')}"
        if name in self._words:
            word = self._one(name)
            return conjugate(word, form) if form else word
        return self._invented(name)

    def _one(self, name: str) -> str:
        return self._random.choice(self._words[name])

    def _invented(self, name: str) -> str:
        """Numbers, times, prices, and words that nobody knows."""
        draw = self._random.randint
        match name:
            case "word":
                return self._word()
            case "month":
                return str(draw(1, 12))
            case "day":
                return str(draw(1, 31))
            case "year":
                return str(draw(1900, 2035))
            case "age":
                return str(draw(1, 99))
            case "number":
                return str(draw(1, 99) if draw(0, 2) else draw(100, 999))
            case "large":
                return f"{draw(1, 999)}万"
            case "decimal":
                return f"{draw(0, 39)}.{draw(1, 9)}"
            case "digits":
                return "の".join(str(draw(10, 99)) for _ in range(draw(2, 3)))
            case "price":
                return str(draw(1, 99) * 10 ** draw(1, 3) + draw(0, 1) * draw(1, 9) * 10)
            case "clock":
                minutes = ("", "半", f"{draw(1, 59)}分")[draw(0, 2)]
                return f"{('', '午前', '午後')[draw(0, 2)]}{draw(1, 12)}時{minutes}"
            case "counted":
                return f"{draw(1, 20) if draw(0, 2) else draw(21, 9999)}{self._one('counter')}"
        raise ValueError(f"{name}: no word list in words.txt, and nothing that is made up")

    def _word(self) -> str:
        parts = []
        for _ in range(self._random.randint(2, 4)):
            mora = self._one(self._random.choices(("foreign", "rare", "plain"), (5, 2, 3))[0])
            parts.append(mora + self._random.choice(("ー", "ン", "ッ", "", "", "", "")))
        return "".join(parts).rstrip("ッ")


@functools.cache
def _words() -> dict[str, tuple[str, ...]]:
    lists = (line.split() for line in _lines("words.txt"))
    return {name: tuple(words) for name, *words in lists}


@functools.cache
def _templates(name: str) -> tuple[list[str], list[int]]:
    """Sentence forms and their weights."""
    weights, forms = zip(*(line.split(" ", 1) for line in _lines(name)), strict=True)
    return list(forms), [int(weight) for weight in weights]


def _lines(name: str) -> list[str]:
    """Without comments."""
    lines = (_DATA / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def words(name: str) -> tuple[str, ...]:
    """A word list."""
    return _words()[name]


def own_sentences() -> list[str]:
    """Written by hand."""
    return _lines("sentences.txt")
