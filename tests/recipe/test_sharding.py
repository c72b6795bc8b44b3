"""Stages 0 to 2 in shards: the bytes of one run for every launcher, and a shard that is killed is run again alone."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile

import kills
from cosytune import kaldi
from cosytune.layout import ROOT, Layout
from shard_runs import STAGES, STEPS, command, environment, made, make, run

State = tuple[int, int]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, random_model: Path) -> dict[str, Layout]:
    """The recipe after each stage, run without shards; `audio`: before them."""
    layouts = {"audio": make(tmp_path_factory.mktemp("audio"))}
    before = "audio"
    for stage in STAGES:
        layouts[stage] = copy(layouts[before], tmp_path_factory.mktemp(stage))
        done = run(layouts[stage], stage)
        assert done.returncode == 0, done.stderr
        assert not layouts[stage].shards.exists(), "a small corpus on one machine makes no shards"
        before = stage
    return layouts


def copy(layout: Layout, parent: Path) -> Layout:
    shutil.copytree(layout.recipe, parent / layout.recipe.name)
    return Layout((parent / layout.recipe.name).resolve())


def states(layout: Layout, step: str, nj: int) -> dict[int, State]:
    """Inode and time of the shards that are there."""
    files = {number: layout.shards / step / f"{number}-of-{nj}.parquet" for number in range(1, nj + 1)}
    return {number: (path.stat().st_ino, path.stat().st_mtime_ns) for number, path in files.items() if path.is_file()}


def test_processes_of_this_machine(whole: dict[str, Layout], tmp_path: Path) -> None:
    layout = copy(whole["audio"], tmp_path)
    for stage in STAGES:
        done = run(layout, stage, "shards.nj=2")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("in 2 shards = 0 there + 2 to run (pool)") == len(STEPS[stage])
    assert made(layout) == made(whole["tokenize"])
    assert sorted(path.name for path in layout.shards.iterdir()) == ["embed", "tokenize"], "stage 0 has tidied up"


def test_jobs_by_submitit_on_this_machine_and_a_clip_that_fails_in_one(
    whole: dict[str, Layout], tmp_path: Path
) -> None:
    layout = copy(whole["prepare"], tmp_path)
    wav = kaldi.read(layout.data_all).utterances[2].wav
    content = wav.read_bytes()
    soundfile.write(wav, np.zeros(24000), 24000, subtype="PCM_16")
    by_jobs = ("shards.nj=2", "shards.launcher=slurm", "shards.slurm.cluster=local")
    done = run(layout, "embed", *by_jobs)
    assert done.returncode == 1
    assert "in 2 shards = 0 there + 2 to run (slurm)" in done.stdout
    assert "6 clips = 5 embedded + 1 failed; 5 new, the rest known" in done.stdout
    assert f"error: {wav}: '{wav.stem}' is silent: every sample is 0; take the clip out of audio/" in done.stderr
    wav.write_bytes(content)
    done = run(layout, "embed", *by_jobs)
    assert done.returncode == 0, done.stderr
    assert "6 clips = 6 embedded + 0 failed; 1 new, the rest known" in done.stdout
    assert made(layout) == made(whole["embed"])


def test_a_killed_or_damaged_shard_is_run_again_alone(whole: dict[str, Layout], tmp_path: Path) -> None:
    layout = copy(whole["prepare"], tmp_path)
    draw = random.Random(os.getpid())
    victim = draw.randint(1, 2)
    stage = subprocess.Popen(
        command(layout, "embed", "shards.nj=2"),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: shard_process(layout, "embed", victim) is not None)
    time.sleep(draw.uniform(0, 0.7))  # its imports take longer: it is killed before its end
    pid = shard_process(layout, "embed", victim)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    _, complaint = stage.communicate()
    assert stage.returncode == 1
    assert f"embed/logs/{victim}.log: shard {victim} of 2 of 'embed' was killed by signal 9" in complaint
    alone = f"python -m cosytune.shards {layout.config} embed {victim}, or the same run.sh again"
    assert alone in complaint
    before = states(layout, "embed", 2)
    assert before.keys() == {1, 2} - {victim}, "the others' work is kept"

    again = run(layout, "embed", "shards.nj=2")
    assert again.returncode == 0, again.stderr
    assert "in 2 shards = 1 there + 1 to run (pool)" in again.stdout
    after = states(layout, "embed", 2)
    assert {number: state for number, state in after.items() if number != victim} == before
    assert made(layout) == made(whole["embed"])

    path = layout.shards / "embed" / f"{victim}-of-2.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:-100] + bytes(100))
    assert f"embed: shard {victim} of 2: 3 items, 3 rows in " in shard_alone(layout, "embed", victim)
    assert path.read_bytes() == content
    assert shard_alone(layout, "embed", victim) == f"embed: shard {victim} of 2: there already\n"
    assert states(layout, "embed", 2).items() >= before.items()


def test_a_killed_stage_goes_on_with_its_shards(whole: dict[str, Layout], tmp_path: Path) -> None:
    layout = copy(whole["audio"], tmp_path)
    variables = [f"PYTHONPATH={ROOT / 'tools'}", *command(layout, "prepare", "shards.nj=3", "audio.nj=1")]
    stage = kills.start(["env", *variables], tmp_path / "log")
    wait_for(lambda: len(states(layout, "hear", 3)) >= 1)
    kills.kill(stage)
    before = states(layout, "hear", 3)
    assert len(before) < 3, "killed too late to prove anything"
    done = run(layout, "prepare", "shards.nj=3")
    assert done.returncode == 0, done.stderr
    assert f"in 3 shards = {len(before)} there + {3 - len(before)} to run (pool)" in done.stdout
    assert made(layout) == made(whole["prepare"])


def test_no_ray_says_how_to_get_it(whole: dict[str, Layout], tmp_path: Path) -> None:
    layout = copy(whole["prepare"], tmp_path)
    (tmp_path / "ray.py").write_text("raise ImportError('no module here')\n")  # whether or not there is one
    done = run(layout, "embed", "shards.launcher=ray", packages=(tmp_path,))
    assert done.returncode == 1
    assert "no module here; install it with tools/install.sh --cluster" in done.stderr


def shard_alone(layout: Layout, step: str, number: int) -> str:
    """What the command that any scheduler can call says."""
    words = [sys.executable, "-m", "cosytune.shards", str(layout.config), step, str(number)]
    return subprocess.run(words, env=environment(), capture_output=True, text=True, check=True).stdout


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    until_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until_s, "it never came"
        time.sleep(0.01)


def shard_process(layout: Layout, step: str, number: int) -> int | None:
    """The process that works on a shard of this recipe."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = entry.read_bytes().decode().split("\0")
            if "cosytune.shards" in words and str(layout.config) in words:
                at = words.index(str(layout.config))
                if words[at + 1 : at + 3] == [step, str(number)]:
                    return int(entry.parent.name)
    return None
