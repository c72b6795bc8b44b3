"""The doctor on machines and recipes that lack something: its line, its remedy, its exit status."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cosytune import doctor, environment
from cosytune.errors import UserError
from cosytune.layout import ROOT
from cosytune.schema import Config

PROGRAMS = ("sox", "ffmpeg", "g++", "git")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, upstream_tree: Path, tiny_model: Path) -> Path:
    """A copy of the repository with upstream's code and the demo's base: healthy, to be made ill in copies."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("a healthy machine has torch")
    root = tmp_path_factory.mktemp("doctor") / "a house"
    for name in ("tools", "cosyvoice_patches", "egs/demo/conf.yaml", "requirements.lock"):
        source, copy = ROOT / name, root / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    shutil.copytree(upstream_tree, root / "upstream" / upstream_tree.name)
    (root / "pretrained_models").mkdir()
    shutil.copytree(tiny_model, root / "pretrained_models" / tiny_model.name, copy_function=os.link)
    return root


def examine(root: Path, *arguments: str, before: tuple[str, ...] = (), **variables: str) -> tuple[int, dict[str, str]]:
    """Exit status, and the lines by subject."""
    result = subprocess.run(
        [*before, sys.executable, "-m", "cosytune.doctor", *arguments],
        env={**os.environ, "PYTHONPATH": str(root / "tools"), **variables},
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in result.stderr, result.stderr
    lines = result.stdout.splitlines()
    return result.returncode, {line[8:22].strip(): line for line in lines[:-1]}


def faults(lines: dict[str, str]) -> list[str]:
    return [subject for subject, line in lines.items() if line.startswith("not ok")]


def test_a_healthy_machine(house: Path) -> None:
    status, lines = examine(house, "egs/demo")
    assert faults(lines) == []
    assert status == 0
    assert "ExecutionProvider" in lines["ONNX"]
    assert len(lines) == 13


def test_programs_that_are_missing_or_broken(house: Path, tmp_path: Path) -> None:
    for name in ("ffmpeg", "git"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    (tmp_path / "g++").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "g++").chmod(0o755)
    status, lines = examine(house, PATH=str(tmp_path))
    assert status == 1
    assert faults(lines) == ["sox", "g++"]
    assert lines["sox"].endswith("not found; sudo apt-get install sox")
    assert "does not start" in lines["g++"]


def test_a_tampered_upstream_file_is_named(house: Path) -> None:
    path = next((house / "upstream").glob("*/cosyvoice/llm/llm.py"))
    before = path.read_text()
    path.write_text(before.replace("import torch", "import  torch", 1))
    try:
        status, lines = examine(house)
    finally:
        path.write_text(before)
    assert status == 1
    assert faults(lines) == ["upstream"]
    assert "cosyvoice/llm/llm.py" in lines["upstream"]


def test_one_flipped_byte_of_the_model_is_named(house: Path, tiny_model: Path) -> None:
    path = house / "pretrained_models" / tiny_model.name / "llm.pt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    kept = path.rename(path.with_name("kept"))
    path.write_bytes(data)
    try:
        status, lines = examine(house)
    finally:
        kept.replace(path)
    assert status == 1
    assert "llm.pt" in lines["base model"]


def test_nothing_set_up_yet_says_what_to_run(house: Path) -> None:
    aside = [(house / name).rename(house / f"{name} aside") for name in ("upstream", "pretrained_models")]
    try:
        status, lines = examine(house)
    finally:
        for path in aside:
            path.rename(path.with_name(path.name.removesuffix(" aside")))
    assert status == 1
    assert faults(lines) == ["upstream", "base model"]
    assert all("stage -1" in lines[subject] for subject in ("upstream", "base model"))


def test_another_lock_than_what_is_installed(house: Path) -> None:
    lock = house / "requirements.lock"
    before = lock.read_text()
    lock.write_text(before.replace("peft==", "peft==999.") + "not-on-this-machine==1.0\n")
    try:
        status, lines = examine(house)
    finally:
        lock.write_text(before)
    assert status == 1
    assert faults(lines) == ["packages"]
    assert "not-on-this-machine: 1.0 is locked, nothing is installed" in lines["packages"]
    assert "peft: 999." in lines["packages"]


def test_a_read_only_recipe(house: Path) -> None:
    recipe = house / "egs" / "demo"
    # root passes permission bits unless it gives that right away
    before = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")
    recipe.chmod(0o555)
    try:
        status, lines = examine(house, "egs/demo", before=before if os.geteuid() == 0 else ())
    finally:
        recipe.chmod(0o755)
    assert status == 1
    assert faults(lines) == ["directories"]
    assert str(recipe) in lines["directories"]


def test_cuda_by_name_where_there_is_none(house: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    recipe = house / "egs" / "cuda"
    recipe.mkdir()
    (recipe / "conf.yaml").write_text("base: tiny\nfeatures: {provider: cuda}\n")
    status, lines = examine(house, "egs/cuda")
    assert status == 1
    assert faults(lines) == ["ONNX"]
    assert "CPUExecutionProvider" in lines["ONNX"]


def test_real_weights_that_are_not_there(house: Path) -> None:
    recipe = house / "egs" / "real"
    recipe.mkdir()
    (recipe / "conf.yaml").write_text("base: real\n")
    status, lines = examine(house, "egs/real")
    assert status == 1
    assert "CosyVoice2-0.5B" in lines["base model"]
    assert "download" in lines["base model"]


@pytest.mark.parametrize("arguments", [["egs/nobody"], ["--exp", "../x", "egs/demo"], ["--bogus"]])
def test_a_mistake_in_its_own_arguments_is_status_2(house: Path, arguments: list[str]) -> None:
    assert examine(house, *arguments)[0] == 2


def test_a_check_that_breaks_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> doctor.Finding:
        raise OSError("libcudart.so.12: cannot open shared object file")

    def mistaken() -> doctor.Finding:
        raise UserError("place: value", "place: value; remedy")

    monkeypatch.setattr(doctor, "_gpu", broken)
    monkeypatch.setattr(doctor, "_precision", mistaken)
    findings = {
        finding.subject: finding
        for finding in doctor.examine(Config(base="random", features={"provider": "cpu"}), None)
    }
    assert "libcudart" in str(findings["GPU"])
    assert str(findings["precision"]).endswith("place: value; place: value; remedy")
    assert not findings["sox"].remedy


def test_a_package_that_does_not_import_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_package.py").write_text("raise OSError('libavutil.so.58: cannot open\\nmore')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert environment.import_failures(("json", "broken_package")) == [
        "broken_package: OSError: libavutil.so.58: cannot open"
    ]
