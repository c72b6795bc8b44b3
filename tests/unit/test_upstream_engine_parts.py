"""What the engine `upstream` tells upstream's trainer, how it reads its log, and which weights files it takes."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from cosytune import families, files
from cosytune.errors import UserError
from cosytune.schema import UpstreamTrainConfig
from cosytune.training import checkpoint
from cosytune.training.checkpoint import Checkpoint
from cosytune.training.upstream import clips, epochs, history, log, run, settings
from cosytune.training.upstream.job import Job
from cosytune.voice import weights

FAMILY = families.get("cosyvoice2-0.5b")
TIME = "2025-11-25 17:41:37,451"


def test_a_batch_of_the_llm_and_one_of_the_flow() -> None:
    said = f"{TIME} INFO TRAIN Batch 3/2 loss 5.845372 acc 0.250000 lr 0.00100000 grad_norm 6.887502 rank 1"
    assert log.read(said) == log.Batch(3, 2, 1, 5.845372, 0.25, 0.001, 6.887502)
    said = f"{TIME} INFO TRAIN Batch 0/1 loss nan lr 0.00001000 grad_norm 0.000000 rank 0"
    found = log.read(said)
    assert isinstance(found, log.Batch) and found.loss != found.loss and found.accuracy is None


def test_a_cv_loss_before_the_first_epoch_and_one_without_clips() -> None:
    said = f"{TIME} INFO Epoch -1 Step 1 CV info lr 0.001 0 rank loss 11.77 acc 0.0"
    assert log.read(said) == log.Validation(-1, 0, 0, 11.77, 0.0)
    assert log.read(f"{TIME} INFO Epoch 4 Step 11 CV info lr 1e-05 0 rank ") == log.Validation(4, 10, 0, None, None)


def test_a_saved_epoch_a_dropped_clip_an_unreadable_file_and_all_else() -> None:
    saved = f"{TIME} INFO [Rank 0] Checkpoint: save to checkpoint /a b/upstream/epoch_0_whole.pt"
    assert log.read(saved) == log.Saved("epoch_0_whole")
    dropped = f"{TIME} WARNING dropped a_01: text tokens 311, token_max_length 200"
    assert log.read(dropped) == log.Dropped("a_01", "text tokens, token_max_length 200")
    unreadable = f"{TIME} WARNING Failed to open /a/parquet_0.tar, ex info no magic bytes"
    assert log.read(unreadable) == log.Unreadable("/a/parquet_0.tar", "no magic bytes")
    assert log.read("start step 0 start epoch -1") is None


def test_the_cause_is_what_came_before_torchruns_own_lines() -> None:
    lines = ['  File "/lib/torch/distributed/elastic/multiprocessing/errors/__init__.py"', "RuntimeError: no", ""]
    lines += ["E1125 17:41:37.0 9006 torch/distributed/elastic/multiprocessing/api.py:874] failed (exitcode: -9)"]
    lines += ["  exitcode  : -9 (pid: 4)"]
    assert log.cause(lines) == (
        '\n      File "/lib/torch/distributed/elastic/multiprocessing/errors/__init__.py"\n    RuntimeError: no'
        "\n    one of its processes was killed by signal 9"
    )


def test_the_settings_reach_upstreams_yaml(random_model: Path, tmp_path: Path) -> None:
    from hyperpyyaml import load_hyperpyyaml

    wanted = UpstreamTrainConfig(learning_rate=2e-5, max_epoch=3, accum_grad=4, max_frames_in_batch=777)
    settings.write(tmp_path, random_model, FAMILY, wanted, 7, None)
    text = (tmp_path / settings.YAML).read_text(encoding="utf-8")
    after = text[text.index("train_conf:\n") :]
    found = load_hyperpyyaml(after[: after.index("train_conf_gan:")])["train_conf"]
    assert found == {
        "optim": "adam",
        "optim_conf": {"lr": 2e-5},
        "scheduler": "constantlr",
        "scheduler_conf": {},
        "max_epoch": 3,
        "grad_clip": 5,
        "accum_grad": 4,
        "log_interval": 1,
        "save_per_step": -1,
    }
    for line in ("max_frames_in_batch: 777", "use_spk_embedding: true", "token_max_length: 200", "token_min_length: 1"):
        assert f"\n  {line}\n" in text
    assert "__set_seed3: !apply:torch.manual_seed [7]" in text
    assert not (tmp_path / settings.DEEPSPEED).exists()


@pytest.mark.parametrize(("precision", "fp16", "bf16"), [(None, False, False), ("bf16", False, True)])
def test_deepspeeds_settings(random_model: Path, tmp_path: Path, precision: str | None, fp16: bool, bf16: bool) -> None:
    wanted = UpstreamTrainConfig(train_engine="deepspeed", learning_rate=2e-5, accum_grad=4)
    settings.write(tmp_path, random_model, FAMILY, wanted, 7, precision)
    found = files.read_json(tmp_path / settings.DEEPSPEED)
    assert found["train_micro_batch_size_per_gpu"] == 1 and found["gradient_accumulation_steps"] == 4
    assert found["zero_optimization"]["stage"] == 2 and "offload_optimizer" not in found["zero_optimization"]
    assert found["optimizer"]["params"] == {"lr": 2e-5, "torch_adam": True, "adam_w_mode": False}
    assert (found["fp16"]["enabled"], found["bf16"]["enabled"]) == (fp16, bf16)


def test_a_yaml_that_nobody_knows_is_not_guessed(tmp_path: Path) -> None:
    (tmp_path / FAMILY.yaml).write_text("llm: !apply:os.system [true]\n")
    with pytest.raises(UserError, match="unknown text"):
        settings.write(tmp_path, tmp_path, FAMILY, UpstreamTrainConfig(), 7, None)


def test_a_clip_that_is_dropped_again_and_again_counts_once(tmp_path: Path) -> None:
    pq.write_table(pa.table({"utt": ["a", "b", "c"]}), tmp_path / "one.tar")
    (tmp_path / "data.list").write_text(f"{tmp_path / 'one.tar'}\n")
    found = clips.read("train", tmp_path / "data.list")
    for _ in range(3):
        found.drop("b", "text tokens, token_max_length 200")
    found.drop("of another set", "text tokens, token_max_length 200")
    assert found.report() == "train: 3 clips = 2 kept + 1 dropped (text tokens, token_max_length 200: 1)"
    (tmp_path / "one.tar").unlink()
    with pytest.raises(UserError, match="which is not there; run stage 3"):
        clips.read("train", tmp_path / "data.list")


def test_losses_are_undivided_and_half_a_line_of_a_killed_run_goes(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text('{"update": 1, "kind": "train"}\n{"update": 3, "kind": "cv"}\n{"upd')
    history.keep_until(tmp_path, 2)
    notes = history.History(tmp_path, "llm", accum_grad=2, log_interval=2, updates_before=2)
    for number, loss in enumerate((1.0, 2.0, 3.0), start=1):
        notes.batch(log.Batch(1, number, 0, loss, None, 1e-3, 0.5))
    assert notes.batches == 3
    assert notes.end_epoch(3) == pytest.approx(4.0)
    kept, first, rest = (json.loads(line) for line in path.read_text().splitlines())
    assert kept == {"update": 1, "kind": "train"}
    assert (first["update"], first["epoch"], first["loss"]) == (3, 2, 3.0)
    assert rest["loss"] == 6.0


def _weights(path: Path, **tensors: torch.Tensor | int) -> Path:
    files.write_torch(path, tensors)
    return path


def _take(directory: Path, base: Path, update: int, cv_loss: float) -> Checkpoint:
    saved = _weights(directory / "saved.pt", a=torch.full((2, 3), float(update)), epoch=0, step=update)
    found = Checkpoint(directory / f"checkpoint-{update:06d}", update, update, cv_loss, 1.0)
    return epochs.take(directory, saved, base, found)


def test_an_epoch_becomes_a_checkpoint_and_the_best_one_stays(tmp_path: Path) -> None:
    base = _weights(tmp_path / "base.pt", a=torch.zeros(2, 3))
    kept: list[Checkpoint] = []
    for update, cv_loss in enumerate((3.0, 1.0, 2.0, 2.5, 2.6), start=1):
        kept = epochs.prune([*kept, _take(tmp_path, base, update, cv_loss)], newest=2)
    assert [one.update for one in checkpoint.find(tmp_path)] == [one.update for one in kept] == [2, 4, 5]
    assert not (tmp_path / "saved.pt").exists(), "moved, not copied"
    assert all(epochs.is_full(one.path) for one in kept)


def test_weights_of_another_shape_are_not_taken(tmp_path: Path) -> None:
    base = _weights(tmp_path / "base.pt", a=torch.zeros(2, 4))
    with pytest.raises(UserError, match=r"holds other tensors than .*base.pt \(a\)"):
        _take(tmp_path, base, 1, 1.0)
    assert not checkpoint.find(tmp_path)


def test_a_disk_without_room_is_told_before_training(tmp_path: Path) -> None:
    base = _weights(tmp_path / "base.pt", a=torch.zeros(2, 3))
    epochs.require_space(tmp_path, base, 4, is_deepspeed=True)
    with pytest.raises(UserError, match=r"checkpoints need .* GB .*lower train\..*save_total_limit"):
        epochs.require_space(tmp_path, base, 10**15, is_deepspeed=False)


def test_full_weights_are_shipped_in_the_bases_keys_and_dtypes(tmp_path: Path) -> None:
    base = tmp_path / "base"
    _weights(base / "llm.pt", a=torch.zeros(2, 3, dtype=torch.float16), step=9)
    directory = tmp_path / "checkpoint-000001"
    _weights(directory / epochs.WEIGHTS, a=torch.full((2, 3), 0.5), epoch=0, step=1)
    weights.write_full("llm", base, directory, tmp_path / "llm.pt")
    shipped = files.read_torch(tmp_path / "llm.pt")
    assert list(shipped) == ["a"] and shipped["a"].dtype == torch.float16 and bool((shipped["a"] == 0.5).all())
    _weights(directory / epochs.WEIGHTS, a=torch.zeros(2, 3), b=torch.zeros(1))
    with pytest.raises(UserError, match="'b' is not in"):
        weights.write_full("llm", base, directory, tmp_path / "llm.pt")
    _weights(directory / epochs.WEIGHTS, b=torch.zeros(1))
    with pytest.raises(UserError, match="'a' does not fit"):
        weights.write_full("llm", base, directory, tmp_path / "llm.pt")


def _batch(number: int) -> str:
    return f"{TIME} INFO TRAIN Batch 0/{number} loss 5.0 lr 0.00100000 grad_norm 0.000000 rank 0"


def _cv(updates: int, losses: str) -> str:
    return f"{TIME} INFO Epoch 0 Step {updates + 1} CV info lr 0.001 0 rank {losses}"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([_cv(0, "")], "leaves no clip of .*cv.list: cv: 1 clips = 1 kept"),
        ([_cv(0, "loss 5.0")], "leaves no clip of .*train.list: train: 1 clips = 1 kept"),
        ([_batch(1), _cv(0, "loss 5.0")], r"an epoch has 1 batches, fewer than train.upstream.accum_grad \(2\)"),
        ([_batch(1), _batch(2), _cv(1, "loss nan")], "after epoch 1 is not a number: .* lower train.upstream.learning"),
        ([f"{TIME} WARNING Failed to open /a.tar, ex info bad"], "/a.tar: bad; run stage 3"),
    ],
)
def test_an_epoch_that_teaches_nothing_is_an_error(tmp_path: Path, lines: list[str], said: str) -> None:
    pq.write_table(pa.table({"utt": ["a"]}), tmp_path / "one.tar")
    data = {split: tmp_path / f"{split}.list" for split in ("train", "cv")}
    for listing in data.values():
        listing.write_text(f"{tmp_path / 'one.tar'}\n")
    job = Job("llm", tmp_path, tmp_path, FAMILY, UpstreamTrainConfig(), data, 7, 1, False, None, 3)
    watch = run.Watch(job, [], lambda: None)
    for line in lines[:-1]:
        watch.read(line)
    with pytest.raises(UserError, match=said):
        watch.read(lines[-1])
