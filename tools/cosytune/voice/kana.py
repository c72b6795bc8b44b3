"""Speech -> the kana that are heard in it, and how many of them are wrong: what says whether a voice can be understood.

The recogniser is a file of our own making (`cosytune.tinybase.recogniser`), heard through onnxruntime on the CPU. Two
texts are compared as `spoken` has them: what no ear can tell apart is one unit, pauses do not count.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cosytune.base.morae import MORAE
from cosytune.errors import UserError

if TYPE_CHECKING:
    from cosytune.tinybase.corpus import Corpus, Utterance

RATE_HZ = 16000
_ROWS = {
    "ア": "アカサタナハマヤラワガザダバパァャ",
    "イ": "イキシチニヒミリギジビピィ",
    "ウ": "ウクスツヌフムユルグズブプゥュ",
    "エ": "エケセテネヘメレゲゼデベペェ",
    "オ": "オコソトノホモヨロゴゾドボポォョ",
}
_VOWEL = {kana: vowel for vowel, row in _ROWS.items() for kana in row}
UNITS = (*_VOWEL, "ッ", "ン", "ー")
"""Of the recogniser: unit `i` is its output `i + 1`; output 0 is CTC's blank."""
_LARGE = str.maketrans("ァィゥェォャュョ", "アイウエオヤユヨ")
_ONE_SOUND = str.maketrans("ヲヂヅヰヱヵヶヮ", "オジズイエカケァ")
_V_ROW = {
    "ヴァ": "バ",
    "ヴィ": "ビ",
    "ヴェ": "ベ",
    "ヴォ": "ボ",
    "ヴャ": "ビャ",
    "ヴュ": "ビュ",
    "ヴョ": "ビョ",
    "ヴ": "ブ",
}
"""In this order: what is left of ヴ stands alone."""
_PAUSE = re.compile("[、。，．,.？?！!…\n]")


def spoken(kana: str) -> list[str]:
    """Katakana (or hiragana) as `normalize(text, "ja", "katakana")` gives them -> units, each one of `UNITS`.

    Marks and spaces are dropped. One unit stands for what sounds the same: ヲ is オ, ヂ ジ, ヅ ズ, ヴ ブ (ヴァ バ), and
    a vowel after the same vowel is ー (ジュウ is ジュー, トヲ is トー); エイ and オウ, which Open JTalk speaks as
    written, are not エー and オー. A small kana that makes no mora with the one before is a large one (ネェ is ネー).
    Raises UserError for letters and digits that are no kana.
    """
    plain = unicodedata.normalize("NFKC", kana)
    letters = "".join(sign for sign in plain if unicodedata.category(sign)[0] in "LN")
    letters = "".join(chr(ord(sign) + 0x60) if "ぁ" <= sign <= "ゖ" else sign for sign in letters).translate(_ONE_SOUND)
    for written, sound in _V_ROW.items():
        letters = letters.replace(written, sound)
    if strange := sorted({sign for sign in letters if sign not in _VOWEL and sign not in "ッンー"}):
        raise UserError(f"{kana!r}: {' '.join(strange)} is no kana; give what normalize(text, 'ja', 'katakana') makes")
    return _lengthened(_with_large_strays(letters))


def phrases(kana: str) -> list[str]:
    """As `spoken`, but a pause parts two vowels: what the recogniser learns to write (ソー、オモウ keeps its オ)."""
    return [unit for phrase in _PAUSE.split(kana) for unit in spoken(phrase)]


def _with_large_strays(letters: str) -> str:
    found = ""
    for letter in letters:
        found += letter if (found[-1:] + letter) in MORAE else letter.translate(_LARGE)
    return found


def _lengthened(letters: str) -> list[str]:
    units: list[str] = []
    vowel: str | None = None
    for place, letter in enumerate(letters):
        is_longer = letter == vowel and letters[place : place + 2] not in MORAE  # the ウ of スウェ begins a mora
        units.append("ー" if is_longer else letter)
        vowel = vowel if letter == "ー" else _VOWEL.get(letter)
    return units


