"""One rule for text: what is invisible goes, the words stay; and where sentences end."""

from __future__ import annotations

import unicodedata

import pytest

from cosytune.text import is_speakable, normalize, split_sentences


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("\ufeff こんにちは。\r\n", "こんにちは。"),
        ("一\u3000二\t三\n四  五\u00a0六", "一 二 三 四 五 六"),
        ("あ\u200bい\u200dう\u2060え\u00ad", "あいうえ"),
        ("a\x00b\x07c", "abc"),
        (unicodedata.normalize("NFD", "がぎぐ café"), "がぎぐ café"),
        ("葛\U000e0100飾区", "葛飾区"),
        ('it\'s "12.5" % (ok)', 'it\'s "ジュウニーテンゴ" % (ok)'),
        ("「えっ！？」", "「えっ！？」"),
        ("\ud83d lone", "lone"),
        ("\u200b \ufeff", ""),
    ],
)
def test_normalize(raw: str, expected: str) -> None:
    assert normalize(raw, "ja") == expected
    assert normalize(expected, "ja") == expected


@pytest.mark.parametrize(("text", "speakable"), [("…！？", False), ("", False), ("12", True), ("あ。", True)])
def test_speakable(text: str, speakable: bool) -> None:
    assert is_speakable(text) is speakable


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("今日は晴れ。明日は？雨！", ["今日は晴れ。", "明日は？", "雨！"]),
        ("「行こう。」と言った。行った。", ["「行こう。」と言った。", "行った。"]),
        ("「はい。」「いいえ。」", ["「はい。」", "「いいえ。」"]),
        ("本当！？うそ……。え", ["本当！？", "うそ……。", "え"]),
        ("気温は12.5度、３．５度です。", ["気温はジュウニーテンゴド、サンテンゴドです。"]),
        ("你好！我是小王。你呢？", ["你好！", "我是小王。", "你呢？"]),
        ("Dr. Smith paid. He left! Really?", ["Dr. Smith paid.", "He left!", "Really?"]),
        ("He said no. Then No. 5 came.", ["He said no.", "Then No. ゴ came."]),
        ('"Really?" she said. "Yes." He went.', ['"Really?" she said.', '"Yes."', "He went."]),
        ("J. S. Bach, e.g. in Bonn. So did I. End", ["J. S. Bach, e.g. in Bonn.", "So did I.", "End"]),
        ("一行目\n二行目", ["一行目", "二行目"]),
        ("閉じない（括弧。次。", ["閉じない（括弧。", "次。"]),
        ("", []),
        ("。。！ \n", []),
        ("…はい。 。", ["…はい。。"]),
    ],
)
def test_split_sentences(text: str, sentences: list[str]) -> None:
    assert split_sentences(text, "ja") == sentences


def test_a_long_quotation_is_cut_inside() -> None:
    text = "「" + "とても長い話をしました。" * 20 + "」と言った。"
    pieces = split_sentences(text, "ja")
    assert max(map(len, pieces)) < 60
    assert "".join(pieces) == text


def test_sentences_end_before_numerals_are_said() -> None:
    text = "Dr. Smith paid $3.5 at 3 p.m. today. No. 5 came."
    said = ["Doctor Smith paid three point five dollars at three PM today.", "Number five came."]
    assert split_sentences(text, "en") == said


def test_splitting_loses_no_word() -> None:
    text = "He went home. 「そう。」\n度！ ok? (see. this.) 終わり"
    assert "".join(split_sentences(text, "en")).replace(" ", "") == text.replace(" ", "").replace("\n", "")
