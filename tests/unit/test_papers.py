"""The papers say what is there: stages, settings, defaults, files, commands, in both languages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cosytune import environment
from cosytune.layout import ROOT
from cosytune.schema import Config
from cosytune.stages import STAGES

READMES = [ROOT / "README.md", ROOT / "README.ja.md"]


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
    package = ROOT / "tools" / "cosytune"
    names = re.findall(r"`([^`]+)`", "`run.sh`" + "\n".join(line.split("|")[1] for line in text.splitlines()[1:]))
    assert len(names) >= 18
    for name in names:
        assert (ROOT / name).exists() or (package / name).exists(), name


@pytest.mark.parametrize("paper", READMES, ids=lambda path: path.name)
def test_links_and_the_number_of_packages(paper: Path) -> None:
    text = paper.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([A-Z][\w.]*)\)", text):
        assert (ROOT / target).is_file(), target
    assert str(len(environment.locked())) in text


def test_both_languages_give_the_same_commands() -> None:
    def commands(paper: Path) -> list[str]:
        blocks = re.findall(r"```(?:bash|text)?\n(.*?)```", paper.read_text(encoding="utf-8"), flags=re.DOTALL)
        return [
            line.split("#")[0].strip() for block in blocks for line in block.splitlines() if line.split("#")[0].strip()
        ]

    assert commands(READMES[0]) == commands(READMES[1])
