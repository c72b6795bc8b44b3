"""The demo's voice: it holds what was chosen, can be moved, and says the same wherever it speaks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import soundfile

from cosytune import files
from cosytune.layout import MODULES, ROOT
from cosytune.training import checkpoint
from cosytune.voice import assemble, bundle
from recipe.conftest import Run

SERVER_KEYS = {
    *("type", "llm_lora_model_path", "flow_lora_model_path", "spk_embedding_path"),
    *("description", "active", "reference_audio", "prompt_text"),
}


@pytest.fixture(scope="module")
def voice(demo: Run) -> bundle.Voice:
    return bundle.read(demo.layout.voice)


def test_the_chosen_checkpoints_are_those_of_the_lowest_cv_loss(demo: Run) -> None:
    for module, entry in files.read_json(demo.layout.selection)["modules"].items():
        found = checkpoint.find(demo.layout.module(module))
        assert [one["checkpoint"] for one in entry["candidates"]] == [one.path.name for one in found]
        best = min(found, key=lambda one: one.cv_loss)
        assert entry["chosen"] == best.path.name
        assert best.cv_loss < entry["untuned_cv_loss"]
        shipped = demo.layout.voice / "adapters" / module / "adapter_model.safetensors"
        assert files.sha256(shipped) == files.sha256(best.path / "adapter_model.safetensors")


def test_the_speaker_config_is_what_servers_read(demo: Run, voice: bundle.Voice) -> None:
    config = files.read_json(voice.root / "speaker_config.json")
    name = demo.layout.recipe.name.replace(" ", "_")  # ids hold no white space
    assert set(config) == {"speakers", "default_speaker"} and config["default_speaker"] == name
    assert set(config["speakers"]) == {name}
    entry = config["speakers"][name]
    assert set(entry) == SERVER_KEYS and entry["type"] == "lora" and entry["active"] is True
    for key in ("llm_lora_model_path", "flow_lora_model_path", "spk_embedding_path", "reference_audio"):
        assert not Path(entry[key]).is_absolute() and (voice.root / entry[key]).is_file()
    assert entry["prompt_text"] in (demo.layout.data("train") / "text").read_text(encoding="utf-8")


def test_the_bundle_tells_nothing_of_the_machine(demo: Run, voice: bundle.Voice) -> None:
    home = str(demo.layout.recipe.parent).encode()
    for path in voice.root.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert home not in content and str(ROOT).encode() not in content, path


def test_the_embedding_is_the_very_one_that_the_flow_was_trained_with(demo: Run, voice: bundle.Voice) -> None:
    with pa.memory_map(str(demo.layout.parquet / "train" / "features.arrow")) as source:
        trained_with = pa.ipc.open_file(source).read_all()["spk_embedding"].to_pylist()
    shipped = files.read_torch(voice.root / "spk2info.pt")[voice.default_speaker]["embedding"]
    assert shipped.shape == (1, 192)
    assert all(shipped[0].tolist() == one for one in trained_with)


def test_a_moved_copy_verifies_and_adapters_alone_merge_to_the_same_files(voice: bundle.Voice, tmp_path: Path) -> None:
    moved = tmp_path / "声 moved"
    shutil.copytree(voice.root, moved)
    assert bundle.check(moved).ok
    for module in MODULES:
        (moved / f"{module}.pt").unlink()
    bundle.seal(moved)
    out = assemble.assemble(bundle.read(moved), tmp_path / "out")
    for module in MODULES:
        assert files.sha256(out / f"{module}.pt") == files.sha256(voice.root / f"{module}.pt")


def test_say_repeats_what_the_report_lets_hear(demo: Run, voice: bundle.Voice, tmp_path: Path) -> None:
    report = demo.layout.report
    passages: list[dict[str, Any]] = files.read_json(report / "scores.json")["passages"]
    last = passages[-1]
    out = tmp_path / "出力.wav"
    command = [sys.executable, "-m", "cosytune.voice", "say", last["text"], "--voice", str(voice.root), "-o", str(out)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT / "tools")}, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == (report / last["takes"]["tuned"]["audio"]).read_bytes()
    assert out.read_bytes() != (report / last["takes"]["base"]["audio"]).read_bytes()


def test_the_scores_are_of_the_files_that_can_be_heard(demo: Run) -> None:
    report = demo.layout.report
    scores = files.read_json(report / "scores.json")
    ratios = []
    for passage in scores["passages"]:
        for take in passage["takes"].values():
            assert take["duration_s"] == pytest.approx(soundfile.info(report / take["audio"]).duration)
            assert -1 <= take["speaker_similarity"] <= 1
        if "real" in passage["takes"]:
            tuned, real = passage["takes"]["tuned"], passage["takes"]["real"]
            assert tuned["duration_ratio"] == pytest.approx(tuned["duration_s"] / real["duration_s"])
            assert tuned["mel_distance"] > 0
            ratios.append(tuned["duration_ratio"])
    assert ratios, "the demo has test clips"
    assert scores["summary"]["tuned"]["duration_ratio"] == pytest.approx(sum(ratios) / len(ratios))
    assert scores["summary"]["real"]["speaker_similarity"] > scores["summary"]["tuned"]["speaker_similarity"]
    trained = {line.split(" ", 1)[0] for line in (demo.layout.data("train") / "text").read_text().splitlines()}
    assert not trained & {passage["utt"] for passage in scores["passages"]}
