"""The bridge builds what upstream's own YAML would build, loads all weights or none, and runs no unknown YAML."""

from __future__ import annotations

import dataclasses
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cosytune import families
from cosytune.base import hyperyaml
from cosytune.errors import UserError
from cosytune.layout import ROOT
from cosytune.upstream import bridge

FAMILY = families.get("cosyvoice2-0.5b")
SPEAKER = "話者 一"


def linked(source: Path, directory: Path, leave_out: tuple[str, ...] = ()) -> Path:
    """A model directory of links, so that one file of it can be exchanged."""
    directory.mkdir(parents=True)
    for path in source.iterdir():
        if path.name not in leave_out:
            (directory / path.name).symlink_to(path)
    return directory


@pytest.fixture(scope="module")
def spoken_dir(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random model with a speaker, as an assembled voice has it: no description, an awkward path."""
    out = linked(random_model, tmp_path_factory.mktemp("a 'b' \"声\"") / "m", leave_out=("cosytune_model.json",))
    embedding = torch.randn(1, 192, generator=torch.Generator().manual_seed(5))
    torch.save({SPEAKER: {"embedding": embedding}}, out / "spk2info.pt")
    return out


@pytest.fixture(scope="module")
def cosyvoice(spoken_dir: Path) -> Any:
    return bridge.load_cosyvoice(spoken_dir, FAMILY)


def plain_attributes(module: torch.nn.Module) -> dict[str, Any]:
    """Every number, flag and text that the modules of a tree hold."""
    return {
        f"{name}.{key}": value
        for name, part in module.named_modules()
        for key, value in vars(part).items()
        if isinstance(value, int | float | str | bool | list | tuple)
        and not key.startswith("_")
        and "name_or_path" not in key
    }


@pytest.mark.parametrize("module", ["llm", "flow", "hift"])
def test_the_numbers_build_what_the_yaml_builds(module: str, random_model: Path, cosyvoice: Any):
    ours = getattr(bridge, f"build_{module}")(random_model, FAMILY)
    theirs = getattr(cosyvoice.model, module)
    assert type(ours) is type(theirs)
    assert ours.training is False
    assert plain_attributes(ours) == plain_attributes(theirs)
    expected = theirs.state_dict()
    assert ours.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key].cpu()) for key, value in ours.state_dict().items())
    if module == "llm":
        assert ours.sampling.keywords == theirs.sampling.keywords
    if module == "flow":
        assert torch.equal(ours.decoder.rand_noise, theirs.decoder.rand_noise)


def test_upstream_speaks_from_the_random_model(cosyvoice: Any):
    torch.manual_seed(7)
    sentence = "こんにちは。これは小さなモデルの声です。"
    parts = [part["tts_speech"] for part in cosyvoice.inference_sft(sentence, SPEAKER, text_frontend=False)]
    speech = torch.cat(parts, dim=1)
    longest_s = 20 * len(cosyvoice.frontend.tokenizer.encode(sentence)) / FAMILY.token_rate_hz
    assert speech.shape[0] == 1
    assert bool(speech.isfinite().all())
    assert 0.5 < speech.shape[1] / FAMILY.sample_rate_hz <= longest_s
    assert 0.001 < float(speech.std()) < 0.9


def test_upstream_streams_from_the_random_model(cosyvoice: Any):
    torch.manual_seed(11)
    parts = [
        part["tts_speech"]
        for part in cosyvoice.inference_sft(
            "窓を開けると、気持ちのよい風が入ってきました。", SPEAKER, stream=True, text_frontend=False
        )
    ]
    assert all(bool(part.isfinite().all()) for part in parts)
    assert sum(part.shape[1] for part in parts) > FAMILY.sample_rate_hz / 2


def test_building_leaves_the_random_state_alone(random_model: Path):
    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(1))

    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    expected = draws()
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    bridge.build_flow(random_model, FAMILY)
    assert draws() == expected


def test_building_leaves_the_log_and_the_screen_alone(random_model: Path):
    """Upstream sets the root logger to DEBUG when it is imported, and prints which packages it lacks."""
    code = (
        "import logging; from pathlib import Path; from cosytune import families; from cosytune.upstream import bridge;"
        "family = families.get('cosyvoice2-0.5b');"
        f"model_dir = Path({str(random_model)!r}); bridge.build_llm(model_dir, family);"
        "bridge.build_flow(model_dir, family);"
        "print(logging.getLogger().level, logging.getLogger().handlers)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "tools", capture_output=True, text=True, check=True)
    assert done.stdout == "30 []\n"
    assert done.stderr == ""


@pytest.mark.parametrize("module", ["llm", "flow", "hift"])
def test_weights_are_loaded_whole_or_not_at_all(module: str, random_model: Path, tmp_path: Path):
    build = getattr(bridge, f"build_{module}")
    name = {"llm": FAMILY.llm, "flow": FAMILY.flow, "hift": FAMILY.vocoder}[module]
    state = torch.load(random_model / name, weights_only=True)
    first = next(key for key in state if key != "llm_embedding.weight") if module == "llm" else next(iter(state))
    model_dir = linked(random_model, tmp_path / "m", leave_out=(name,))

    with pytest.raises(UserError, match=f"{name}: missing; run stage -1"):
        build(model_dir, FAMILY)
    wrong = {
        "Missing key": {key: value for key, value in state.items() if key != first},
        "Unexpected key": {**state, "stranger": torch.zeros(1)},
        "size mismatch": {**state, first: torch.zeros(3, 3, 3)},
    }
    for complaint, changed in wrong.items():
        torch.save(changed, model_dir / name)
        with pytest.raises(UserError, match=f"{name}: not the weights of this model: {complaint}"):
            build(model_dir, FAMILY)
    (model_dir / name).write_bytes((random_model / name).read_bytes()[:5000])
    with pytest.raises(UserError, match=f"{name}: not readable as weights"):
        build(model_dir, FAMILY)
    torch.save({**state, "epoch": 3, "step": 40}, model_dir / name)  # as upstream's trainer leaves them
    assert build(model_dir, FAMILY).state_dict().keys() == {key.removeprefix("generator.") for key in state}


def test_an_unknown_yaml_is_not_run(spoken_dir: Path, tmp_path: Path):
    proof = tmp_path / "it ran"
    model_dir = linked(spoken_dir, tmp_path / "m", leave_out=(FAMILY.yaml,))
    known = (spoken_dir / FAMILY.yaml).read_text()
    (model_dir / FAMILY.yaml).write_text(f"{known}x: !apply:pathlib.Path.touch [!new:pathlib.Path ['{proof}']]\n")
    with pytest.raises(UserError, match="unknown text, and reading it would run whatever it says"):
        bridge.load_cosyvoice(model_dir, FAMILY)
    assert not proof.exists()
    (model_dir / FAMILY.yaml).unlink()
    with pytest.raises(UserError, match=r"cosyvoice2\.yaml: missing"):
        bridge.load_cosyvoice(model_dir, FAMILY)


def test_the_shape_follows_the_description_or_the_yaml(random_model: Path, spoken_dir: Path, tmp_path: Path):
    assert bridge.manifest.shape(random_model, FAMILY) == FAMILY.random
    assert bridge.manifest.shape(spoken_dir, FAMILY) == FAMILY.random
    assert bridge.manifest.shape(tmp_path, FAMILY) == FAMILY.real


def test_the_trainers_overrides_work_on_our_yaml(random_model: Path):
    """What upstream's train.py does for each module; a YAML without `hifigan` fails here."""
    from hyperpyyaml import load_hyperpyyaml

    bridge.load_tokenizer(random_model, FAMILY)  # puts upstream on the path
    text = (random_model / FAMILY.yaml).read_text()
    overrides = {
        "llm": None,
        "hift": None,
        "hifigan": None,
        "qwen_pretrain_path": str(random_model / "CosyVoice-BlankEN"),
    }
    with bridge.keep_random_state():
        values = load_hyperpyyaml(text, overrides=overrides)
    assert len(values["data_pipeline"]) == 10 and len(values["data_pipeline_gan"]) == 12
    assert values["train_conf"]["optim_conf"]["lr"] == pytest.approx(1e-5)
    assert values["flow"].decoder.sigma_min == pytest.approx(1e-6)
    assert values["get_tokenizer"]().encode("こんにちは") == bridge.load_tokenizer(random_model, FAMILY).encode(
        "こんにちは"
    )


def test_mel_is_what_upstreams_front_end_computes(cosyvoice: Any):
    samples = 0.3 * torch.sin(torch.arange(30000) / 24000 * 2 * torch.pi * 220)
    mel = bridge.mel_spectrogram(samples, FAMILY)
    assert mel.shape == (62, 80) and mel.dtype == torch.float32 and mel.is_contiguous()
    expected, _ = cosyvoice.frontend._extract_speech_feat(samples.unsqueeze(0))
    assert torch.equal(mel, expected[0].cpu())


def test_no_text_tokenizer_is_an_error_and_not_a_download(tmp_path: Path):
    with pytest.raises(UserError, match=r"CosyVoice-BlankEN/vocab\.json: missing; run stage -1"):
        bridge.load_tokenizer(tmp_path, FAMILY)


def test_the_real_numbers_give_the_published_sizes():
    """4 bytes a parameter and some bookkeeping: the shapes are those of the published files."""
    for name, build in {
        FAMILY.llm: bridge.new_llm,
        FAMILY.flow: bridge.new_flow,
        FAMILY.vocoder: bridge.new_hift,
    }.items():
        with torch.device("meta"):
            module = build(FAMILY, FAMILY.real)
        parameters = sum(parameter.numel() for parameter in module.parameters())
        overhead = FAMILY.published[name].size - 4 * parameters
        assert 0 < overhead < 400_000, name


@pytest.mark.parametrize(
    ("module", "group", "count"),
    [
        ("llm", "default", 14),
        ("llm", "minimal", 4),
        ("flow", "default", 59),
        ("flow", "minimal", 18),
        ("flow", "estimator", 24),
        ("flow", "speaker", 2),
    ],
)
def test_lora_targets_are_linear_layers(module: str, group: str, count: int):
    tree = {"llm": bridge.new_llm, "flow": bridge.new_flow}[module](FAMILY, FAMILY.random)
    pattern = re.compile(FAMILY.lora_targets[module][group])
    found = {name: part for name, part in tree.named_modules() if pattern.fullmatch(name)}
    assert len(found) == count
    assert all(isinstance(part, torch.nn.Linear) for part in found.values())


def test_another_package_of_upstreams_name_is_an_error(tmp_path: Path, upstream_tree: Path):
    (tmp_path / "cosyvoice").mkdir()
    (tmp_path / "cosyvoice" / "__init__.py").write_text("")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import cosyvoice;"
        "from cosytune.upstream import bridge; bridge._module('cosyvoice.llm.llm')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "tools", capture_output=True, text=True)
    assert done.returncode != 0
    assert "another package of the name cosyvoice hides upstream's" in done.stderr


def test_a_family_that_nobody_knows():
    with pytest.raises(UserError, match=r"unknown family; one of cosyvoice2-0\.5b"):
        families.get("cosyvoice9")


def test_every_number_of_a_shape_is_in_the_yaml():
    """The YAML is trusted by its hash alone, so two shapes must never share one."""
    text = hyperyaml.render(FAMILY, FAMILY.random)
    for part in ("flow", "vocoder"):
        shape = getattr(FAMILY.random, part)
        for field in dataclasses.fields(shape):
            changed = dataclasses.replace(shape, **{field.name: getattr(shape, field.name) * 2})
            assert hyperyaml.render(FAMILY, dataclasses.replace(FAMILY.random, **{part: changed})) != text, field.name
