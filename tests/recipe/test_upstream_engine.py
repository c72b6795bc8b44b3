"""`train.engine=upstream`: upstream's own trainer makes full checkpoints that become a voice; or a plain error."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile
import torch

from cosytune import files
from cosytune.features import parquet
from cosytune.kaldi import Utterance
from cosytune.layout import MODULES, ROOT, Layout
from cosytune.training import checkpoint
from cosytune.voice import assemble, bundle
from recipe.conftest import Run, run_recipe

ENGINE = ("train.engine=upstream", "train.upstream.learning_rate=1e-3", "train.upstream.log_interval=1")
ENDLESS = ("train.mode=llm_only", "train.upstream.max_epoch=1000", "train.upstream.num_workers=0")


@pytest.fixture(scope="module")
def packed(demo: Run, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The demo after stage 3."""
    recipe = tmp_path_factory.mktemp("recipes") / "声 of upstream"
    shutil.copytree(demo.layout.recipe, recipe, ignore=shutil.ignore_patterns("exp", "voice", "report"))
    return Layout(recipe)


@pytest.fixture(scope="module")
def tuned(packed: Layout) -> Run:
    """Both modules, one epoch by torch_ddp, and on to the report."""
    few = ("evaluate.max_test_clips=1", "evaluate.max_sentences=1")
    run = run_recipe(packed.recipe, "--stage", "4", "--exp", "up", *ENGINE, "train.upstream.max_epoch=1", *few)
    assert run.returncode == 0, run.stdout
    return Run(Layout(packed.recipe, "up"), run.stdout)


@pytest.mark.parametrize("module", MODULES)
def test_an_epoch_is_a_full_checkpoint_with_its_losses(tuned: Run, module: str) -> None:
    directory = tuned.layout.module(module)
    (found,) = checkpoint.find(directory)
    assert found.epoch == 1 and found.path.name == f"checkpoint-{found.update:06d}"
    assert sorted(path.name for path in found.path.iterdir()) == ["manifest.json", "weights.pt"]
    history = _history(directory)
    untuned, last = [entry for entry in history if entry["kind"] == "cv"]
    assert untuned["update"] == 0 and last["update"] == found.update and last["loss"] == found.cv_loss
    trained = [entry for entry in history if entry["kind"] == "train"]
    plan = files.read_json(directory / "plan.json")
    assert len(trained) == plan["batches_per_epoch"]
    assert plan["updates_per_epoch"] == plan["batches_per_epoch"] // 2 == found.update
    assert found.train_loss == pytest.approx(np.mean([entry["loss"] for entry in trained]))
    assert trained[0]["loss"] == pytest.approx(untuned["loss"], rel=0.1), "per batch, not divided by accum_grad"
    assert found.cv_loss < untuned["loss"]
    assert not (directory / "upstream").exists()


def test_the_clips_add_up(tuned: Run) -> None:
    for module in MODULES:
        for split in ("train", "cv"):
            count = len((tuned.layout.data(split) / "text").read_text(encoding="utf-8").splitlines())
            assert f"{module}: {split}: {count} clips = {count} kept + 0 dropped\n" in tuned.output


@pytest.mark.parametrize("module", MODULES)
def test_the_voice_holds_the_tuned_weights_and_no_adapter(tuned: Run, random_model: Path, module: str) -> None:
    (found,) = checkpoint.find(tuned.layout.module(module))
    trained = files.read_torch(found.path / "weights.pt")
    assert (trained["epoch"], trained["step"]) == (0, found.update), "from which upstream goes on"
    shipped, base = (files.read_torch(root / f"{module}.pt") for root in (tuned.layout.voice, random_model))
    assert list(shipped) == list(base)
    assert all(shipped[key].dtype == base[key].dtype and torch.equal(shipped[key], trained[key]) for key in base)
    assert any(not torch.equal(shipped[key], base[key]) for key in base)
    voice = bundle.read(tuned.layout.voice)
    assert voice.adapter(module) is None
    assert "full fine-tune by upstream's trainer" in voice.speakers[voice.default_speaker]["description"]
    assert "full fine-tune of llm and flow" in (voice.root / "README.md").read_text(encoding="utf-8")


def test_the_voice_verifies_assembles_and_speaks(tuned: Run, tmp_path: Path) -> None:
    assert bundle.check(tuned.layout.voice).ok
    out = assemble.assemble(bundle.read(tuned.layout.voice), tmp_path / "model")
    for module in MODULES:
        assert files.sha256(out / f"{module}.pt") == files.sha256(tuned.layout.voice / f"{module}.pt")
    report = tuned.layout.report  # spoken by upstream's own class
    for passage in files.read_json(report / "scores.json")["passages"]:
        ours, bases = (report / passage["takes"][who]["audio"] for who in ("tuned", "base"))
        assert ours.read_bytes() != bases.read_bytes()


