"""The demo on the tiny base learns its speaker, and voices that went wrong on purpose are told by the judges' scores.

    . ./path.sh; pytest tests/recipe/test_learning.py     # figures at the end

A dozen sentences are what a test has time for. The figures of many are in tests/bench/RESULTS.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import learning
from cosytune import base, files
from cosytune.voice import ablation
from cosytune.voice.ablation import Heard
from learning import Tuned, difference, shown
from recipe.conftest import Run

Tell = Callable[[str], None]
KANA, VOICE = "kana_error_rate", "voice_similarity"

SHARE_OF_THE_WAY = 0.7
MORE_ERRORS = 0.02
"""Kana errors that a voice may cost."""
LUCK = 0.03
"""What the figure may be beyond that: about one standard deviation of the difference over so few sentences."""
SENTENCES = 8
"""That a control says."""


@pytest.fixture(scope="module")
def tuned(tiny_demo: Run) -> Tuned:
    found = learning.read(tiny_demo.layout)
    assert found.config.base == "tiny"
    return found


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Tell:
    """A line for the test's output, passed or not."""

    def told(line: str) -> None:
        print(line)
        record_property("figure", line)

    return told


def test_the_voice_is_nearer_to_the_speaker_and_as_clear_as_before(tiny_demo: Run, tuned: Tuned, tell: Tell) -> None:
    tell(ablation.text_table(tuned.scores["ablation"]))
    seconds = re.search(r"stage 4 \(train\): done in ([\d.]+) s", tiny_demo.output)
    assert seconds
    tell(f"stage 4 took {seconds[1]} s")  # a busy machine takes longer: no test of it

    nearer = difference(tuned.takes["tuned"], tuned.takes["base"], VOICE)
    tell(f"voice similarity, tuned - base: {shown(VOICE, nearer)}")
    assert nearer.low is not None and nearer.low > 0
    share = tuned.row("tuned")[ablation.SHARE]
    tell(f"share of the way to the real clips: {shown(ablation.SHARE, share)}")
    assert share["value"] >= SHARE_OF_THE_WAY

    cost = difference(tuned.takes["tuned"], tuned.takes["base"], KANA)
    tell(f"kana error rate, tuned - base: {shown(KANA, cost)}; not above {MORE_ERRORS:.0%}")
    assert cost.low is not None and cost.low <= MORE_ERRORS, "more errors, whatever the luck of these sentences"
    assert cost.value <= MORE_ERRORS + LUCK


def test_the_timbre_comes_from_the_flow(tuned: Tuned, tell: Tell) -> None:
    flows = difference(tuned.takes["flow_only"], tuned.takes["llm_only"], VOICE)
    tell(f"voice similarity, tuned flow alone - tuned LLM alone: {shown(VOICE, flows)}")
    assert flows.low is not None and flows.low > 0


def test_the_ablation_stands_in_the_scores_and_on_the_page(tuned: Tuned) -> None:
    found = tuned.scores["ablation"]
    assert [row["who"] for row in found["rows"]] == list(ablation.WHO)
    assert found["sentences"] * len(found["seeds"]) == len(tuned.takes["base"]) == len(tuned.takes["tuned"])
    trained = (tuned.layout.data("train") / "text").read_text(encoding="utf-8")
    assert not [one for one in tuned.takes["tuned"] if one.sentence in trained]
    assert found["rows"] == ablation.table(tuned.takes)
    head, *rows = learning.page(tuned.layout).rows
    assert head[1:] == [ablation.HEADS[key] for key in ablation.columns(found["rows"])]
    assert {KANA, VOICE, ablation.SHARE} <= set(ablation.columns(found["rows"]))
    for row, entry in zip(rows, found["rows"], strict=True):
        cells = [ablation.show(key, entry["figures"].get(key)) for key in ablation.columns(found["rows"])]
        assert row == [ablation.WHO[entry["who"]], *(value + span for value, span in cells)]


