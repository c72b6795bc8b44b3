"""Forced alignment over a model that cannot be wrong: the level of each 20 ms of its sound names a character."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cosytune.audio.span import Span, Word
from cosytune.transcribe.align import Aligner, Unit, split

LETTERS = ["<pad>", "|", *"abcdefghijklmnopqrstuvwxyz'"]
KANA = ["<pad>", "|", *"こんにちは今日本"]


def oracle(size: int) -> Any:
    """float32 [1, n] -> logits [1, frames, size]: where a frame begins at level k / 100, column k is all but sure."""
    import torch

    def model(sound: torch.Tensor) -> SimpleNamespace:
        levels = sound[0].unfold(0, 400, 320)[:, :200].mean(dim=1)
        columns = (levels * 100).round().long().clamp(0, size - 1)
        return SimpleNamespace(logits=12.0 * torch.nn.functional.one_hot(columns, size).float()[None])

    return model


def aligner(characters: list[str], is_spaceless: bool) -> Aligner:
    dictionary = {character: index for index, character in enumerate(characters)}
    return Aligner(oracle(len(characters)), dictionary, is_spaceless)


def sound(characters: list[str], spoken: dict[float, str], seconds: float) -> np.ndarray:
    """Text at the second where it begins, a character every 0.1 s (20 ms of sound, then silence), float32 [n]."""
    samples = np.zeros(round(seconds * 16000), dtype=np.float32)
    for begin_s, text in spoken.items():
        for index, character in enumerate(text):
            first = round((begin_s + index * 0.1) * 50) * 320
            samples[first : first + 320] = characters.index(character) / 100
    return samples


def test_words_are_found_where_they_sound() -> None:
    samples = sound(LETTERS, {1.0: "hello|", 3.0: "big|", 4.0: "wide"}, 6)
    words = aligner(LETTERS, is_spaceless=False).words(samples, "Hello, BIG wide.", Span(10, 16))
    assert words is not None
    assert [word.text for word in words] == ["Hello,", "BIG", "wide."]
    assert seconds(words) == [(11.0, 11.5), (13.0, 13.3), (14.0, 14.32)]


def test_a_character_before_a_pause_ends_with_the_speech() -> None:
    """Characters have no space between them, and CTC is as silent in a pause as in a long vowel."""
    samples = sound(KANA, {0.5: "こんにちは", 2.5: "今日"}, 4)
    speech = (Span(10.4, 11.2), Span(12.4, 13.1))
    alone, trimmed = (
        aligner(KANA, is_spaceless=True).words(samples, "こんにちは。今日", Span(10, 14), given)
        for given in ((), speech)
    )
    assert alone is not None
    assert trimmed is not None
    assert [word.text for word in trimmed] == ["こ", "ん", "に", "ち", "は。", "今", "日"]
    assert seconds(alone)[4] == (10.9, 12.5)
    assert seconds(trimmed)[4] == (10.9, 11.2)
    assert seconds(trimmed)[-1] == (12.6, 13.1)


def test_speech_that_ends_too_early_cuts_nothing_that_sounds() -> None:
    samples = sound(LETTERS, {1.0: "hello|", 2.0: "you"}, 3)
    words = aligner(LETTERS, is_spaceless=False).words(
        samples, "hello you", Span(0, 3), (Span(0.9, 1.1), Span(1.9, 2.4))
    )
    assert words is not None
    assert seconds(words) == [(1.0, 1.42), (2.0, 2.4)]


def test_what_the_model_does_not_know_finds_its_place_between_the_others() -> None:
    samples = sound(LETTERS, {1.0: "abc|", 2.0: "z|", 3.0: "def"}, 4)
    words = aligner(LETTERS, is_spaceless=False).words(samples, "abc 7 def", Span(0, 4))
    assert words is not None
    assert seconds(words)[1] == (2.0, 2.1)


def test_a_long_recording_is_seamless_between_its_windows() -> None:
    """100 s in windows of 25 s: a word every 0.5 s, some of them across a seam."""
    begins = [round(0.3 + 0.5 * index, 2) for index in range(199)]
    samples = sound(LETTERS, dict.fromkeys(begins, "go|"), 100)
    words = aligner(LETTERS, is_spaceless=False).words(samples, " ".join(["go"] * len(begins)), Span(0, 100))
    assert words is not None
    assert [begin for begin, _ in seconds(words)] == begins


@pytest.mark.parametrize(
    ("text", "length_s"),
    [("", 2), ("...", 2), ("мир", 2), ("12 34 abc", 2), ("hello", 0.02), ("hello", 0.05), ("a" * 100, 2)],
    ids=["nothing", "marks", "another script", "mostly digits", "no sound", "2 frames", "100 letters in 99 frames"],
)
def test_what_does_not_go_together_has_no_times(text: str, length_s: float) -> None:
    samples = np.zeros(round(length_s * 16000), dtype=np.float32)
    assert aligner(LETTERS, is_spaceless=False).words(samples, text, Span(0, length_s)) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, world!", [("Hello,", "hello"), ("world!", "world")]),
        ("  it's — well -- fine … ", [("it's —", "it's"), ("well --", "well"), ("fine …", "fine")]),
        ("— so “ this ” is", [("— so", "so"), ("“ this ”", "this"), ("is", "is")]),
        ("50 % İzmir", [("50 %", "50"), ("İzmir", "zmir")]),
        ("Straße über 3.5", [("Straße", "straße"), ("über", "über"), ("3.5", "35")]),
        ("?!", []),
    ],
)
def test_words_between_spaces(text: str, words: list[tuple[str, str]]) -> None:
    units = split(text, is_spaceless=False)
    assert units == [Unit(*word) for word in words]
    if units:
        assert " ".join(unit.text for unit in units) == " ".join(text.split())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("「日本。」と、言う", ["「日", "本。」", "と、", "言", "う"]),
        ("……はい", ["……は", "い"]),
        ("CosyVoice は New York", [*"CosyVoic", "e ", "は ", *"Ne", "w ", *"York"]),
        ("ガー々ッ", ["ガ", "ー", "々", "ッ"]),
        ("（笑）", ["（笑）"]),
        ("今日（きょう", ["今", "日", "（き", "ょ", "う"]),
    ],
)
def test_words_without_spaces_are_characters(text: str, words: list[str]) -> None:
    assert [unit.text for unit in split(text, is_spaceless=True)] == words
    assert "".join(words) == text


def seconds(words: tuple[Word, ...]) -> list[tuple[float, float]]:
    return [(round(word.span.start_s, 2), round(word.span.end_s, 2)) for word in words]