def test_adapters_alone_cannot_be_shipped(packed: Layout) -> None:
    run = run_recipe(packed.recipe, "--stage", "4", "--exp", "bare", *ENGINE, "export.merged=false")
    assert run.returncode == 1
    assert "error: export.merged: false ships adapters, and train.engine: upstream makes none" in run.stdout


def test_deepspeed_in_two_processes_on_to_the_voice(demo: Run, tmp_path: Path) -> None:
    shutil.copytree(demo.layout.recipe, tmp_path / "ds", ignore=shutil.ignore_patterns("exp", "voice", "report"))
    layout = Layout(tmp_path / "ds")
    options = ("train.upstream.train_engine=deepspeed", "train.num_processes=2", "train.upstream.max_epoch=1")
    run = run_recipe(layout.recipe, "--stage", "4", "--stop_stage", "6", "train.mode=llm_only", *ENGINE, *options)
    assert run.returncode == 0, run.stdout
    (found,) = checkpoint.find(layout.module("llm"))
    untuned = _history(layout.module("llm"))[0]
    assert untuned["kind"] == "cv" and found.cv_loss < untuned["loss"]
    trained, shipped = (files.read_torch(path) for path in (found.path / "weights.pt", layout.voice / "llm.pt"))
    assert all(torch.equal(shipped[key], trained[key]) for key in shipped)


def test_a_stopped_run_goes_on_from_whole_epochs_alone_and_a_killed_worker_ends_it(packed: Layout) -> None:
    layout = Layout(packed.recipe, "stopped")
    directory = layout.module("llm")
    command = [str(ROOT / "run.sh"), str(layout.recipe), "--stage", "4", "--stop_stage", "4", "--exp", "stopped"]
    command += [*ENGINE, *ENDLESS]
    first = _start(command)
    _wait(first, lambda: len(list(directory.glob("checkpoint-*/manifest.json"))) >= 2)
    started = psutil.Process(first.pid).children(recursive=True)
    first.send_signal(signal.SIGTERM)
    said, _ = first.communicate(timeout=60)
    assert first.returncode == 75, said
    assert "Upstream's trainer saves after whole epochs alone; the same command goes on from checkpoint-" in said
    gone, alive = psutil.wait_procs(started, timeout=10)
    assert not alive and gone

    *_, before, newest = checkpoint.find(directory)
    with (newest.path / "weights.pt").open("r+b") as stream:
        stream.truncate(newest.path.joinpath("weights.pt").stat().st_size // 2)
    half_written = directory / "upstream" / "epoch_999_whole.pt"
    half_written.parent.mkdir(exist_ok=True)
    half_written.write_bytes(b"PK")

    second = _start(command)
    _wait(second, newest.path.with_name(f"{newest.path.name}.damaged-1").exists)  # its epoch is there again
    (worker, *_) = [one for one in psutil.Process(second.pid).children(recursive=True) if _is_worker(one)]
    worker.kill()
    said, _ = second.communicate(timeout=60)
    assert second.returncode == 1, said
    assert f"left out: {half_written}: it was being written when the run ended" in said
    assert f"left out: {newest.path}: weights.pt was changed since it was written" in said
    assert f"goes on from {before.path.name}, epoch {before.epoch}; upstream keeps no optimizer state" in said
    assert "error: llm: upstream's trainer ended with status 1" in said
    assert "one of its processes was killed by signal 9" in said
    updates = [entry["update"] for entry in _history(directory)]
    assert updates == sorted(updates), "what came after the checkpoint was dropped, and done again"


def test_a_cv_set_of_which_upstream_takes_no_clip(packed: Layout, tmp_path: Path) -> None:
    recipe = tmp_path / "short"
    shutil.copytree(packed.recipe, recipe, ignore=shutil.ignore_patterns("exp", "voice", "report"))
    clip = tmp_path / "blink.wav"
    soundfile.write(clip, np.full(12000, 0.1), 24000)
    embedding = [1.0] * 192
    utterance = Utterance("blink", "a", clip, "Short", 0.5)
    parquet.write(recipe / "parquet" / "cv", [utterance], {"blink": embedding}, {"a": embedding}, {"blink": [1] * 12})
    run = run_recipe(recipe, "--stage", "4", *ENGINE, "train.mode=llm_only", "train.upstream.num_workers=0")
    assert run.returncode == 1
    assert "cv: 1 clips = 0 kept + 1 dropped (frames of 10 ms, min_length 100: 1)" in run.stdout
    assert "upstream's pipeline leaves no clip of" in run.stdout
    assert not list((recipe / "exp/default/llm").glob("checkpoint-*"))


def _history(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "history.jsonl").read_text().splitlines()]


def _start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def _wait(run: subprocess.Popen[str], is_there: Any) -> None:
    """Until it is there; a run that ends before fails the test with what it said."""
    while not is_there():
        if run.poll() is not None:
            raise AssertionError(run.communicate()[0])
        time.sleep(0.05)


def _is_worker(process: psutil.Process) -> bool:
    words = process.cmdline()
    return "torch.distributed.run" not in words and any(word.endswith("cosyvoice/bin/train.py") for word in words)
