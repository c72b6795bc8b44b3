"""Upstream's own trainer, patched, really trains: on a CPU over gloo, in an environment without DeepSpeed."""

from __future__ import annotations

import math
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cosytune.features import parquet
from cosytune.kaldi import Utterance

KEPT, EPOCHS = 6, 2
WITHOUT_DEEPSPEED = """
import importlib.machinery

_find_spec = importlib.machinery.PathFinder.find_spec


def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] == "deepspeed" else _find_spec(name, path, target)


importlib.machinery.PathFinder.find_spec = staticmethod(find_spec)
"""


@pytest.fixture(scope="module")
def data_list(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips that training takes, and one for each way to be dropped."""
    directory = tmp_path_factory.mktemp("parquet")
    rng = np.random.default_rng(7)
    utterances, tokens = [], {}
    clips = {f"kept{number}": (1.5 + 0.2 * number, 24000, "A clip to keep") for number in range(KEPT)}
    clips |= {
        "short": (0.5, 24000, "Too short"),
        "wordy": (1.5, 24000, "more words than anybody can say in a second and a half " * 20),
        "tokenless": (1.5, 24000, "The extractor gave no tokens"),
        "narrow": (1.5, 8000, "A telephone"),
    }
    for utt, (duration_s, rate_hz, text) in clips.items():
        time_s = np.arange(int(duration_s * rate_hz)) / rate_hz
        sound = 0.3 * np.sin(2 * np.pi * rng.uniform(100, 400) * time_s) + 0.01 * rng.standard_normal(len(time_s))
        soundfile.write(directory / f"{utt}.wav", sound, rate_hz, subtype="PCM_16")
        utterances.append(Utterance(utt, "sine", directory / f"{utt}.wav", text, duration_s))
        tokens[utt] = [] if utt == "tokenless" else rng.integers(0, 6561, int(25 * duration_s)).tolist()
    embedding = rng.standard_normal(192).tolist()
    parquet.write(directory, utterances, dict.fromkeys(tokens, embedding), {"sine": embedding}, tokens)
    return directory / "data.list"


@pytest.mark.parametrize("model", ["llm", "flow"])
def test_a_few_steps(model: str, upstream_tree: Path, random_model: Path, data_list: Path, tmp_path: Path) -> None:
    config = tmp_path / "cosyvoice2.yaml"
    config.write_text(for_a_short_run((random_model / "cosyvoice2.yaml").read_text()))
    data = ("--train_data", str(data_list), "--cv_data", str(data_list))
    base = (
        "--qwen_pretrain_path",
        str(random_model / "CosyVoice-BlankEN"),
        "--checkpoint",
        str(random_model / f"{model}.pt"),
    )
    where = ("--model_dir", str(tmp_path / "exp"), "--tensorboard_dir", str(tmp_path / "tensorboard"))
    loader = ("--num_workers", "1", "--prefetch", "2", "--ddp.dist_backend", "gloo")
    as_upstreams_run_sh = ("--deepspeed_config", "conf/ds_stage2.json", "--deepspeed.save_states", "model+optimizer")
    trainer = str(upstream_tree / "cosyvoice/bin/train.py")
    (tmp_path / "exp").mkdir()
    (run,) = start(
        [trainer, "--model", model, "--config", str(config), *data, *base, *where, *loader, *as_upstreams_run_sh],
        upstream_tree,
        tmp_path,
    )
    log, _ = run.communicate(timeout=300)
    assert run.returncode == 0, log

    losses = [float(loss) for loss in re.findall(r"^.* INFO TRAIN Batch \d+/\d+ loss ([-\d.]+|nan)", log, re.MULTILINE)]
    assert len(losses) >= 2 * EPOCHS and all(math.isfinite(loss) for loss in losses), log
    assert len(re.findall(r" INFO CV Batch ", log)) >= EPOCHS
    for warning in (
        "dropped short: frames of 10 ms 50, min_length 100",
        r"dropped wordy: text tokens \d+, token_max_length 200",
        "dropped tokenless: speech tokens 0, the extractor gives none for clips over 30 s",
        "dropped narrow: sample rate 8000, min_sample_rate 16000",
    ):
        assert re.search(f" WARNING {warning}$", log, re.MULTILINE), log
    assert "dropped kept" not in log
    assert (tmp_path / "exp" / f"epoch_{EPOCHS - 1}_whole.pt").is_file()


def test_ranks_with_unequal_data_part_after_the_given_timeout(upstream_tree: Path, tmp_path: Path) -> None:
    """The group's own timeout is ten minutes; `info_dict["timeout"]`, one second, is what counts."""
    script = tmp_path / "join.py"
    script.write_text(
        "import datetime, os\n"
        "import torch.distributed as dist\n"
        "from cosyvoice.utils.train_utils import cosyvoice_join\n"
        "dist.init_process_group('gloo')\n"
        "group = dist.new_group(backend='gloo', timeout=datetime.timedelta(minutes=10))\n"
        "batches = 3 - int(os.environ['RANK'])\n"
        "print('joined', [cosyvoice_join(group, {'batch_idx': i, 'timeout': 1}) for i in range(batches)])\n"
        "dist.barrier()\n"
    )
    runs = start([str(script)], upstream_tree, tmp_path, ranks=2)
    logs = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], logs
    assert "joined [False, False, True]" in logs[0]
    assert "joined [False, False]" in logs[1]


def for_a_short_run(yaml: str) -> str:
    """Two epochs of several batches, every one of them logged."""
    values = {"max_epoch": EPOCHS, "accum_grad": 1, "log_interval": 1, "max_frames_in_batch": 300}
    for key, value in values.items():
        yaml, changed = re.subn(rf"^(\s+{key}:) .*$", rf"\1 {value}", yaml, flags=re.MULTILINE)
        assert changed, key
    return yaml


def start(command: list[str], tree: Path, directory: Path, ranks: int = 1) -> list[subprocess.Popen[str]]:
    """Start one process per rank, with the variables that torchrun sets, where DeepSpeed cannot be found."""
    site = directory / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(WITHOUT_DEEPSPEED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (site, tree, tree / "third_party/Matcha-TTS"))),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(ranks),
    }
    return [
        subprocess.Popen(
            [sys.executable, *command],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(ranks)
    ]
