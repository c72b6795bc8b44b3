"""tools/install.sh where it cannot install: one line that says what to do, and nothing half done."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cosytune.layout import LOCK, ROOT

BASIC = ("bash", "dirname", "flock", "sha256sum", "cat", "ls", "sed", "env", "id")
PROGRAMS = ("sox", "ffmpeg", "g++", "git")


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A root with the installer and the lock; bin/ is a machine's whole PATH, without apt-get."""
    root = tmp_path / "a house"
    (root / "tools").mkdir(parents=True)
    shutil.copy(ROOT / "tools" / "install.sh", root / "tools")
    (root / LOCK.relative_to(ROOT)).parent.mkdir(exist_ok=True)
    shutil.copy(LOCK, root / LOCK.relative_to(ROOT))
    (root / "bin").mkdir()
    for name in (*BASIC, *PROGRAMS):
        (root / "bin" / name).symlink_to(str(shutil.which(name)))
    return root


def install(root: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHON"}
    environment |= {"PATH": str(root / "bin"), **variables}
    return subprocess.run([root / "tools" / "install.sh"], env=environment, capture_output=True, text=True)


def test_nothing_to_do_is_said(house: Path) -> None:
    (house / ".venv").symlink_to(ROOT / ".venv")
    result = install(house, PYTHON=sys.executable)
    assert result.returncode == 0, result.stderr
    assert result.stderr == f"install: {house}/.venv is as {LOCK.name} says\n"


def test_missing_programs_are_listed_all_at_once(house: Path) -> None:
    for name in ("sox", "ffmpeg"):
        (house / "bin" / name).unlink()
    result = install(house, PYTHON=sys.executable)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "sox libsox-fmt-all ffmpeg" in line
    assert not (house / ".venv").exists()


@pytest.mark.parametrize("version", ["3.12", None])
def test_no_suitable_python(house: Path, version: str | None) -> None:
    if version:
        (house / "bin" / "python3").write_text("#!/bin/sh\nexit 1\n")  # as 3.12 does when it is asked to be 3.11
        (house / "bin" / "python3").chmod(0o755)
    result = install(house)
    assert result.returncode == 1
    assert "python3.11" in result.stderr.splitlines()[-1]
    assert not (house / ".venv").exists()


def test_a_directory_of_the_users_own_is_left_alone(house: Path) -> None:
    (house / ".venv").mkdir()
    (house / ".venv" / "thesis.txt").write_text("mine")
    result = install(house, PYTHON=sys.executable)
    assert result.returncode == 1
    assert "not a virtual environment; move it away" in result.stderr
    assert (house / ".venv" / "thesis.txt").read_text() == "mine"


def test_a_lock_that_was_changed_calls_the_installer(house: Path) -> None:
    """run.sh must not go on with an environment that another lock made."""
    for name in ("run.sh", "path.sh", "tools/options.sh"):
        shutil.copy(ROOT / name, house / name)
    (house / ".venv").mkdir()
    (house / ".venv" / "pyvenv.cfg").touch()
    (house / ".venv" / "requirements.lock.sha256").write_text("of another lock\n")
    (house / "tools" / "install.sh").write_text("#!/bin/bash\necho 'error: installer was called' >&2\nexit 1\n")
    result = subprocess.run([house / "run.sh", "--list"], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == "error: installer was called\n"