def test_the_real_the_base_and_the_tuned_voice_can_be_heard_side_by_side(tuned: Tuned) -> None:
    players = learning.page(tuned.layout).players
    assert len(players) == len(tuned.scores["passages"])
    for labels, passage in zip(players, tuned.scores["passages"], strict=True):
        who = ["Real recording", "Untuned base", "Tuned voice"][0 if "real" in passage["takes"] else 1 :]
        assert labels == [f"{one}: {passage['text']}" for one in who]
    assert any(len(labels) == 3 for labels in players)


def test_shuffled_transcripts_make_a_voice_that_says_something_else(tuned: Tuned, tmp_path: Path, tell: Tell) -> None:
    """Beside the same tuning on the right ones: far more of it than the demo's, which hardly moves the LLM."""
    said = {}
    for name, features in (("right", learning.few), ("shuffled", learning.shuffled)):
        directory = tmp_path / name
        directory.mkdir()
        clips = features(tuned.layout, directory / "features.arrow")
        adapter = learning.train(tuned, "llm", directory / "llm", clips, max_steps=60, learning_rate=1e-3)
        said[name] = learning.say(tuned, {"llm": adapter}, directory, tuned.sentences(SENTENCES))
    tell(_beside(tuned, said["right"], "LLM tuned as much on the right transcripts", KANA))
    _require_more_errors(tuned, said["shuffled"], said["right"], "LLM tuned on shuffled transcripts", tell)


def test_far_too_long_on_five_clips_makes_a_voice_that_cannot_read(tuned: Tuned, tmp_path: Path, tell: Tell) -> None:
    clips = learning.few(tuned.layout, tmp_path / "features.arrow", 5)
    adapter = learning.train(tuned, "llm", tmp_path / "llm", clips, max_steps=300, learning_rate=5e-3)
    said = learning.say(tuned, {"llm": adapter}, tmp_path, tuned.sentences(SENTENCES))
    real = tuned.said("tuned", [one.sentence for one in said])
    _require_more_errors(tuned, said, real, "LLM tuned far too long on 5 clips", tell)


def test_an_untrained_adapter_leaves_the_flow_and_the_voice_the_bases(tuned: Tuned, tmp_path: Path, tell: Tell) -> None:
    adapter = learning.untrained(tuned, "flow", tmp_path / "flow")
    sentences = tuned.sentences(SENTENCES)
    said = learning.say(tuned, {"flow": adapter}, tmp_path, sentences)
    merged, bases = (files.read_torch(root / "flow.pt") for root in (tmp_path / "model", base.locate(tuned.config)))
    assert all(torch.equal(merged[key], bases[key]) for key in bases), "an adapter that learned nothing"

    real = tuned.said("tuned", sentences)
    lost = difference(said, real, VOICE)
    tell(_beside(tuned, said, "flow with an untrained adapter", VOICE))
    tell(f"voice similarity, control - tuned: {shown(VOICE, lost)}")
    assert lost.high is not None and lost.high < 0


def _require_more_errors(tuned: Tuned, said: list[Heard], others: list[Heard], what: str, tell: Tell) -> None:
    """Than the others' takes of the same sentences, beyond their luck, and by more than a tuned voice may cost."""
    more = difference(said, others, KANA)
    tell(_beside(tuned, said, what, KANA))
    tell(f"kana error rate, more than without that mistake: {shown(KANA, more)}")
    tell(f"asked for: {said[0].sentence}  heard: {said[0].scores['kana_heard'] or '–'}")
    assert more.low is not None and more.low > MORE_ERRORS


def _beside(tuned: Tuned, said: list[Heard], what: str, key: str) -> str:
    sentences = [one.sentence for one in said]
    others = (f"{who} {shown(key, learning.figure(tuned.said(who, sentences), key))}" for who in ("tuned", "base"))
    found = shown(key, learning.figure(said, key))
    return f"{ablation.HEADS[key]}, {len(said)} sentences: {what} {found}; {'; '.join(others)}"
