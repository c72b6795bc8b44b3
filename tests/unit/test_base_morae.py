"""The tokenizer of the tiny base: one token per mora, bytes for the rest, and `encode` says what AutoTokenizer says."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest

from cosytune import families
from cosytune.base import morae
from cosytune.upstream import bridge

FAMILY = families.get("cosyvoice2-0.5b")
SPOKEN = ["キャ", "ベ", "ツ", "、", "ト", "ー", "キョ", "ー", "。"]
TEXTS = (
    "".join(SPOKEN),
    "ファイル、ヴァイオリン？　ッテ！",
    "チェ ック\nウォーター・ドゥ\r\n",
    "ミ゛ガガ ヶヵゎむをん、ㇷ゚",  # two of them of two code points, hiragana that share their first bytes
    "窓を開けると、金木犀の香りがした。",
    "It's 12.5 degrees — naïve café, 3rd try!",
    "안녕 😀\tñ\n",
    "ャキャャ、キキャ",
    "",
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory: Path = tmp_path_factory.mktemp("morae")
    assert morae.write_tokenizer(directory / FAMILY.text_tokenizer) == morae.special_tokens()
    return bridge.load_tokenizer(directory, FAMILY)


def test_one_token_per_mora(tokenizer: Any):
    ids = tokenizer.encode("".join(SPOKEN))
    assert [tokenizer.decode([number]) for number in ids] == SPOKEN


def test_no_merge_crosses_a_mora(tokenizer: Any):
    assert len(morae.MORAE) > 90
    for mora in morae.MORAE:
        first, both, second = (tokenizer.encode(words) for words in (mora[0], mora, mora[1]))
        assert len(both) == 1, mora
        assert tokenizer.encode(mora[0] + mora + "ン" + mora[1]) == first + both + tokenizer.encode("ン") + second


@pytest.mark.parametrize("words", TEXTS)
def test_any_text_decodes_back_and_encode_agrees(tokenizer: Any, words: str):
    if words:  # upstream's tokenizer makes floats of no token at all
        assert tokenizer.encode(words) == morae.encode(words)
    assert tokenizer.decode(morae.encode(words)) == unicodedata.normalize("NFC", words)


def test_every_kana_and_mark_is_one_token(tokenizer: Any):
    for letter in "アァンッーヴヵヶヮヲ、。？！ ?!,.":
        assert len(tokenizer.encode(letter)) == 1, letter


def test_it_fits_the_tiny_shape_with_upstreams_marks(tokenizer: Any):
    special = morae.special_tokens()
    assert tokenizer.encode("<|endoftext|><|im_end|>") == [special["<|endoftext|>"], special["<|im_end|>"]]
    assert max(morae.encode("".join(TEXTS))) < min(special.values())
    assert len(tokenizer.tokenizer) <= FAMILY.tiny.llm.vocab_size
