"""A new speaker on real speech: TEMPLATE copied, LJSpeech clips in audio/, the random base; skipped without them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from cosytune import files
from cosytune.layout import ROOT, Layout
from recipe.conftest import run_recipe

LJSPEECH = ROOT.parent / "shared" / "data" / "ljspeech24"

pytestmark = pytest.mark.skipif(not LJSPEECH.is_dir(), reason="../shared/data/ljspeech24 is not there")


@pytest.fixture(scope="module")
def lj(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, str]:
    """`cp -r egs/TEMPLATE egs/lj`, clips into audio/, `egs/lj/run.sh base=random language=en` from elsewhere."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    recipe = ROOT / "egs" / f"lj test {elsewhere.parent.name} {elsewhere.name}"
    shutil.copytree(ROOT / "egs" / "TEMPLATE", recipe)
    try:
        shutil.copytree(LJSPEECH, recipe / "audio", dirs_exist_ok=True)
        run = subprocess.run(
            [
                recipe / "run.sh",
                "base=random",
                "language=en",
                "train.llm.num_train_epochs=2",
                "train.flow.num_train_epochs=2",
            ],
            cwd=elsewhere,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert run.returncode == 0, run.stdout
        yield Layout(recipe), run.stdout
    finally:
        shutil.rmtree(recipe)


def test_all_clips_become_a_voice_with_a_report(lj: tuple[Layout, str]) -> None:
    layout, _ = lj
    report = files.read_json(layout.data_all / "report.json")
    assert (report["input"], report["kept"]) == (24, 24)
    assert (layout.voice / "speaker_config.json").is_file()
    assert (layout.report / "index.html").is_file()


def test_at_least_half_of_the_clips_can_be_interleaved(lj: tuple[Layout, str]) -> None:
    packed = files.read_json(lj[0].parquet / "report.json")
    assert packed["interleavable"] >= 12


def test_the_later_run_keeps_the_experiments_settings(lj: tuple[Layout, str]) -> None:
    run = run_recipe(lj[0].recipe, "--stage", "3", "--stop_stage", "4")
    assert run.returncode == 0, run.stdout
    assert "keeps base=random language=en" in run.stdout
    assert "stage 4 (train): done" in run.stdout
    assert "stage 5" not in run.stdout


def test_a_speakers_directory_holds_only_what_is_the_speakers() -> None:
    template = ROOT / "egs" / "TEMPLATE"
    assert {path.name for path in template.iterdir()} == {"run.sh", "conf.yaml", "audio"}
    assert len(Path(template / "run.sh").read_text().splitlines()) <= 4
