"""Who learned what: intervals whose answer is known, the table, and the halves of a voice as they speak."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from cosytune import base, families, files, kaldi
from cosytune.features import onnx
from cosytune.layout import ROOT, Layout
from cosytune.schema import Config
from cosytune.text import split_sentences
from cosytune.voice import ablation, bundle, intervals, origin, scoring
from cosytune.voice.ablation import Heard
from cosytune.voice.bundle import Voice
from cosytune.voice.judges import Judges
from cosytune.voice.sentences import MORE, SENTENCES

FAMILY = families.get("cosyvoice2-0.5b")
DEMO = (ROOT / "egs" / "demo" / "local" / "sentences.txt").read_text(encoding="utf-8").splitlines()
SPEAKER = "声 'A'"


def column(values: list[float]) -> intervals.Sums:
    return intervals.sums(((str(n), {"voice_similarity": value}) for n, value in enumerate(values)), "voice_similarity")


def test_errors_are_pooled_over_all_kana_and_not_averaged_over_sentences() -> None:
    takes = [
        ("long", {"kana_error_rate": 0.1, "kana_units": 30}),
        ("short", {"kana_error_rate": 0.5, "kana_units": 2}),
        ("no kana", {"voice_similarity": 0.9}),
    ]
    assert intervals.figure(intervals.sums(takes, "kana_error_rate")).value == pytest.approx((3 + 1) / 32)
    assert scoring.means(one for _, one in takes)["kana_error_rate"] == pytest.approx((3 + 1) / 32)


def test_the_interval_of_a_mean_is_that_of_the_textbook() -> None:
    values = np.random.default_rng(2).normal(0.6, 0.1, 200)
    found = intervals.figure(column(list(values)))
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == (
        pytest.approx(values.mean() - half, abs=half / 8),
        pytest.approx(values.mean() + half, abs=half / 8),
    )
    assert found == intervals.figure(column(list(values))), "seeded"


def test_the_takes_of_a_sentence_are_drawn_together() -> None:
    """Ten seeds of a sentence are no ten sentences: the interval does not shrink."""
    values = list(np.random.default_rng(4).normal(0.6, 0.1, 12))
    many = [(str(n), {"voice_similarity": value}) for n, value in enumerate(values) for _ in range(10)]
    once, often = intervals.figure(column(values)), intervals.figure(intervals.sums(many, "voice_similarity"))
    assert (often.low, often.high) == (pytest.approx(once.low), pytest.approx(once.high))


def test_a_single_sentence_has_no_interval_and_nothing_no_figure() -> None:
    assert intervals.figure(column([0.5])) == intervals.Figure(0.5, None, None)
    assert intervals.figure(column([])) is None
    assert intervals.share_of_the_way(column([0.5]), column([0.2]), column([0.8])).low is None


def test_the_share_of_the_way() -> None:
    start, goal = column([0.3, 0.4, 0.5]), column([0.9, 1.0, 0.8])
    share = intervals.share_of_the_way
    assert share(column([0.65, 0.6, 0.7]), start, goal).value == pytest.approx(0.5)
    assert share(start, start, goal) == intervals.Figure(0.0, 0.0, 0.0), "drawn together, so exactly none"
    assert share(goal, start, goal).value == pytest.approx(1)
    assert share(column([0.2, 0.2, 0.2]), start, goal).value < 0
    assert share(goal, goal, start) is None, "real clips that are no nearer than the base say nothing"
    assert share(goal, column([]), goal) is None


def made(voices: dict[str, float], **others: object) -> dict[str, list[Heard]]:
    return {
        who: [
            Heard(f"文{n}", seed, {"voice_similarity": value + 0.01 * n, "speaker_similarity": 0.5, **others})
            for n in range(4)
            for seed in ((None,) if who == "real" else (1, 2))
        ]
        for who, value in voices.items()
    }


def test_the_table_on_the_screen_is_aligned_and_says_what_it_rests_on() -> None:
    heard = made({"real": 0.9, "base": 0.4, "llm_only": 0.5, "flow_only": 0.6, "tuned": 0.8}, ran_on=0.0)
    found = ablation.summary(heard, [1, 2], Judges(None, {}))
    head, *lines = ablation.text_table(found).splitlines()
    assert head == "ablation: 4 sentences x 2 seeds, 4 real clips, 95 % intervals over the sentences"
    assert [line.split("  ")[0] for line in lines[1:]] == list(ablation.WHO.values())
    place = lines[0].index("Share of the way")
    assert [line[place:].split(" ")[0] for line in lines[1:]] == ["–", "–", "20%", "40%", "80%"]
    assert "0.815 (0.80" in lines[-1] and "Kana" not in lines[0]
    assert {who: len(takes) for who, takes in found["takes"].items()} == {who: len(t) for who, t in heard.items()}
    assert found["takes"]["tuned"][1]["seed"] == 2


def test_without_a_judge_or_without_real_clips_there_is_no_share() -> None:
    heard = {who: [Heard("文", 1, {"speaker_similarity": 0.5, "ran_on": 0.0})] for who in ("base", "tuned")}
    rows = ablation.table(heard | {"real": []})
    assert ablation.columns(rows) == ["speaker_similarity", "ran_on"]
    assert [row["who"] for row in rows] == ["base", "tuned"]
    assert "0.500" in ablation.text_table(ablation.summary(heard | {"real": []}, [1], Judges(None, {})))


def test_the_japanese_list_is_long_enough_and_the_demo_has_none_of_it() -> None:
    assert len(MORE["ja"]) == len(set(MORE["ja"])) >= 24
    assert not set(MORE["ja"]) & {*DEMO, *SENTENCES["ja"]}
    assert all(len(split_sentences(one, "ja")) == 1 for one in MORE["ja"])


def test_no_sentence_of_the_training_is_asked_for(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    files.write_bytes(tmp_path / "a.wav", b"RIFF")
    kaldi.write(layout.data("train"), [kaldi.Utterance("a", "A", tmp_path / "a.wav", SENTENCES["ja"][0], 2.0)])
    voice = Voice(tmp_path, {"A": {}}, "A", {})
    config = Config.model_validate({"evaluate": {"ablation_sentences": 5}})
    found = ablation.sentences(config, layout, voice, ["一。", "一。", SENTENCES["ja"][1]])
    assert found == ["一。", *SENTENCES["ja"][1:], *MORE["ja"][:3]]
    most = Config.model_validate({"language": "de", "evaluate": {"ablation_sentences": 99}})
    assert len(ablation.sentences(most, layout, voice, ["Eins."])) == 1 + len(SENTENCES["de"])


@pytest.fixture(scope="module")
def halved(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Voice:
    """A voice whose LLM is the base's own and whose flow is another: what learned is known."""
    root = tmp_path_factory.mktemp("halved") / "voice"
    root.mkdir()
    shutil.copyfile(random_model / "llm.pt", root / "llm.pt")
    flow = torch.load(random_model / "flow.pt", weights_only=True)
    files.write_torch(root / "flow.pt", {key: value * 1.1 for key, value in flow.items()})
    files.write_torch(root / "spk2info.pt", {SPEAKER: {"embedding": torch.linspace(-1, 1, 192).unsqueeze(0)}})
    files.write_json(root / "speaker_config.json", {"speakers": {SPEAKER: {}}, "default_speaker": SPEAKER})
    files.write_json(root / "versions.json", origin.versions(Config(base="random"), SPEAKER, random_model))
    bundle.seal(root)
    return bundle.read(root)


