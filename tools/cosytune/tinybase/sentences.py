"""Our own grammar and hand-written sentences -> a pool, and from what they sound like those that are spoken.

The choice is greedy: it takes what holds the morae and pairs of morae that are still rare. The 6,500 sentences of the
full corpus, 22 morae and marks each, hold 131 different ones, the rarest 53 times (ツォ, テュ, トゥ; キャ 200 times),
and 6,400 different pairs, 3,000 of them five times or more; of the pairs in the demo's sentences they lack 1.2 %.
"""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosytune.base import morae
from cosytune.tinybase import grammar

MADEUP_SHARE = 0.1
"""Of the sentences, those around words that do not exist."""
_POOL = 2.0
"""Sentences to choose from, for each one that is chosen."""
_ROUNDS = 40
_SHORTEST, _LONGEST = 2, 70
"""Morae and marks."""
_NO_KANA = re.compile("[^ァ-ヺー]")
_LONG = {"ウクスツヌフムユルグズブプュオコソトノホモヨロゴゾドボポョ": "ウ", "エケセテネヘメレゲゼデベペェ": "エイ"}
"""kana -> vowels that lengthen them."""


@dataclass(frozen=True)
class Sentence:
    """A sentence as it is written, in ordinary script."""

    text: str
    is_madeup: bool = False


@dataclass(frozen=True)
class Choice:
    """Places in the pool; no sound of a held-out sentence is a train sentence."""

    train: list[int]
    held_out: list[int]


def pool(count: int, seed: int) -> list[Sentence]:
    """More sentences than the `count` that are wanted, each once."""
    source = grammar.Grammar(seed)
    wanted = int(count * _POOL) + 40
    found = {text: Sentence(text) for text in grammar.own_sentences()}
    for is_madeup, draw, total in (
        (True, source.madeup, len(found) + int(wanted * MADEUP_SHARE)),
        (False, source.sentence, len(found) + wanted),
    ):
        while len(found) < total:
            text = draw()
            found.setdefault(text, Sentence(text, is_madeup))
    return list(found.values())


@dataclass(frozen=True)
class Reading:
    """How a sentence sounds. kana: what a model is told to say; "" if Open JTalk would say something else.

    labels: Open JTalk's full-context labels.
    """

    kana: str
    labels: list[str]


def read(text: str) -> Reading:
    """The sentence as it will be spoken."""
    import pyopenjtalk

    from cosytune.text import normalize

    written = normalize(text, "ja", "written")
    words = pyopenjtalk.run_frontend(written)
    kana = normalize(written, "ja", "katakana")
    spoken = "".join(str(word["pron"]) for word in words)
    is_fit = _sounds(kana) == _sounds(spoken) and _SHORTEST <= len(units(kana)) <= _LONGEST
    return Reading(kana if is_fit else "", list(pyopenjtalk.make_label(words)) if is_fit else [])


def _sounds(kana: str) -> str:
    """Its kana alone, long vowels as one: ジュウ is ジュー, バレエ is バレー."""
    said = _NO_KANA.sub("", kana)
    for row, vowels in _LONG.items():
        said = re.sub(f"(?<=[{row}])[{vowels}]", "ー", said)
    return said


def choose(sentences: Sequence[Sentence], kana: Sequence[str], train: int, held_out: int, seed: int) -> Choice:
    """Places of the sentences to be spoken; `kana`: how each one sounds, "" for those that are not fit.

    Held-out ones are drawn at random, so that they are like what a model will meet; then the train ones, greedily.
    Raises ValueError when the pool is too small.
    """
    rng = random.Random(seed)
    first = {sound: place for place, sound in reversed(list(enumerate(kana))) if sound}
    places = sorted(first.values())
    rng.shuffle(places)
    aside, rest = places[:held_out], places[held_out:]
    said = _Units(kana)
    counts = np.zeros(said.count)
    chosen: list[int] = []
    madeup = round(train * MADEUP_SHARE)
    for is_madeup, wanted in ((True, madeup), (False, train - madeup)):
        fit = [place for place in rest if sentences[place].is_madeup == is_madeup]
        if len(fit) < wanted:
            raise ValueError(f"{len(fit)} sentences to choose {wanted} from")
        chosen += _greedy(said, fit, wanted, counts)
    rng.shuffle(chosen)
    return Choice(chosen, aside)


def units(kana: str) -> list[str]:
    """Morae and marks: キョ is one, and so are ー, ッ, ン and 、."""
    found: list[str] = []
    place = 0
    while place < len(kana):
        length = 2 if kana[place : place + 2] in morae.MORAE else 1
        found.append(kana[place : place + length])
        place += length
    return found


def pairs(kana: str) -> list[tuple[str, str]]:
    """Neighbours, with the ends of the sentence."""
    parts = ["", *units(kana), ""]
    return list(itertools.pairwise(parts))


def coverage(kana: Sequence[str]) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """How often each mora and each pair occurs."""
    return (
        Counter(unit for one in kana for unit in units(one)),
        Counter(pair for one in kana for pair in pairs(one)),
    )


class _Units:
    """The numbers of the morae and pairs in each sentence."""

    def __init__(self, kana: Sequence[str]) -> None:
        self._numbers: dict[object, int] = {}
        self.held = [np.array([self._number(unit) for unit in (*units(one), *pairs(one))]) for one in kana]
        self.count = len(self._numbers)

    def _number(self, unit: object) -> int:
        return self._numbers.setdefault(unit, len(self._numbers))


def _greedy(said: _Units, places: Sequence[int], wanted: int, counts: NDArray[np.float64]) -> list[int]:
    """`wanted` of the places, in rounds that each take the best few; counts [units] are brought up to date.

    A sentence is worth the mean of (1 + count) ** -0.5 over its morae and pairs.
    """
    left, picked = list(places), list[int]()
    while len(picked) < wanted:
        worth = np.array([np.mean((1 + counts[said.held[place]]) ** -0.5) for place in left])
        few = np.argsort(-worth, kind="stable")[: min(max(1, wanted // _ROUNDS), wanted - len(picked))].tolist()
        for number in few:
            np.add.at(counts, said.held[left[number]], 1)
        picked += [left[number] for number in few]
        left = np.delete(np.array(left), few).tolist()
    return picked
