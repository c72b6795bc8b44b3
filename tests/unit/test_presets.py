"""The presets carry the guide's table, are right, and lie between the defaults and the recipe."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cosytune import config as configs
from cosytune import families, presets
from cosytune.errors import UserError
from cosytune.layout import ROOT, Layout
from cosytune.schema import Config
from cosytune.training import adapters, hardware
from cosytune.training.hardware import Card
from cosytune.upstream import bridge

FAMILY = families.get("cosyvoice2-0.5b")
CLIP = 1000
"""Tokens: 30 s of speech are 750, and their text up to about 250."""
TABLE = {  # name: clips at a time, accumulation, precision, checkpointing, optimizer, workers, rank, alpha
    "a100-80": (4, 2, "bf16", False, "adamw_torch_fused", 8, 64, 128),
    "h100-80": (4, 2, "bf16", False, "adamw_torch_fused", 8, 64, 128),
    "a100-40": (2, 4, "bf16", True, "adamw_torch_fused", 4, 32, 64),
    "rtx4090-24": (2, 4, "bf16", True, "adamw_torch_fused", 4, 32, 64),
    "rtx3090-24": (1, 8, "bf16", True, "adamw_torch", 2, 16, 32),
    "v100-16": (1, 8, "fp16", True, "adamw_8bit", 2, 16, 32),
    "t4-16": (1, 8, "fp16", True, "adamw_8bit", 2, 16, 32),
    "rtx3060-12": (1, 16, "fp16", True, "adamw_8bit", 0, 8, 16),
}
CARDS = {
    "a100-80": Card("A100", 85.1, (8, 0)),
    "h100-80": Card("H100", 85.0, (9, 0)),
    "a100-40": Card("A100", 42.4, (8, 0)),
    "rtx4090-24": Card("RTX 4090", 25.3, (8, 9)),
    "rtx3090-24": Card("RTX 3090", 25.3, (8, 6)),
    "v100-16": Card("V100", 16.9, (7, 0)),
    "t4-16": Card("T4", 15.6, (7, 5)),
    "rtx3060-12": Card("RTX 3060", 12.6, (8, 6)),
}
BASE_PARAMETERS = {"llm": 502_000_000, "flow": 112_000_000}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "conf.yaml").write_text("base: random\n")
    return tmp_path


def read(recipe: Path, *overrides: str) -> Config:
    return configs.read_recipe(Layout(recipe), overrides)


def refused(recipe: Path, *overrides: str) -> list[str]:
    with pytest.raises(UserError) as raised:
        read(recipe, *overrides)
    assert raised.value.exit_status == 2
    return list(raised.value.messages)


def test_the_presets_are_those_of_the_guide() -> None:
    assert presets.names() == sorted(TABLE)


@pytest.mark.parametrize("module", ["llm", "flow"])
@pytest.mark.parametrize("name", sorted(TABLE))
def test_a_preset_says_what_the_guide_says(recipe: Path, name: str, module: str) -> None:
    clips, accumulation, precision, checkpointing, optim, workers, rank, alpha = TABLE[name]
    config = read(recipe, f"hardware={name}")
    settings, lora = getattr(config.train, module), getattr(config.lora, module)
    assert settings.max_tokens_per_batch == clips * CLIP
    assert settings.gradient_accumulation_steps == accumulation
    assert (settings.bf16, settings.fp16) == (precision == "bf16", precision == "fp16")
    assert settings.gradient_checkpointing is checkpointing
    assert settings.optim == optim
    assert settings.dataloader_num_workers == workers
    assert (lora.r, lora.lora_alpha) == (rank, alpha)
    assert lora.targets == (["minimal"] if name == "rtx3060-12" else ["default"])
    assert settings.learning_rate == Config().train.llm.learning_rate, "and no more than that"


@pytest.mark.parametrize("module", ["llm", "flow"])
@pytest.mark.parametrize("name", sorted(TABLE))
def test_a_preset_runs_on_its_card(recipe: Path, name: str, module: Any) -> None:
    config, card = read(recipe, f"hardware={name}"), CARDS[name]
    settings, parameters = getattr(config.train, module), BASE_PARAMETERS[module]
    setup = hardware.settle(module, settings, config.train, False, card, parameters)
    assert setup.precision == TABLE[name][2]
    assert (setup.max_tokens_per_batch, setup.optim) == (settings.max_tokens_per_batch, settings.optim)
    trained = 9_000_000 * getattr(config.lora, module).r // 16
    assert hardware.needs_gb(module, setup, parameters, trained) < hardware.USABLE * card.memory_gb


@pytest.mark.parametrize("module", ["llm", "flow"])
@pytest.mark.parametrize("name", sorted(TABLE))
def test_targets_of_a_preset_are_layers(recipe: Path, name: str, module: str, random_model: Path) -> None:
    lora = getattr(read(recipe, f"hardware={name}").lora, module)
    build = {"llm": bridge.build_llm, "flow": bridge.build_flow}[module]
    adapted = adapters.attach(build(random_model, FAMILY), lora, FAMILY.lora_targets[module], seed=1)
    kinds = {layer.rpartition(".")[2] for layer in adapted.targeted_module_names}
    minimum = {"llm": {"q_proj", "v_proj"}, "flow": {"linear_q", "linear_v", "to_q", "to_v"}}[module]
    assert kinds == minimum if name == "rtx3060-12" else kinds > minimum


def test_layers_a_preset_below_the_recipe_below_the_command_line(recipe: Path) -> None:
    (recipe / "conf.yaml").write_text("hardware: a100-80\nlora: {llm: {r: 8}}\ntrain: {flow: {optim: adamw_torch}}\n")
    config = read(recipe, "train.llm.dataloader_num_workers=1")
    assert (config.lora.llm.r, config.lora.llm.lora_alpha, config.lora.flow.r) == (8, 128, 64)
    assert (config.train.flow.optim, config.train.llm.optim) == ("adamw_torch", "adamw_torch_fused")
    assert (config.train.llm.dataloader_num_workers, config.train.flow.dataloader_num_workers) == (1, 8)


def test_the_command_line_chooses_another_preset_or_none(recipe: Path) -> None:
    (recipe / "conf.yaml").write_text("hardware: a100-80\n")
    assert read(recipe, "hardware=t4-16").lora.llm.r == 16
    assert read(recipe, "hardware=auto") == Config()


def test_a_preset_gives_way_where_two_settings_say_one_thing(recipe: Path) -> None:
    settings = read(recipe, "hardware=a100-40", "train.llm.tokens_per_update=3000", "train.llm.fp16=true").train
    assert (settings.llm.tokens_per_update, settings.llm.gradient_accumulation_steps) == (3000, "auto")
    assert (settings.llm.bf16, settings.llm.fp16) == ("auto", True)
    assert (settings.flow.gradient_accumulation_steps, settings.flow.bf16) == (4, True)
    settings = read(recipe, "hardware=t4-16", "train.flow.bf16=true").train
    assert (settings.flow.bf16, settings.flow.fp16, settings.llm.fp16) == (True, "auto", True)
    (message,) = refused(
        recipe, "hardware=a100-40", "train.llm.tokens_per_update=3000", "train.llm.gradient_accumulation_steps=3"
    )
    assert "one follows from the other" in message


@pytest.mark.parametrize(
    ("name", "near"), [("a100", "a100-80"), ("RTX4090", "rtx4090-24"), ("t4", "t4-16"), ("x", None), ("../x", None)]
)
def test_an_unknown_preset_is_answered_with_all_of_them(recipe: Path, name: str, near: str | None) -> None:
    messages = refused(recipe, f"hardware={name}", "lora.llm.r=0")
    assert [message.partition(" = ")[0] for message in messages] == [
        "command line: hardware",
        "command line: lora.llm.r",
    ]
    assert f"did you mean '{near or ''}" in messages[0]
    assert all(one in messages[0] for one in ["auto", *TABLE])


def test_a_preset_in_conf_that_is_none_is_named_with_its_place(recipe: Path) -> None:
    (recipe / "conf.yaml").write_text("hardware: [a100-80]\n")
    assert refused(recipe)[0].startswith(f"{recipe / 'conf.yaml'}: hardware = ['a100-80']: ")


def test_the_frozen_config_holds_the_presets_values(recipe: Path) -> None:
    path = configs.freeze(recipe, "default", ["hardware=rtx4090-24"], -1, 7)
    assert configs.load(path)[0] == read(recipe, "hardware=rtx4090-24")
    assert configs.load(configs.freeze(recipe, "default", [], 4, 7))[0].lora.llm.r == 32, "a later run keeps the card"


@pytest.mark.parametrize("conf", sorted(ROOT.glob("egs/*/conf.yaml")), ids=lambda path: path.parent.name)
@pytest.mark.parametrize("name", sorted(TABLE))
def test_every_shipped_conf_takes_every_preset(conf: Path, name: str) -> None:
    assert configs.read_recipe(Layout(conf.parent), [f"hardware={name}"]).hardware == name


def test_the_examples_of_the_template_are_right(tmp_path: Path) -> None:
    """With every commented example switched on."""
    template = (ROOT / "egs/TEMPLATE/conf.yaml").read_text(encoding="utf-8")
    sections = [line.removeprefix("# ") for line in template.splitlines() if re.match(r"# +[a-z_]+:|#   ", line)]
    (tmp_path / "conf.yaml").write_text("\n".join(sections), encoding="utf-8")
    config = read(tmp_path)
    assert not config.low_memory
    assert config.lora.flow.targets == ["default"]
    assert config.train.llm.lr_scheduler_type == "cosine"
    assert config.audio.gates.min_snr_db == 12
