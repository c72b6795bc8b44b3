"""The judges that a base brings, or does not: what they are asked, and what is said of a damaged one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from cosytune import files, kaldi
from cosytune.base import shipped
from cosytune.errors import UserError
from cosytune.features import speech
from cosytune.layout import Layout
from cosytune.schema import Config
from cosytune.voice import judges
from cosytune.voice.judges import Judges


@pytest.fixture
def recipe(tmp_path: Path) -> Layout:
    """Two training clips with embeddings, and one test clip that no judge's reference may know."""
    layout = Layout(tmp_path / "recipe")
    for split, names in (("train", "ab"), ("test", "c")):
        utterances = []
        for name in names:
            path = tmp_path / f"{name}.wav"
            soundfile.write(path, np.full(2400, 0.1 * (ord(name) - 96), dtype=np.float32), 24000)
            utterances.append(kaldi.Utterance(name, "A", path, "はい。", 0.1))
        kaldi.write(layout.data(split), utterances)
    files.write_torch(layout.data_all / "utt2embedding.pt", {name: [1.0, 0.0] for name in "abc"})
    return layout


@pytest.fixture
def bringing(random_model: Path, tmp_path: Path) -> Config:
    """A base directory with both judges' files in its description; what is in them nobody could open."""
    root = tmp_path / "base"
    root.mkdir()
    for path in random_model.iterdir():
        (root / path.name).symlink_to(path)
    (root / "cosytune_model.json").unlink()
    description = files.read_json(random_model / "cosytune_model.json")
    for name in (shipped.KANA_JUDGE, shipped.VERIFIER_JUDGE):
        files.write_bytes(root / name, name.encode())
        description["files"][name] = {"size": 1, "sha256": files.sha256(root / name)}
    files.write_json(root / "cosytune_model.json", description)
    return Config(base="random", model_dir=str(root))


class Ears:
    """Hears the same in every sound; its verdict on a voice is the level of the sound."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path

    def hear(self, samples: np.ndarray, rate_hz: int) -> list[str]:
        return ["ハ", "エ"]

    def embed(self, samples: np.ndarray, rate_hz: int) -> np.ndarray:
        assert samples.ndim == 1 and rate_hz == 24000
        return np.array([1.0, samples.mean()], dtype=np.float32)


def test_a_base_without_judges_gives_the_old_scores_alone(recipe: Layout, random_model: Path) -> None:
    panel = judges.open_judges(Config(base="random"), recipe)
    assert (panel.kana, panel.verifier, judges.brought(Config(base="random"))) == (None, None, [])


def test_both_judges_are_asked_where_they_are(
    recipe: Layout, bringing: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judges, "KanaJudge", Ears)
    monkeypatch.setattr(judges, "Verifier", Ears)
    monkeypatch.setattr(speech, "speaker_embedding", lambda *_: [0.0, 1.0])
    panel = judges.open_judges(bringing, recipe)
    assert [path.name for path in judges.brought(bringing)] == ["kana.onnx", "verifier.onnx"]
    assert panel.voices is not None and panel.voices["A"] == pytest.approx([1.0, 0.15], abs=1e-3)
    scores = panel.score(kaldi.read(recipe.data("test")).utterances[0].wav, "はい。", "A")
    assert scores["kana_error_rate"] == 0.5 and scores["kana_units"] == 2 and scores["kana_heard"] == "ハエ"
    assert 0.98 < scores["voice_similarity"] < 1
    english = bringing.model_copy(update={"language": "en"})
    assert judges.open_judges(english, recipe).kana is None, "it knows Japanese alone"


@pytest.mark.parametrize("name", [shipped.KANA_JUDGE, shipped.VERIFIER_JUDGE])
@pytest.mark.parametrize("harm", ["damaged", "missing"])
def test_a_damaged_judge_is_named_with_its_remedy(recipe: Layout, bringing: Config, name: str, harm: str) -> None:
    path = Path(str(bringing.model_dir)) / name
    if harm == "damaged":
        path.write_bytes(b"flipped")
    else:
        path.unlink()
    with pytest.raises(UserError, match=f"{name}: .*--stage -1"):
        judges.open_judges(bringing, recipe)


@pytest.mark.parametrize("words", ["[laughter]", "……"])
def test_what_has_no_kana_is_left_out_of_their_errors(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech, "speaker_embedding", lambda *_: [0.0, 1.0])
    soundfile.write(tmp_path / "a.wav", np.zeros(2400), 24000)
    ears: Any = SimpleNamespace(hear=lambda *_: pytest.fail("there is nothing to hear"))
    assert judges.kana_of(words) == []
    scores = Judges(None, {"A": torch.ones(2).tolist()}, kana=ears).score(tmp_path / "a.wav", words, "A")
    assert set(scores) == {"speaker_similarity"}
    assert judges.kana_of("十月です。") == list("ジューガツデス")
