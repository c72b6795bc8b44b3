"""docker/sky.yaml: the real SkyPilot reads it, and what it runs goes on after a preemption.

SkyPilot and requirements.lock want different versions of some packages: it gets an environment of its own, from a lock
with hashes, in the user's cache.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from cosytune import pip_settings
from cosytune.layout import ROOT

SKY_YAML = ROOT / "docker" / "sky.yaml"
LOCK = ROOT / "tests" / "requirements-sky.lock"

# Reads the file that it is given as `sky jobs launch` does, without a network: anything but a local socket is refused.
READ = """
import json, socket, sys
def refuse(self, address):
    raise OSError(f"no network in this test: {address}")
socket.socket.connect = refuse
import sky
task = sky.Task.from_yaml(sys.argv[1])
resources = [
    {
        "image": one.image_id[None],
        "accelerators": one.accelerators,
        "use_spot": one.use_spot,
        "job_recovery": one.job_recovery,
        "config": one.cluster_config_overrides,
    }
    for one in task.resources
]
mounts = {path: [storage.source, storage.mode.value] for path, storage in task.storage_mounts.items()}
print(json.dumps({"run": task.run, "envs": task.envs, "resources": resources, "mounts": mounts}))
"""

# Stands for every stage: says its name; `train` writes a checkpoint a moment, goes on from the newest, and ends at 3.
STAGE = """
import pathlib, signal, sys, time
def leave(number, frame):
    sys.exit(75)
signal.signal(signal.SIGTERM, leave)
name, recipe = __spec__.name.rpartition(".")[2], pathlib.Path("egs/yotaro")
print(name, *sys.argv[2:], flush=True)
if name == "train":
    exp = recipe / "exp"
    exp.mkdir(exist_ok=True)
    newest = max((int(path.name) for path in exp.iterdir()), default=0)
    print("goes on from", newest, flush=True)
    (exp / str(newest + 1)).write_text("a checkpoint")
    (exp / str(newest)).unlink(missing_ok=True)
    while newest < 2:
        time.sleep(0.05)
if name == "export":
    (recipe / "voice").mkdir(exist_ok=True)
    (recipe / "voice" / "llm.pt").write_text("a voice")
