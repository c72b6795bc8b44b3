"""What a voice is asked to say for the report."""

from __future__ import annotations

import typing
from pathlib import Path

from cosytune import files, kaldi
from cosytune.layout import Layout
from cosytune.schema import Config
from cosytune.text import split_sentences
from cosytune.voice import audition
from cosytune.voice.bundle import Voice
from cosytune.voice.sentences import SENTENCES

VOICE = Voice(Path("voice"), {"A": {}}, "A", {})


def recipe(root: Path, **clips: int) -> Layout:
    """Data directories of so many clips each; what is not named is empty, as stage 3 leaves it."""
    layout = Layout(root)
    for split in ("train", "cv", "test"):
        names = [f"{split}_{number}" for number in range(clips.get(split, 0))]
        for name in names:
            files.write_bytes(root / "wav" / f"{name}.wav", b"RIFF")
        kaldi.write(
            layout.data(split),
            [kaldi.Utterance(name, "A", root / "wav" / f"{name}.wav", f"これは{name}です。", 2.0) for name in names],
        )
    return layout


def test_test_clips_come_first_then_the_languages_own_sentences(tmp_path: Path) -> None:
    texts = audition.passages(Config(), recipe(tmp_path, cv=2, test=2), VOICE)
    assert [(one.origin, one.clip.utt if one.clip else None) for one in texts[:3]] == [
        ("test", "test_0"),
        ("test", "test_1"),
        ("sentence", None),
    ]
    assert [one.text for one in texts[2:]] == list(SENTENCES["ja"])


def test_the_recipes_own_sentences_win_and_numbers_are_bounded(tmp_path: Path) -> None:
    config = Config.model_validate(
        {"evaluate": {"sentences": ["一。", "二。", "三。"], "max_sentences": 2, "max_test_clips": 1}}
    )
    texts = audition.passages(config, recipe(tmp_path, cv=1, test=5), VOICE)
    assert [one.text for one in texts] == ["これはtest_0です。", "一。", "二。"]


def test_cv_clips_stand_in_where_a_small_corpus_has_no_test_clips_and_say_so(tmp_path: Path) -> None:
    texts = audition.passages(Config(), recipe(tmp_path, train=4, cv=1), VOICE)
    assert (texts[0].origin, texts[0].text) == ("cv", "これはcv_0です。")


def test_every_language_of_the_config_has_sentences() -> None:
    languages = typing.get_args(Config.model_fields["language"].annotation)
    assert set(SENTENCES) == set(languages)
    for language, sentences in SENTENCES.items():
        assert len(sentences) == 4
        assert all(split_sentences(one, language) for one in sentences)