def error_rate(reference: Sequence[str], heard: Sequence[str]) -> float:
    """Edits that turn `heard` into `reference`, for each unit of `reference`; both as `spoken` gives them.

    Can pass 1. Raises UserError when there is nothing to compare with.
    """
    return pooled_error_rate([(reference, heard)])


def pooled_error_rate(pairs: Iterable[tuple[Sequence[str], Sequence[str]]]) -> float:
    """All edits over all units of the references, so that long sentences count for more."""
    listed = list(pairs)
    units = sum(len(reference) for reference, _ in listed)
    if not units:
        raise UserError("no kana to compare with: the reference is empty, or holds marks alone")
    return sum(_edits(reference, heard) for reference, heard in listed) / units


def _edits(reference: Sequence[str], heard: Sequence[str]) -> int:
    from rapidfuzz.distance import Levenshtein

    return int(Levenshtein.distance(reference, heard))


class KanaJudge:
    """The exported recogniser, on one thread."""

    def __init__(self, path: Path) -> None:
        from cosytune.features.onnx import open_session

        if not path.is_file():
            raise UserError(f"{path}: missing; make it: python -m cosytune.tinybase make --only recogniser")
        self._session: Any = open_session(path, "cpu", threads=1)
        if (outputs := self._session.get_outputs()[0].shape[-1]) != len(UNITS) + 1:
            raise UserError(f"{path}: has {outputs} outputs, not {len(UNITS) + 1}; make the recogniser again")

    def hear(self, samples: NDArray[np.float32], rate_hz: int) -> list[str]:
        """float32 [samples], -1 to 1, mono -> what was said, as `spoken` has it; [] where nothing was."""
        import soxr

        sound = np.asarray(samples, dtype=np.float32)
        if sound.ndim != 1:
            raise ValueError(f"sound of shape {sound.shape}: one channel is heard, [samples]")
        if not sound.size:
            return []
        if rate_hz != RATE_HZ:
            sound = soxr.resample(sound, rate_hz, RATE_HZ)
        logits = self._session.run(None, {"sound": sound[None]})[0]
        return spoken("".join(collapse(logits[0].argmax(axis=-1))))


def collapse(outputs: Iterable[int]) -> list[str]:
    """CTC's best path, an output for each frame -> units: repeats are one, blanks none."""
    ids = [int(one) for one in outputs]
    return [UNITS[now - 1] for before, now in zip([0, *ids], ids, strict=False) if now and now != before]


@dataclass(frozen=True)
class _Heard:
    utt: str
    speaker: str
    reference: list[str]
    heard: list[str]


def evaluate(judge: KanaJudge, corpus: Corpus, utterances: Sequence[Utterance], worst: int = 5) -> dict[str, Any]:
    """Kana error rate of the clips of a corpus: over all, by speaker, and the worst of them to look at."""
    from cosytune.tinybase.voices import RATE_HZ as CORPUS_RATE_HZ

    takes = []
    for one in utterances:
        sound = corpus.sound(one).astype(np.float32) / np.float32(32768)
        takes.append(_Heard(one.utt, one.speaker, spoken(one.kana), judge.hear(sound, CORPUS_RATE_HZ)))
    by_speaker = {
        speaker: pooled_error_rate((take.reference, take.heard) for take in takes if take.speaker == speaker)
        for speaker in sorted({take.speaker for take in takes})
    }
    ordered = sorted(takes, key=lambda take: -error_rate(take.reference, take.heard))[:worst]
    return {
        "kana_error_rate": pooled_error_rate((take.reference, take.heard) for take in takes),
        "clips": len(takes),
        "kana": sum(len(take.reference) for take in takes),
        "by_speaker": by_speaker,
        "worst": [{"utt": one.utt, "said": "".join(one.reference), "heard": "".join(one.heard)} for one in ordered],
    }
