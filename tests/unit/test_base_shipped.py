"""The tiny base from shipped files: the real layout, upstream's classes read it, and nothing damaged goes unnoticed.

The files are packed here from random weights: these tests are about the way, not about what was learned.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cosytune import base, families, files, kaldi
from cosytune.base import graphs, hyperyaml, manifest, morae, shipped, verify
from cosytune.errors import UserError
from cosytune.features import onnx, speech
from cosytune.kaldi import Utterance
from cosytune.layout import Layout
from cosytune.schema import Config
from cosytune.stages import pack as stages_pack
from cosytune.stages.runner import Context
from cosytune.tinybase import flow, llm, pack
from cosytune.upstream import bridge
from cosytune.voice import card, origin, synthesis

FAMILY = families.get("cosyvoice2-0.5b")
TINY = Config(base="tiny")


@pytest.fixture(scope="module")
def making(tmp_path_factory: pytest.TempPathFactory, upstream_tree: Path) -> Path:
    """What `python -m cosytune.tinybase make` leaves, but of random weights."""
    directory: Path = tmp_path_factory.mktemp("making")
    torch.manual_seed(5)
    states = {"llm": llm.new(), "flow": flow.new(), "vocoder": bridge.new_hift(FAMILY, FAMILY.tiny)}
    for part, module in states.items():
        files.write_torch(directory / part / "weights.pt", module.state_dict())
    graphs.write_speech_tokenizer(directory / "tokenizer" / "model.onnx", 1)
    for seed, part in enumerate(("speaker_encoder", "recogniser", "verifier")):
        graphs.write_speaker_encoder(directory / part / "model.onnx", FAMILY, seed)
    return directory


@pytest.fixture(scope="module")
def weights(making: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The shipped files, where stage -1 looks for them."""
    directory: Path = tmp_path_factory.mktemp("weights")
    pack.ship(making, directory, {"kana_error_rate": 0.05})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shipped, "DIRECTORY", directory)
        yield directory


