"""Stage 4 as its users start and stop it: ./run.sh, several ranks, torchrun, a shell as PID 1, both modules at once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from cosytune import files
from cosytune.layout import MODULES, ROOT, Layout
from cosytune.training import checkpoint
from training_data import write_subset
from unit.conftest import training_features  # noqa: F401 - a fixture

ENDLESS = [
    f"train.{module}.{setting}=1000"
    for module in MODULES
    for setting in ("num_train_epochs", "early_stopping_patience")
]
SHORT = ["train.llm.max_steps=4", "train.flow.max_steps=2"]
STAGE_4 = ("--stage", "4", "--stop_stage", "4")
PATIENCE_S = 240


@pytest.fixture
def layout(random_model: Path, training_features: Path, tmp_path: Path) -> Layout:  # noqa: F811
    """A recipe that has been packed."""
    layout = Layout(tmp_path / "話者 'A'")
    write_subset(training_features, layout.parquet / "train" / "features.arrow", [0, 1, 2, 3])
    write_subset(training_features, layout.parquet / "cv" / "features.arrow", [4])
    layout.conf.write_text(
        "base: random\ndevice: cpu\nlora: {llm: {r: 4}, flow: {r: 4}}\ntrain: {mode: llm_only, audio_samples: false}\n"
    )
    return layout


class Started:
    """A command at work in a session of its own, its output in a file, so that nobody waits for a reader."""

    def __init__(self, command: Sequence[str | Path], output: Path) -> None:
        self._output = output
        with output.open("wb") as stream:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(ROOT / "tools"), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._output.read_text()

    def wait_until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.output}"
            assert time.monotonic() < deadline, self.output
            time.sleep(0.05)

    def end(self) -> int:
        return self.process.wait(PATIENCE_S)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """Starts commands; what is left of them after a failed test is killed."""
    all_started: list[Started] = []

    def begin(*command: str | Path) -> Started:
        all_started.append(Started(command, tmp_path / f"output {len(all_started)}.txt"))
        return all_started[-1]

    yield begin
    for started in all_started:
        for pid in descendants(started.process.pid):
            os.kill(pid, signal.SIGKILL)
        started.process.kill()
        started.process.wait()


def descendants(pid: int) -> list[int]:
    """The processes below this one, the nearest first."""
    try:
        below = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
    return [*below, *(further for child in below for further in descendants(child))]


def trains(layout: Layout, module: str = "llm") -> Callable[[], bool]:
    history = layout.module(module) / "history.jsonl"
    return lambda: history.is_file() and '"train"' in history.read_text()


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def run_sh(layout: Layout, *overrides: str) -> list[str | Path]:
    return [ROOT / "run.sh", layout.recipe, *STAGE_4, *overrides]


@contextmanager
def _nothing_stays(pids: Sequence[int]) -> Iterator[None]:
    yield
    time.sleep(0.2)
    assert [pid for pid in pids if not is_gone(pid)] == []


@pytest.mark.parametrize("ranks", [2])
def test_sigterm_to_run_sh_saves_and_the_same_command_goes_on(
    layout: Layout, start: Callable[..., Started], ranks: int
) -> None:
    command = run_sh(layout, *ENDLESS, f"train.num_processes={ranks}")
    started = start(*command)
    started.wait_until(trains(layout))
    below = descendants(started.process.pid)
    assert len(below) >= ranks
    with _nothing_stays(below):
        started.process.send_signal(signal.SIGTERM)
        assert started.end() == 75, started.output
    assert started.output.count("stopped by SIGTERM; the same command goes on from here\n") == 1
    assert "Traceback" not in started.output
    assert "error:" not in started.output
    saved = checkpoint.find(layout.module("llm"))[-1].update
    assert saved >= 1
    again = start(*command)
    again.wait_until(lambda: f"llm: goes on from update {saved}\n" in again.output)
    again.process.send_signal(signal.SIGTERM)
    assert again.end() == 75, again.output


@pytest.mark.parametrize("ranks", [1])
def test_run_sh_as_pid_1_of_a_container(layout: Layout, start: Callable[..., Started], ranks: int) -> None:
    """The kernel gives PID 1 no signal that it has no handler for."""
    alone = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("no right to make a process namespace")
    started = start(*alone, "bash", *run_sh(layout, *ENDLESS, f"train.num_processes={ranks}"))
    started.wait_until(trains(layout))
    below = descendants(started.process.pid)
    with _nothing_stays(below):
        os.kill(below[0], signal.SIGTERM)
        assert started.end() == 75, started.output
    assert "stopped by SIGTERM" in started.output
    assert checkpoint.find(layout.module("llm"))[-1].update >= 1


@pytest.mark.parametrize("ranks", [1])
def test_a_signal_before_training_begins_is_a_stop_too(
    layout: Layout, start: Callable[..., Started], ranks: int
) -> None:
    """While libraries are imported, which takes seconds."""
    started = start(*run_sh(layout, f"train.num_processes={ranks}"))
    started.wait_until(lambda: (layout.module("llm") / "run.json").exists())
    time.sleep(1)
    started.process.send_signal(signal.SIGTERM)
    assert started.end() == 75, started.output
    assert started.output.count("stopped by SIGTERM; the same command goes on from here\n") == 1
    assert "Traceback" not in started.output
    assert not (layout.module("llm") / "history.jsonl").exists(), "the signal came too late for this test"


def test_a_killed_rank_ends_the_run(layout: Layout, start: Callable[..., Started]) -> None:
    started = start(*run_sh(layout, *ENDLESS, "train.num_processes=2"))
    started.wait_until(trains(layout))
    below = descendants(started.process.pid)
    (rank1,) = [pid for pid in below if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes()]
    with _nothing_stays(below):
        os.kill(rank1, signal.SIGKILL)
        assert started.process.wait(60) == 1, started.output
    (error,) = [line for line in started.output.splitlines() if line.startswith("error: ")]
    assert error.startswith("error: llm, rank 1 was killed by SIGKILL, most likely for lack of memory; ")


def test_torchrun_does_the_same_and_keeps_one_record(layout: Layout, start: Callable[..., Started]) -> None:
    frozen = ["python", "-m", "cosytune.config", layout.recipe, "--stage=4", "--stop_stage=4", "--", *SHORT]
    assert start(*frozen).end() == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*torchrun, "-m", "cosytune.stages.train", layout.config]
    theirs = start(*command)
    assert theirs.end() == 0, theirs.output
    assert theirs.output.count("stage 4 (train): done in") == 1
    assert theirs.output.count("llm: best: update 4") == 1
    assert ", 2 processes\n" in theirs.output
    again = start(*command)
    assert again.end() == 0, again.output
    assert again.output.count("stage 4 (train): nothing to do") == 1


def test_side_by_side_trains_what_one_after_the_other_trains(layout: Layout, start: Callable[..., Started]) -> None:
    both = ["train.mode=joint", *SHORT]
    trained = []
    for side_by_side in ("true", "false"):
        started = start(*run_sh(layout, *both, f"train.side_by_side={side_by_side}"))
        assert started.end() == 0, started.output
        trained.append({module: _weights(layout, module) for module in MODULES})
        for module in MODULES:
            layout.module(module).rename(layout.exp_dir / f"{module} {side_by_side}")
    assert trained[0] == trained[1]


def test_a_mistake_of_all_ranks_is_one_line(layout: Layout, start: Callable[..., Started]) -> None:
    started = start(*run_sh(layout, "train.num_processes=2", "train.llm.learning_rate=1e30"))
    assert started.end() == 1, started.output
    (error,) = [line for line in started.output.splitlines() if line.startswith("error: ")]
    assert error.startswith("error: train.llm: the loss or its gradient was not finite in 5 updates in a row")
    assert "Traceback" not in started.output


def _weights(layout: Layout, module: str) -> dict[str, str]:
    found = layout.module(module).glob("checkpoint-*/adapter_model.safetensors")
    hashes = {path.parent.name: files.sha256(path) for path in found}
    assert hashes
    return hashes