"""


@pytest.fixture(scope="session")
def sky_python() -> Path:
    """The interpreter of an environment with requirements-sky.lock; made once a machine, by one worker."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cosytune"
    cache.mkdir(parents=True, exist_ok=True)
    home = cache / f"sky-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]}"
    python, done = home / "bin" / "python", home / "complete"
    with (cache / "sky.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            uv = [str(Path(sys.executable).with_name("uv"))]
            environment = {**os.environ, **pip_settings.for_uv()}
            for arguments in (
                ["venv", "--quiet", "--clear", "--python", sys.executable, str(home)],
                ["pip", "sync", "--quiet", "--python", str(python), "--require-hashes", str(LOCK)],
            ):
                subprocess.run([*uv, *arguments], env=environment, check=True, timeout=600)
            done.touch()
    return python


@pytest.fixture(scope="session")
def read(sky_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A task file -> what SkyPilot makes of it, as a finished process."""
    home = tmp_path_factory.mktemp("sky home")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        "HOME": str(home),  # it keeps a directory of its own there
        "SKYPILOT_DISABLE_USAGE_COLLECTION": "1",
    }

    def reading(path: Path) -> subprocess.CompletedProcess[str]:
        command = [str(sky_python), "-c", READ, str(path)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)

    return reading


@pytest.fixture(scope="session")
def task(read: Any) -> dict[str, Any]:
    done = read(SKY_YAML)
    assert done.returncode == 0, done.stderr
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def test_skypilot_reads_it_and_recovers_what_a_signal_stopped(task: dict[str, Any]) -> None:
    cards = sorted(json.dumps(one["accelerators"]) for one in task["resources"])
    assert cards == ['{"L4": 1}', '{"T4": 1}']
    for one in task["resources"]:
        assert one["use_spot"] is True
        assert one["job_recovery"]["recover_on_exit_codes"] == [75]
        assert one["job_recovery"]["max_restarts_on_errors"] == 0
        assert one["config"] == {"docker": {"run_options": ["--user=0:0"]}}
    assert task["mounts"] == {"/voices": ["gs://my-voices", "MOUNT"]}


def test_the_image_is_ours_by_name_and_tag(task: dict[str, Any]) -> None:
    for one in task["resources"]:
        assert one["image"].startswith("docker:") and one["image"].rpartition("/")[2] == "cosytune:runtime"


def test_one_version_of_skypilot_is_named_everywhere() -> None:
    locked = re.findall(r"^skypilot==(\S+)", LOCK.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(locked) == 1
    for name, words in (
        ("tests/requirements-sky.in", f"skypilot=={locked[0]}"),
        ("docker/sky.yaml", f"SkyPilot {locked[0]}:"),
        ("README.md", f'"skypilot[gcp]=={locked[0]}"'),
        ("README.ja.md", f'"skypilot[gcp]=={locked[0]}"'),
    ):
        assert words in (ROOT / name).read_text(encoding="utf-8"), name


@pytest.mark.parametrize(
    ("was", "broken", "says"),
    [
        ("use_spot:", "use_sopt:", "did you mean 'use_spot'"),
        ("recover_on_exit_codes: [75]", "recover_on_exit_codes: never", "recover_on_exit_codes"),
        ("mode: MOUNT", "mode: MOVE", "mode"),
    ],
)
def test_a_broken_copy_is_refused(read: Any, tmp_path: Path, was: str, broken: str, says: str) -> None:
    text = SKY_YAML.read_text(encoding="utf-8")
    assert was in text
    copy = tmp_path / "sky.yaml"
    copy.write_text(text.replace(was, broken), encoding="utf-8")
    done = read(copy)
    assert done.returncode != 0 and says in done.stderr


def script() -> tuple[str, dict[str, str]]:
    """What the job runs, and the environment that it gets."""
    value = yaml.safe_load(SKY_YAML.read_text(encoding="utf-8"))
    return value["run"], {name: str(one) for name, one in value["envs"].items()}


def test_what_it_runs_is_sound_bash() -> None:
    run, environment = script()
    assignments = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())
    checked = subprocess.run(
        ["shellcheck", "--shell=bash", "-"], input=assignments + run, capture_output=True, text=True, timeout=60
    )
    assert checked.returncode == 0, checked.stdout


@pytest.fixture(scope="session")
def rsync() -> None:
    """SkyPilot installs it in every container that it starts; here apt does where it may."""
    if shutil.which("rsync") is None and os.geteuid() == 0 and shutil.which("apt-get") is not None:
        subprocess.run(["apt-get", "update", "--quiet"], capture_output=True, timeout=120)
        subprocess.run(["apt-get", "install", "--yes", "--quiet", "rsync"], capture_output=True, timeout=300)
    if shutil.which("rsync") is None:
        pytest.skip("no rsync, and no root with apt to install it")


class Cloud:
    """A bucket that stays, and one machine after the other, each with the real shell files and small stages."""

    def __init__(self, home: Path) -> None:
        self.home, self.bucket, self.jobs = home, home / "bucket", list[subprocess.Popen[str]]()
        recordings = self.bucket / "yotaro" / "audio"
        recordings.mkdir(parents=True)
        (recordings / "a.wav").write_text("a recording")
        (self.bucket / "yotaro" / "conf.yaml").write_text("base: random\n")

    def start(self) -> subprocess.Popen[str]:
        root = self.home / f"machine {len(self.jobs) + 1}"
        stages = root / "tools" / "cosytune" / "stages"
        stages.mkdir(parents=True)
        for name in ("run.sh", "path.sh", "tools/options.sh", "requirements.lock"):
            shutil.copy(ROOT / name, root / name)
        install = root / "tools" / "install.sh"  # the environment is the tests' own: nothing here may change it
        install.write_text("#!/bin/sh\necho 'the environment is not as requirements.lock says' >&2\nexit 1\n")
        install.chmod(0o755)
        (root / ".venv").symlink_to(ROOT / ".venv")
        for line in (ROOT / "run.sh").read_text().splitlines():
            if line.startswith("step "):
                (stages / f"{line.split()[2]}.py").write_text(STAGE)
        (stages.parent / "config.py").write_text("import sys\nprint(*sys.argv[1:])\n")
        run, environment = script()
        for path, place in (("/workspace", root), ("/voices", self.bucket)):
            assert path in run
            run = run.replace(f'"{path}/', f'"{place}/').replace(f"cd {path}", f"cd {shlex.quote(str(place))}")
        environment |= {"SPEAKER": "yotaro", "SAVE_EVERY_S": "0.1"}
        job = subprocess.Popen(
            ["bash", "-c", run],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.jobs.append(job)
        return job

    @staticmethod
    def take_away(job: subprocess.Popen[str]) -> None:
        """A preemption without warning: every process of the machine. (A stage has a process group of its own.)"""
        top = psutil.Process(job.pid)
        for end in (psutil.Process.suspend, psutil.Process.kill):  # none may see another one's end
            for process in [top, *top.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):  # such as a sleep that was over just now
                    end(process)
        job.communicate(timeout=30)

    def has(self, *names: str) -> bool:
        return all((self.bucket / "yotaro" / name).exists() for name in names)

    def wait_for(self, *names: str) -> None:
        until = time.monotonic() + 30
        while not self.has(*names):
            assert time.monotonic() < until and self.jobs[-1].poll() is None, f"{names} never came to the bucket"
            time.sleep(0.02)


@pytest.fixture
def cloud(tmp_path: Path, rsync: None) -> Iterator[Cloud]:
    cloud = Cloud(tmp_path)
    yield cloud
    for job in cloud.jobs:
        if job.poll() is None:
            cloud.take_away(job)


def test_a_job_that_is_killed_and_then_stopped_goes_on_from_the_bucket(cloud: Cloud) -> None:
    first = cloud.start()
    cloud.wait_for("exp/1")
    cloud.take_away(first)

    second = cloud.start()
    cloud.wait_for("exp/2")
    second.send_signal(signal.SIGTERM)  # with a warning
    said, _ = second.communicate(timeout=30)
    assert second.returncode == 75, said
    assert "goes on from 1" in said and "stage 4 (train) was stopped, status 75" in said

    third = cloud.start()
    said, _ = third.communicate(timeout=30)
    assert third.returncode == 0, said
    assert "goes on from 2" in said
    assert cloud.has("voice/llm.pt", "exp/3", "audio/a.wav", "conf.yaml")
    assert not cloud.has("exp/1") and not cloud.has("exp/2")  # what was taken away on the machine would come back


def test_the_recordings_in_the_bucket_outlive_a_machine_that_lost_them(cloud: Cloud) -> None:
    job = cloud.start()
    cloud.wait_for("exp/1")
    shutil.rmtree(cloud.home / "machine 1" / "egs" / "yotaro" / "audio")
    (cloud.home / "machine 1" / "egs" / "yotaro" / "conf.yaml").unlink()
    job.send_signal(signal.SIGTERM)
    said, _ = job.communicate(timeout=30)
    assert job.returncode == 75, said
    assert cloud.has("audio/a.wav", "conf.yaml")