def test_only_the_tuned_half_makes_a_difference(halved: Voice, random_model: Path, tmp_path: Path) -> None:
    config = Config.model_validate({"base": "random", "evaluate": {"ablation": True, "ablation_seeds": 2}})
    assert base.locate(config).resolve() == random_model.resolve()
    panel = Judges(onnx.open_session(random_model / FAMILY.speaker_encoder, "cpu", threads=1), {SPEAKER: [1.0] * 192})
    threads = torch.get_num_threads()
    found = ablation.run(config, halved, panel, ["はい。", "いいえ。"], [])
    torch.set_num_threads(threads)  # a tiny model sets one for its process
    takes = found["takes"]
    assert [row["who"] for row in found["rows"]] == ["base", "llm_only", "flow_only", "tuned"]
    assert takes["llm_only"] == takes["base"] and takes["flow_only"] == takes["tuned"]
    assert takes["tuned"] != takes["base"]
    assert [(one["sentence"], one["seed"]) for one in takes["base"]] == [
        (sentence, seed) for sentence in ("はい。", "いいえ。") for seed in (1986, 1987)
    ]


def test_one_tuned_module_has_no_halves(halved: Voice, tmp_path: Path) -> None:
    shutil.copytree(halved.root, tmp_path / "voice")
    (tmp_path / "voice" / "llm.pt").unlink()
    assert ablation.speakers(bundle.read(tmp_path / "voice")) == ["base", "tuned"]
    assert ablation.speakers(halved) == ["base", "llm_only", "flow_only", "tuned"]
