"""Stage 4 as a program: its statuses, what a second run does, and whose directory it goes on from."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cosytune import config as configs
from cosytune import files
from cosytune.errors import UserError
from cosytune.layout import ROOT, Layout
from cosytune.stages import train
from cosytune.stages.runner import Context
from cosytune.training import checkpoint, runs
from training_data import write_subset

_SETTINGS = {
    "base": "random",
    "device": "cpu",
    "seed": 3,
    "lora": {"llm": {"r": 4}, "flow": {"r": 4}},
    "train": {"mode": "llm_only", "llm": {"num_train_epochs": 2, "learning_rate": 0.003}},
}
MakeContext = Callable[..., Context]


@pytest.fixture
def layout(random_model: Path, training_features: Path, tmp_path: Path) -> Layout:
    """A recipe that has been packed."""
    layout = Layout(tmp_path / "話者 'A'")
    write_subset(training_features, layout.parquet / "train" / "features.arrow", [0, 1, 2, 3])
    write_subset(training_features, layout.parquet / "cv" / "features.arrow", [4])
    return layout


@pytest.fixture
def context(layout: Layout, random_model: Path) -> MakeContext:
    def make(again: bool = False, **settings: Any) -> Context:
        merged = configs.merge([_SETTINGS, {"model_dir": str(random_model)}, settings])
        layout.config.parent.mkdir(parents=True, exist_ok=True)
        layout.config.write_text(yaml.safe_dump(merged))
        return Context(*configs.load(layout.config), again=again)

    return make


def _start(layout: Layout, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cosytune.stages.train", layout.config, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tools")},
    )


def test_sigterm_writes_a_checkpoint_and_the_next_run_goes_on(layout: Layout, context: MakeContext) -> None:
    context(train={"llm": {"num_train_epochs": 1000, "early_stopping_patience": 1000}})
    history = layout.module("llm") / "history.jsonl"
    process = _start(layout)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if history.is_file() and '"train"' in history.read_text():
            process.send_signal(signal.SIGTERM)
            break
        time.sleep(0.1)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert "stopped by SIGTERM; the same command goes on from here" in said
    assert "Traceback" not in said
    stopped_at = checkpoint.find(layout.module("llm"))[-1].update
    assert stopped_at >= 1
    changed = context(train={"llm": {"num_train_epochs": 1000, "early_stopping_patience": 1000}})
    assert runs._identity(layout.module("llm")) == train._identity(changed, "llm"), "the next run is the same one"


def test_a_second_run_has_nothing_to_do(layout: Layout, context: MakeContext) -> None:
    context()
    for expected in ("stage 4 (train): done in", "stage 4 (train): nothing to do, nothing changed"):
        process = _start(layout)
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, said
        assert expected in said
    assert files.read_json(layout.module("llm") / "plan.json")["total_updates"] >= 4


def test_before_stage_3_it_says_which_stage_to_run(layout: Layout, context: MakeContext) -> None:
    context()
    (layout.parquet / "cv" / "features.arrow").unlink()
    process = _start(layout)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert said.splitlines()[-1].startswith("error: ")
    assert "cv/features.arrow: not there yet; run stage 3 (pack) first: --stage 3" in said


def test_a_finished_run_named_again_is_moved_aside(layout: Layout, context: MakeContext) -> None:
    directory = layout.module("llm")
    train.work(context())
    before = {path.name: path.read_bytes() for path in directory.glob("checkpoint-*/adapter_model.safetensors")}
    train.work(context(again=True))
    after = {path.name: path.read_bytes() for path in directory.glob("checkpoint-*/adapter_model.safetensors")}
    assert after == before, "the same settings train the same adapters"
    assert checkpoint.find(layout.exp_dir / "llm.old-1") != []
    train.work(context(again=True))
    assert (layout.exp_dir / "llm.old-2").is_dir()


def test_changed_settings_move_only_the_module_that_they_change(
    layout: Layout, context: MakeContext, capsys: pytest.CaptureFixture[str]
) -> None:
    both = {"mode": "joint", "flow": {"max_steps": 2}}
    train.work(context(train=both))
    llm = files.sha256(layout.module("llm") / "history.jsonl")
    train.work(context(train=configs.merge([both, {"flow": {"max_steps": 3}}])))
    assert checkpoint.find(layout.module("flow"))[-1].update == 3
    assert checkpoint.find(layout.exp_dir / "flow.old-1")[-1].update == 2
    assert files.sha256(layout.module("llm") / "history.jsonl") == llm
    assert not (layout.exp_dir / "llm.old-1").exists()
    said = capsys.readouterr().out
    assert "flow: the former run was moved to flow.old-1: train.flow.max_steps was 2, is 3" in said


def test_mistakes_of_both_modules_are_told_before_a_former_run_is_touched(layout: Layout, context: MakeContext) -> None:
    train.work(context())
    wrong = {"mode": "joint", "num_processes": 2, "distributed": "deepspeed"}
    llm = {"fp16": True, "optim": "adamw_8bit"}
    with pytest.raises(UserError) as raised:
        train.work(
            context(
                train={**wrong, "llm": llm, "flow": {"tokens_per_update": 100000}}, lora={"flow": {"targets": ["attn"]}}
            )
        )
    precision, optimizer, targets, plan = raised.value.messages
    assert precision == "train.llm.fp16 = true: only a GPU can; set train.llm.fp16=auto"
    assert optimizer.startswith("train.llm.optim = adamw_8bit: ")
    assert targets.startswith(
        "lora.flow.targets: 'attn': matches no layer; groups are default, minimal, estimator, speaker"
    )
    assert plan.startswith("train.flow: 4 clips make fewer than 2 updates an epoch")
    assert [path.name for path in layout.exp_dir.iterdir() if path.is_dir()] == ["llm"]


def test_a_preset_for_a_gpu_is_named_where_there_is_none(context: MakeContext) -> None:
    settings = {"fp16": True, "bf16": False}
    with pytest.raises(UserError) as raised:
        train.work(context(hardware="t4-16", train={"mode": "joint", "llm": settings, "flow": settings}))
    assert str(raised.value).splitlines() == [
        f"hardware = t4-16: train.{name}.fp16 = true needs a GPU, and there is none; set hardware=auto"
        for name in ("llm", "flow")
    ]


def test_what_only_memory_depends_on_may_change_on_the_way(context: MakeContext) -> None:
    """Who ran out of memory is told to change it, and goes on."""
    smaller = {"gradient_checkpointing": True, "max_tokens_per_batch": 1000}
    identity = train._identity(context(), "llm")
    assert train._identity(context(train={"llm": smaller}), "llm") == identity
    steps = {"gradient_accumulation_steps": 2}  # then it is a factor of the effective batch
    larger = {**smaller, "max_tokens_per_batch": 1500}
    one, other = (train._identity(context(train={"llm": {**llm, **steps}}), "llm") for llm in (smaller, larger))
    assert one != other


def test_a_directory_of_unknown_origin_is_kept_out_of_the_way(layout: Layout, context: MakeContext) -> None:
    notes = layout.module("llm") / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")
    train.work(context())
    assert (layout.exp_dir / "llm.old-1" / "notes.txt").read_text() == "mine"
    assert checkpoint.find(layout.module("llm")) != []


def test_new_features_start_a_new_run(layout: Layout, context: MakeContext, training_features: Path) -> None:
    train.work(context())
    write_subset(training_features, layout.parquet / "train" / "features.arrow", [0, 1, 2, 5])
    train.work(context())
    assert (layout.exp_dir / "llm.old-1").is_dir()
    assert files.read_json(layout.module("llm") / "run.json") != files.read_json(layout.exp_dir / "llm.old-1/run.json")


def test_its_outputs_are_there(layout: Layout, context: MakeContext) -> None:
    made = context()
    train.work(made)
    named = {path.relative_to(layout.exp_dir).as_posix() for path in train.outputs(made)}
    assert {"llm/history.jsonl", "llm/plan.json", "llm/run.json"} < named
    assert sum(name.endswith("/adapter_model.safetensors") for name in named) == 2
    assert all((layout.exp_dir / name).is_file() for name in named)
