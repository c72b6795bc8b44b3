"""The image, built and run by a real engine: what is in it, who it runs as, what it may do, how it stops."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import docker_engine
from cosytune.layout import ROOT
from cosytune.upstream.manifest import COMMIT
from docker_engine import Engine

IMAGE = "cosytune:slim"
NOBODY = 23456
"""A user id that neither this machine nor the image knows."""
LOCKED = ("--network", "none", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with docker_engine.running(tmp_path_factory.mktemp("docker")) as found:
        yield found


@pytest.fixture(scope="module")
def built(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The output of docker/build.sh for slim."""
    base = docker_engine.base(engine, tmp_path_factory.mktemp("base"))
    environment = {
        **os.environ,
        "DOCKER": " ".join(engine.program),
        "BASE_IMAGE": base,
        "BUILD_OPTIONS": "--network host --progress plain",
    }
    done = subprocess.run(
        [ROOT / "docker" / "build.sh"], env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def house(built: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two work mounts, which belong to NOBODY."""
    root = tmp_path_factory.mktemp("house")
    (root / "pretrained_models").mkdir()
    for name in ("TEMPLATE", "demo"):
        (root / "egs" / name).mkdir(parents=True)
        for part in ("conf.yaml", "run.sh"):
            shutil.copy(ROOT / "egs" / name / part, root / "egs" / name)
    shutil.copytree(ROOT / "egs" / "demo" / "local", root / "egs" / "demo" / "local")
    (root / "egs" / "TEMPLATE" / "audio").mkdir()
    shutil.copytree(root / "egs" / "TEMPLATE", root / "egs" / "x")
    for path in (root, *root.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    return root


_NEED_MORE = ("upstream_tree", "sky", "readme_commands", "release")
"""Tests that need a network, every program that the papers name, or a checkout."""
_LEFTOVERS = r"""
find /root /var/lib/apt/lists /var/log /tmp -type f -not -name '.bashrc' -not -name '.profile'
find / -xdev -type f -name '*.whl' -not -path '/usr/share/python-wheels/*'
find / -xdev -type f \( -name '*.pyc' -o -name '.netrc' -o -name 'id_rsa*' -o -name 'dockerd.log' \)
find /workspace -name .git -o -name '*.o' -o -name '.cache' -o -name 'sbom-*.json'
find /workspace/egs /workspace/pretrained_models -type f -not -path '*/demo/local/*' |
  grep -v -x -E '/workspace/egs/(demo|TEMPLATE)/(run.sh|conf.yaml)' || true
"""


def options(house: Path) -> list[str]:
    mounts = [f"{house / name}:/workspace/{name}" for name in ("egs", "pretrained_models")]
    return [*LOCKED, "--user", f"{NOBODY}:{NOBODY}", *(word for mount in mounts for word in ("-v", mount))]


def run(engine: Engine, house: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return engine.run("run", "--rm", *options(house), IMAGE, *command, timeout_s=600)


def test_the_build_says_what_it_made_and_the_labels_what_it_is(engine: Engine, built: str) -> None:
    assert re.search(r"cosytune:slim: \d+ MB, \d+ s; what it holds: docker/sbom-slim.json", built), built
    labels = json.loads(engine.ask("image", "inspect", "--format", "{{json .Config.Labels}}", IMAGE))
    revision = subprocess.check_output(["git", "-C", ROOT, "rev-parse", "HEAD"], text=True).strip()
    lock = subprocess.check_output(["sha256sum", ROOT / "docker" / "slim.lock"], text=True).split()[0]
    assert labels["org.opencontainers.image.revision"].removesuffix("-dirty") == revision
    assert labels["cosytune.upstream.revision"] == COMMIT
    assert labels["cosytune.lock.sha256"] == lock


def test_the_list_of_what_it_holds_is_valid_and_names_every_kind(built: str) -> None:
    text = (ROOT / "docker" / "sbom-slim.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    purls = [component.get("purl", "") for component in json.loads(text)["components"]]
    assert f"pkg:github/funaudiollm/cosyvoice@{COMMIT}" in purls
    assert any(purl.startswith("pkg:pypi/pydantic@") for purl in purls)
    assert any(purl.startswith("pkg:deb/debian/tini@") for purl in purls)
    assert not any(purl.startswith("pkg:pypi/torch@") for purl in purls)


def test_nothing_is_left_behind_in_it(engine: Engine, house: Path) -> None:
    """Also of what lies in the checkout beside the code: data, models, history."""
    found = engine.ask("run", "--rm", *LOCKED, "--user", "0:0", "--entrypoint", "bash", IMAGE, "-c", _LEFTOVERS)
    assert found == ""
    variables = json.loads(engine.ask("image", "inspect", "--format", "{{json .Config.Env}}", IMAGE))
    assert {line.split("=")[0] for line in variables} == {"PATH", "COSYTUNE_LOCK", "PYTHONDONTWRITEBYTECODE"}


def test_the_doctor_speaks_as_a_user_that_nobody_knows(engine: Engine, house: Path) -> None:
    done = run(engine, house, "python", "-m", "cosytune.doctor")
    assert done.returncode == 1, "there is no torch in it"
    findings = re.findall(r"^(ok|not ok) +(base model|\S+)", done.stdout, flags=re.MULTILINE)
    well = {"Python", "packages", "sox", "ffmpeg", "g++", "git", "disk", "directories", "upstream"}
    assert {subject for verdict, subject in findings if verdict == "ok"} == well, done.stdout
    assert re.search(r"^not ok +GPU +torch is not installed; this environment is slim.lock", done.stdout, re.MULTILINE)


def test_it_is_not_root_and_can_change_nothing_but_the_mounts(engine: Engine, house: Path) -> None:
    by_itself = engine.ask("run", "--rm", IMAGE, "bash", "-c", "id -u")
    assert by_itself == "1000"
    script = (
        "id -u; echo $USER; grep CapEff /proc/self/status; touch /workspace/x /etc/x 2>&1; ls /sys/class/net;"
        " python -c 'import socket; socket.create_connection((\"192.0.2.1\", 80), 2)' 2>&1 | tail -1; touch egs/x/mine"
    )
    done = run(engine, house, "bash", "-c", script)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    user, name, capabilities, *refusals, interfaces, connection = lines
    assert (user, name) == (str(NOBODY), f"uid{NOBODY}")
    assert capabilities.split() == ["CapEff:", "0" * 16]
    assert [line.rsplit(": ", 1)[1] for line in refusals] == ["Read-only file system"] * 2
    assert interfaces == "lo"
    assert "unreachable" in connection
    assert (house / "egs" / "x" / "mine").stat().st_uid == NOBODY


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        (["--help"], 0, "./run.sh [egs/<speaker>]"),
        (["egs/x", "--list"], 0, "to do  upstream's code verified and patched"),
        (["--stage", "99"], 2, "no stage lies from --stage 99"),
        (["egs/nobody"], 2, "egs/nobody"),
        (["egs/x/run.sh", "--list"], 0, "egs/x, experiment default"),
        (["python", "-c", "import sys; print(sys.path[1]); sys.exit(7)"], 7, "/workspace/tools"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_stands_behind_the_image_is_run_sh_or_a_program(
    engine: Engine, house: Path, command: list[str], status: int, words: str
) -> None:
    done = run(engine, house, *command)
    assert (done.returncode, words in done.stdout + done.stderr) == (status, True), done.stdout + done.stderr


def test_the_unit_tests_that_need_no_torch_pass_inside(engine: Engine, house: Path) -> None:
    options = ("-q", "-n", "2", "--dist", "loadfile", "-p", "no:cacheprovider", "-p", "partial")
    left_out = (f"--ignore=tests/unit/test_{name}.py" for name in _NEED_MORE)
    done = run(engine, house, "python", "-m", "pytest", *options, *left_out, "tests/unit")
    last = done.stdout.splitlines()[-1]
    assert done.returncode == 0, done.stdout[-4000:]
    passed = re.search(r"(\d+) passed", last)
    assert passed is not None and int(passed[1]) > 800, last


def test_docker_stop_saves_what_there_is_and_the_next_start_goes_on(engine: Engine, house: Path) -> None:
    """With a stand-in for the trainer, in its place: tini, the entry, run.sh and the signals are the real ones."""
    stand_in = f"{ROOT / 'tests' / 'stand_in_trainer.py'}:/workspace/tools/cosytune/stages/train.py:ro"
    command = ["-v", stand_in, IMAGE, "egs/x", "--stage", "4", "--stop_stage", "4"]
    for start in ("update 5", "goes on from update"):
        container = engine.ask("run", "--detach", *options(house), *command)
        try:
            deadline_s = time.monotonic() + 60
            while start not in engine.run("logs", container).stdout and time.monotonic() < deadline_s:
                time.sleep(0.1)
            started_s = time.monotonic()
            engine.ask("stop", "--time", "10", container)
            took_s = time.monotonic() - started_s
            logs = engine.run("logs", container)
            words = logs.stdout + logs.stderr
            assert start in words, words
            assert engine.ask("inspect", "--format", "{{.State.ExitCode}}", container) == "75", words
            assert "was stopped, status 75; go on with: ./run.sh egs/x --stage 4 --stop_stage 4" in words
            assert took_s < 8, "docker kills after 10 s what has not ended"
        finally:
            engine.ask("rm", "--force", container)
    (checkpoint,) = (house / "egs" / "x" / "exp").rglob("checkpoint.json")
    assert checkpoint.stat().st_uid == NOBODY
    assert json.loads(checkpoint.read_text())["update"] > 5


def test_compose_reads_the_file_and_runs_the_image(engine: Engine, house: Path) -> None:
    environment = {
        **os.environ,
        "DOCKER_HOST": engine.program[-1] if engine.is_ours else os.environ.get("DOCKER_HOST", ""),
        "COSYTUNE_IMAGE": IMAGE,
        "COSYTUNE_RUNTIME": "runc",
        "COSYTUNE_NETWORK": "none",
        "USER_ID": str(NOBODY),
        "GROUP_ID": str(NOBODY),
        "RECIPE": "egs/TEMPLATE",
    }
    command = [*docker_engine.compose(engine), "-f", str(ROOT / "docker" / "compose.yaml"), "-p", "cosytune-test"]
    done = subprocess.run(
        [*command, "run", "--rm", "train", "egs/TEMPLATE", "--list"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "/workspace/egs/TEMPLATE, experiment default" in done.stdout