@pytest.fixture(scope="module")
def model(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model_dir: Path = tmp_path_factory.mktemp("tiny") / "model"
    base.make(TINY, model_dir)
    return model_dir


def test_what_is_shipped_is_small_and_described(making: Path, weights: Path, tmp_path: Path):
    described = shipped.description()
    assert set(described["files"]) == {path.name for path in weights.glob("*.xz")} == set(shipped.NAMES)
    assert described["figures"] == {"kana_error_rate": 0.05}
    sizes = pack.ship(making, tmp_path / "again", {"kana_error_rate": 0.05})
    assert (tmp_path / "again" / shipped.MANIFEST).read_bytes() == (weights / shipped.MANIFEST).read_bytes()
    assert sizes == {name: entry["size"] for name, entry in described["files"].items()}
    assert sum(sizes.values()) < pack.MOST_BYTES
    assert sizes["llm.xz"] < 1.02 * sum(value.numel() for value in files.read_torch(making / "llm/weights.pt").values())


def test_what_was_not_made_or_is_too_large_is_not_shipped(
    making: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(UserError) as caught:
        pack.ship(tmp_path / "nothing", tmp_path / "out")
    assert len(caught.value.messages) == len(shipped.NAMES)
    assert "model.onnx: missing; make this part first: python -m cosytune.tinybase make --only verifier" in str(
        caught.value
    )
    monkeypatch.setattr(pack, "pack", lambda *_, **__: bytes(10_000_000))
    with pytest.raises(UserError, match="70,000,000 bytes, 25,000,000 may be shipped"):
        pack.ship(making, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_directory_has_the_real_layout_and_the_judges(model: Path):
    present = {str(path.relative_to(model)) for path in model.rglob("*") if path.is_file()}
    judges = {"judges/kana.onnx", "judges/verifier.onnx"}
    assert present == {*FAMILY.published, *judges, manifest.NAME}
    described = files.read_json(model / manifest.NAME)
    assert set(described["files"]) == present - {manifest.NAME}
    assert (described["base"], described["weights"]) == ("tiny", "a small model trained on synthetic speech")
    assert "seed" not in described
    base.check(model, FAMILY)
    assert base.file(Config(base="tiny", model_dir=str(model)), "judges/kana.onnx") == model / "judges" / "kana.onnx"


def test_made_twice_it_is_the_same(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    base.make(Config(base="tiny", seed=7), tmp_path / "again")
    assert (tmp_path / "again" / manifest.NAME).read_bytes() == (model / manifest.NAME).read_bytes()
    assert "again: made from the weights that are shipped in" in capsys.readouterr().out


def test_the_weights_are_those_that_were_packed(making: Path, model: Path):
    for part, build in (("llm", bridge.build_llm), ("flow", bridge.build_flow), ("vocoder", bridge.build_hift)):
        found = build(model, FAMILY).state_dict()
        given: Any = files.read_torch(making / part / "weights.pt")
        given = llm.plain(given) if part == "llm" else flow.plain(given) if part == "flow" else given
        assert set(found) == set(given)
        for name, value in given.items():
            if value.is_floating_point() and value.numel():
                assert (found[name] - value).abs().max() <= 0.02 * value.abs().max(), name
    session = onnx.open_session(model / FAMILY.speech_tokenizer, "cpu", 1)
    sound = torch.from_numpy(np.random.default_rng(1).standard_normal((1, 32000)).astype(np.float32) * 0.1)
    assert len(speech.speech_tokens(session, sound)) == 50


def test_transformers_reads_the_text_model(model: Path):
    from transformers import AutoModelForCausalLM

    text_model = AutoModelForCausalLM.from_pretrained(model / FAMILY.text_tokenizer)
    whole = files.read_torch(model / FAMILY.llm)["llm.model.model.embed_tokens.weight"]
    assert torch.equal(text_model.get_input_embeddings().weight, whole.bfloat16().to(text_model.dtype))
    assert bridge.load_tokenizer(model, FAMILY).encode("キャベツ。") == morae.encode("キャベツ。")


def test_upstreams_class_speaks(model: Path, tmp_path: Path):
    speaker = tmp_path / "speaker"
    shutil.copytree(model, speaker)
    files.write_torch(speaker / "spk2info.pt", {"one": {"embedding": torch.ones(1, 192)}})
    said = synthesis.Speaker(speaker, FAMILY).say("1本の木。", "one", "ja", seed=3)
    assert said.sentences == ["イッポンノキ。"]  # as it was trained, not as it was written
    assert np.isfinite(said.samples).all()


def test_the_tiny_base_reads_katakana(model: Path, random_model: Path, tmp_path: Path):
    assert hyperyaml.known_shape(model / FAMILY.yaml, FAMILY) == FAMILY.tiny
    assert manifest.script(model, FAMILY, "ja") == "katakana"
    assert manifest.script(model, FAMILY, "en") == "written"
    assert manifest.script(random_model, FAMILY, "ja") == "written"
    shutil.copyfile(model / FAMILY.yaml, tmp_path / FAMILY.yaml)  # an assembled voice has no description
    assert manifest.script(tmp_path, FAMILY, "ja") == "katakana"


def test_training_reads_what_the_model_reads(model: Path, tmp_path: Path):
    layout = Layout(tmp_path)
    wav = layout.data_all / "wav" / "a.wav"
    synthesis.write_wav(wav, np.zeros(24000, dtype=np.float32), 24000)
    kaldi.write(layout.data_all, [Utterance("a", "s", wav, "1本の木。", 1.0)])
    for name in ("utt2embedding.pt", "spk2embedding.pt", "utt2speech_token.pt"):
        files.write_torch(layout.data_all / name, {"a": [1], "s": [1]})
    clips = stages_pack._read(Context(Config(base="tiny", model_dir=str(model)), layout, again=False))
    assert clips.utterances["a"].text == "イッポンノキ。"
    assert clips.text_tokens["a"] == morae.encode("イッポンノキ。")


def test_a_voice_says_what_its_base_is(model: Path, random_model: Path):
    small, noise = (origin.versions(TINY, "ムラサキ", one) for one in (model, random_model))
    assert (small["base"]["random_weights"], noise["base"]["random_weights"]) == (False, True)
    assert small["base"]["weights"] == "a small model trained on synthetic speech"
    assert (small["text"]["script"], noise["text"]["script"]) == ("katakana", "written")
    assert "Mei" in card.licence(TINY, small) and "Mei" not in card.licence(TINY, noise)


@pytest.mark.parametrize("name", [*shipped.NAMES, shipped.MANIFEST])
def test_damage_is_said_before_anything_is_made(
    name: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    copy = tmp_path / "weights"
    shutil.copytree(weights, copy)
    monkeypatch.setattr(shipped, "DIRECTORY", copy)
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 0x55
    (copy / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: damaged.*git checkout -- "):
        base.make(TINY, tmp_path / "model")
    (copy / name).unlink()
    with pytest.raises(UserError, match=rf"{name}: missing; it comes with the repository: git checkout -- "):
        base.make(TINY, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


def test_other_shipped_weights_ask_for_a_new_model(
    model: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    other = tmp_path / "weights"
    shutil.copytree(weights, other)
    value = files.read_json(other / shipped.MANIFEST)
    files.write_json(other / shipped.MANIFEST, {**value, "figures": {}})
    monkeypatch.setattr(shipped, "DIRECTORY", other)
    base.check(model, FAMILY)  # a copy of the user's own stays what it is
    monkeypatch.setattr(verify, "PRETRAINED_MODELS", model.parent)
    with pytest.raises(UserError, match=r"made from other weights than .* brings; delete .* run stage -1"):
        base.check(model, FAMILY)
