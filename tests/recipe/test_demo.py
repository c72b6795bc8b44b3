"""The demo on random weights: what it leaves behind, what a second run does, and that two runs give the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import soundfile

from cosytune import files
from cosytune.layout import MODULES, SPLITS
from cosytune.stages import STAGES
from recipe.conftest import Run, copy_random_demo, run_recipe


def test_every_stage_ran_and_left_what_the_next_one_reads(demo: Run) -> None:
    for stage in STAGES:
        assert f"stage {stage.number} ({stage.name}): done in" in demo.output
    layout = demo.layout
    assert (layout.voice / "manifest.json").is_file()
    assert (layout.report / "index.html").is_file()
    wavs = sorted((layout.report / "audio").glob("*.wav"))
    assert wavs
    for wav in wavs:
        samples, rate_hz = soundfile.read(wav)
        assert rate_hz == 24000
        assert len(samples) > 0.2 * rate_hz
        assert abs(samples).max() > 0.001, f"{wav.name} is silent"


def test_input_is_kept_plus_dropped_at_every_stage(demo: Run) -> None:
    recordings = [path for path in demo.layout.audio.rglob("*") if path.suffix == ".wav"]
    prepared = files.read_json(demo.layout.data_all / "report.json")
    assert prepared["input"] == len(recordings) == prepared["kept"] + sum(prepared["dropped"].values())
    packed = files.read_json(demo.layout.parquet / "report.json")
    assert packed["input"] == prepared["kept"] == packed["kept"] + sum(packed["dropped"].values())
    assert sum(packed["sets"].values()) == packed["kept"]
    rows = {split: pq.read_table(demo.layout.parquet / split / "parquet_000000000.tar")["utt"] for split in SPLITS}
    assert {split: len(utts) for split, utts in rows.items()} == packed["sets"]


def test_interleaving_is_exercised(demo: Run) -> None:
    packed = files.read_json(demo.layout.parquet / "report.json")
    assert packed["interleavable"] >= packed["kept"] / 2


def test_training_lowered_the_cv_loss(demo: Run) -> None:
    selection = files.read_json(demo.layout.selection)
    for module in MODULES:
        history = (demo.layout.module(module) / "history.jsonl").read_text().splitlines()
        cv = {line["update"]: line["loss"] for line in map(json.loads, history) if line["kind"] == "cv"}
        chosen = int(selection["modules"][module]["chosen"].rpartition("-")[2])
        assert cv[chosen] < cv[0], f"{module}: {cv}"


def test_a_second_run_does_nothing_and_says_so(demo: Run) -> None:
    before = _hashes(demo.layout.recipe)
    again = run_recipe(demo.layout.recipe)
    assert again.returncode == 0, again.stdout
    for stage in STAGES[1:]:
        assert f"stage {stage.number} ({stage.name}): nothing to do, nothing changed" in again.stdout
    after = _hashes(demo.layout.recipe)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed <= {"data/done/setup.json"}


@pytest.fixture(scope="module")
def twin(demo: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same recipe, run a second time from nothing in another place."""
    recipe = copy_random_demo(tmp_path_factory.mktemp("twin") / demo.layout.recipe.name)
    run = run_recipe(recipe)
    assert run.returncode == 0, run.stdout
    return recipe


def test_two_runs_give_the_same_bytes(demo: Run, twin: Path) -> None:
    ours, theirs = _hashes(demo.layout.recipe), _hashes(twin)
    compared = [
        name
        for name in ours
        if name.startswith(("data/all/utt2", "data/all/spk2", "data/all/wav/", "voice/adapters/"))
        or name.endswith((".tar", ".arrow", ".wav", ".safetensors", "selection.json"))
        or name in ("voice/llm.pt", "voice/flow.pt", "voice/spk2info.pt")
    ]
    assert len(compared) > 50
    assert {name: ours[name] for name in compared} == {name: theirs.get(name) for name in compared}


def test_named_stages_run_again_alone(twin: Path) -> None:
    embeddings = (twin / "data/all/utt2embedding.pt").stat().st_mtime_ns
    adapters = _hashes(twin / "voice" / "adapters")
    run = run_recipe(twin, "--stage", "3", "--stop_stage", "4")
    assert run.returncode == 0, run.stdout
    assert "stage 3 (pack): done" in run.stdout
    assert "stage 4 (train): done" in run.stdout
    assert "stage 2" not in run.stdout
    assert "stage 5" not in run.stdout
    assert (twin / "data/all/utt2embedding.pt").stat().st_mtime_ns == embeddings
    chosen = files.read_json(twin / "exp/default/selection.json")["modules"]["llm"]["chosen"]
    trained = files.sha256(twin / "exp/default/llm" / chosen / "adapter_model.safetensors")
    assert trained == adapters["llm/adapter_model.safetensors"], "the same settings train the same adapter"


def test_changing_a_setting_redoes_what_depends_on_it(twin: Path) -> None:
    refused = run_recipe(twin, "--stage", "5", "seed=7")
    assert refused.returncode == 2
    assert "seed was 1986, is 7" in refused.stdout
    run = run_recipe(twin, "evaluate.max_sentences=1")
    assert run.returncode == 0, run.stdout
    assert "stage 6 (export): nothing to do" in run.stdout
    assert "stage 7 (evaluate): again, evaluate.max_sentences was" in run.stdout


def _hashes(directory: Path) -> dict[str, str]:
    """sha256 of every file below, but for logs and TensorBoard's event files, whose names hold the time."""
    return {
        str(path.relative_to(directory)): files.sha256(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and "tensorboard" not in path.parts and path.suffix != ".log"
    }
