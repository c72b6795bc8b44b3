"""The papers say what is there: stages, settings, defaults, files, commands, in both languages."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cosytune import config as configs
from cosytune import environment
from cosytune.errors import UserError
from cosytune.layout import ROOT, Layout
from cosytune.schema import Config, GatesConfig
from cosytune.stages import STAGES
from cosytune.transcribe import models

READMES = [ROOT / "README.md", ROOT / "README.ja.md"]
SOURCES = ROOT / "tools"
PACKAGE = SOURCES / "cosytune"
VARIABLE = r"\.\.\.|\b[XYN]\b(?:\.\w+)?|[:;] |egs/|\d speakers|cuda|CPUExecutionProvider"


def rows(paper: Path) -> list[list[str]]:
    """The cells of every table row."""
    lines = [line for line in paper.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def setting(key: str) -> Any:
    value: Any = Config().model_dump(mode="json")
    for part in key.split("."):
        value = value[part]
    return value


@pytest.mark.parametrize("paper", READMES, ids=lambda path: path.name)
def test_the_stage_table_is_the_list_of_stages(paper: Path) -> None:
    listed = [(row[0], row[1]) for row in rows(paper) if re.fullmatch(r"-?\d", row[0])]
    assert listed == [(str(stage.number), stage.name) for stage in STAGES]


@pytest.mark.parametrize("paper", READMES, ids=lambda path: path.name)
def test_the_settings_exist_with_these_defaults(paper: Path) -> None:
    text = paper.read_text(encoding="utf-8")
    section = text.split("| `base` |")[1].split("\n\n")[0]
    checked = 0
    for line in ("| `base` |" + section).splitlines():
        names, default = [cell.strip() for cell in line.strip("|").split("|")][:2]
        for name in re.findall(r"`([a-z_.]+)`", names):
            value = setting(name)
            if default.startswith("`"):
                assert value == yaml.safe_load(default.strip("`").replace("1e-4", "1.0e-4")), name
            else:
                assert value is None, name
            checked += 1
    assert checked >= 15


@pytest.mark.parametrize("paper", READMES, ids=lambda path: path.name)
def test_every_file_in_the_layout_is_there(paper: Path) -> None:
    text = paper.read_text(encoding="utf-8").split("| `run.sh` |")[1].split("\n\n")[0]
    names = re.findall(r"`([^`]+)`", "`run.sh`" + "\n".join(line.split("|")[1] for line in text.splitlines()[1:]))
    assert len(names) >= 18
    for name in names:
        assert (ROOT / name).exists() or (PACKAGE / name).exists(), name


@pytest.mark.parametrize("paper", READMES, ids=lambda path: path.name)
def test_links_and_the_number_of_packages(paper: Path) -> None:
    text = paper.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((\w[\w./]*)\)", text):
        assert (ROOT / target).is_file(), target
    sections = {title.replace(" ", "-").lower() for title in re.findall(r"^## (.+)$", text, flags=re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= sections
    assert str(len(environment.locked())) in text


@pytest.mark.parametrize("paper", READMES, ids=lambda path: path.name)
def test_every_gate_is_listed_with_its_default(paper: Path) -> None:
    listed = {
        name: yaml.safe_load(row[3].strip("`"))
        for row in rows(paper)
        if len(row) == 4
        for name in re.findall(r"`(audio\.[a-z_.]+)`", row[2])
    }
    assert listed == {name: setting(name) for name in listed}
    assert {f"audio.gates.{name}" for name in GatesConfig.model_fields} <= listed.keys()


@pytest.mark.parametrize("paper", READMES, ids=lambda path: path.name)
def test_every_reason_that_the_review_page_can_show_is_explained(paper: Path) -> None:
    reasons = json.loads((PACKAGE / "review" / "words.json").read_text(encoding="utf-8"))["en"]["reasons"]
    text = paper.read_text(encoding="utf-8")
    assert not [reason for reason in reasons if f"`{reason}`" not in text]


@pytest.mark.parametrize("paper", READMES, ids=lambda path: path.name)
def test_the_commands_fetch_the_models_that_stage_0_asks_for(paper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "PRETRAINED_MODELS", ROOT / "pretrained_models" / "none are here")
    with pytest.raises(UserError) as refused:
        models.find_models(Config().transcribe, "ja")
    wanted = [re.search(r"huggingface-cli download (\S+)", message) for message in refused.value.messages]
    text = paper.read_text(encoding="utf-8")
    assert len(wanted) == 2
    for command in wanted:
        assert command is not None and f"{command.group()} --local-dir pretrained_models/" in text


@pytest.mark.parametrize("paper", READMES, ids=lambda path: path.name)
def test_the_messages_in_the_table_are_those_of_the_code(paper: Path) -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in [*SOURCES.rglob("*.py"), *SOURCES.rglob("*.sh")])
    code = re.sub(r'"\n\s*f?"', "", code)
    table = paper.read_text(encoding="utf-8").split("| `error: missing system programs")[1].split("\n\n")[0]
    cells = [line.split(" | ")[0] for line in ("| `error: missing system programs" + table).splitlines()]
    fragments = [
        fragment.strip(" :;,.'?")
        for message in re.findall(r"`([^`]+)`", " ".join(cells))
        for fragment in re.split(VARIABLE, message)
    ]
    assert len(fragments) >= 25
    assert not [fragment for fragment in fragments if fragment not in code]


def test_what_the_template_hints_at_is_the_default(tmp_path: Path) -> None:
    lines = (ROOT / "egs" / "TEMPLATE" / "conf.yaml").read_text(encoding="utf-8").splitlines()[1:]
    uncommented = "".join(f"{line.removeprefix('# ').removeprefix('#')}\n" for line in lines)
    (tmp_path / "conf.yaml").write_text(uncommented, encoding="utf-8")
    assert configs.read_recipe(Layout(tmp_path)) == Config(speaker="my_voice")
