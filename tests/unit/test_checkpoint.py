"""Checkpoints: whole or not there, verified by hash, and a full disk that costs nothing but the new one."""

from __future__ import annotations

import math
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cosytune import files
from cosytune.layout import ROOT
from cosytune.training import checkpoint
from cosytune.training.checkpoint import Checkpoint

CONTENTS = {"adapter_model.safetensors": b"a" * 5000, "adapter_config.json": b"{}", "state.pt": b"s" * 9000}


def write(directory: Path, update: int, cv_loss: float = 1.0) -> Checkpoint:
    return checkpoint.write(directory, CONTENTS, update=update, epoch=update // 10, cv_loss=cv_loss, train_loss=2.0)


def test_what_was_written_is_found_in_order(tmp_path: Path) -> None:
    directory = tmp_path / "話者 1" / "llm"
    for update in (20, 10, 1000000):
        write(directory, update, cv_loss=update / 7)
    found = checkpoint.find(directory)
    assert [item.update for item in found] == [10, 20, 1000000]
    assert found[0] == Checkpoint(directory / "checkpoint-000010", 10, 1, 10 / 7, 2.0)
    assert {path.name for path in found[0].path.iterdir()} == {*CONTENTS, "manifest.json"}
    for name, data in CONTENTS.items():
        assert (found[0].path / name).read_bytes() == data
        assert files.read_json(found[0].path / "manifest.json")["files"][name] == files.sha256(found[0].path / name)
    assert [path.name for path in directory.iterdir() if path.name.startswith(".")] == []


def test_a_stop_within_an_epoch_has_no_cv_loss(tmp_path: Path) -> None:
    write(tmp_path, 7, cv_loss=math.nan)
    assert files.read_json(tmp_path / "checkpoint-000007" / "manifest.json")["cv_loss"] is None
    assert math.isnan(checkpoint.find(tmp_path)[0].cv_loss)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _edit(path: Path, **values: object) -> None:
    files.write_json(path, files.read_json(path) | values)


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda path: _flip(path / "adapter_model.safetensors"), "adapter_model.safetensors was changed"),
        (lambda path: (path / "state.pt").unlink(), "state.pt is missing"),
        (lambda path: (path / "manifest.json").unlink(), "incomplete"),
        (lambda path: (path / "manifest.json").write_text("{"), "manifest.json is damaged"),
        (lambda path: (path / "manifest.json").write_text('{"files": {}}'), "manifest.json is damaged"),
        (lambda path: _edit(path / "manifest.json", files={}), "manifest.json is damaged"),
        (lambda path: _edit(path / "manifest.json", files=[1]), "manifest.json is damaged"),
        (lambda path: _edit(path / "manifest.json", cv_loss="low"), "manifest.json is damaged"),
    ],
)
def test_a_damaged_one_is_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil, fault) -> None:
    write(tmp_path, 10)
    spoil(write(tmp_path, 20).path)
    assert [item.update for item in checkpoint.find(tmp_path)] == [10]
    said = capsys.readouterr().out
    assert f"checkpoint-000020: {fault}" in said
    write(tmp_path, 20)  # training goes on from 10 and comes to 20 again
    assert [item.update for item in checkpoint.find(tmp_path)] == [10, 20]
    assert (tmp_path / "checkpoint-000020.damaged-1").is_dir(), "the damaged one is kept, out of the way"


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    for update in (10, 20, 30, 40, 50):
        write(tmp_path, update)
    write(tmp_path, 55, cv_loss=math.nan)  # stopped within an epoch: not needed once the epoch has ended
    write(tmp_path, 60)
    kept = checkpoint.prune(tmp_path, newest=2, best_update=20)
    assert [item.update for item in kept] == [20, 50, 60]
    assert kept == checkpoint.find(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [item.path.name for item in kept]


def test_the_last_one_stays_without_a_loss_too(tmp_path: Path) -> None:
    """An epoch that ended with an infinite loss: a run that is killed now must go on from here."""
    write(tmp_path, 10)
    write(tmp_path, 20, cv_loss=math.inf)
    assert [item.update for item in checkpoint.prune(tmp_path, newest=2, best_update=10)] == [10, 20]
    write(tmp_path, 30)
    assert [item.update for item in checkpoint.prune(tmp_path, newest=2, best_update=10)] == [10, 30]


def test_leftovers_of_a_killed_run_go(tmp_path: Path) -> None:
    half = tmp_path / ".checkpoint-000020.tmp"
    half.mkdir()
    (half / "state.pt").write_bytes(b"half")
    write(tmp_path, 10)
    assert not half.exists()


def test_a_run_that_dies_as_it_replaces_a_checkpoint_has_the_former_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only one so far, of a run that was stopped in its first evaluation: without it all would be lost."""
    write(tmp_path, 10, cv_loss=math.nan)
    rename = Path.rename

    def die(path: Path, target: Path) -> Path:
        if target.name == "checkpoint-000010":
            raise OSError("died")
        return rename(path, target)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="died"):
        patch.setattr(Path, "rename", die)
        write(tmp_path, 10)
    checkpoint.remove_leftovers(tmp_path)
    assert [item.update for item in checkpoint.find(tmp_path)] == [10]
    assert not math.isnan(write(tmp_path, 10).cv_loss)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000010"]


def test_a_write_that_fails_half_way_leaves_the_former_one(tmp_path: Path) -> None:
    """The limit on file sizes makes a real write fail in the middle, as a full disk does."""
    write(tmp_path, 10)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write(tmp_path, 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000010"]
    assert [item.update for item in checkpoint.find(tmp_path)] == [10]


_ON_A_FULL_DISK = """
import subprocess, sys
from pathlib import Path
from cosytune.training import checkpoint
disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
def write(update, size):
    checkpoint.write(disk, {"state.pt": bytes(size)}, update=update, epoch=1, cv_loss=1.0, train_loss=1.0)
write(10, 600_000)
for size in (700_000, 440_000):  # too large by what the disk says; and just fitting by that, but not with its manifest
    try:
        write(20, size)
    except Exception as failure:
        print(type(failure).__name__, failure)
print([item.path.name for item in checkpoint.find(disk)], sorted(path.name for path in disk.iterdir()))
"""


def _can_mount(directory: Path) -> bool:
    unshare = shutil.which("unshare")
    probe = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", directory]
    return unshare is not None and subprocess.run(probe, capture_output=True).returncode == 0


def test_a_full_disk_is_one_line_and_costs_no_checkpoint(tmp_path: Path) -> None:
    if not _can_mount(tmp_path):
        pytest.skip("this machine lets no user mount a file system of its own")
    run = subprocess.run(
        [*("unshare", "--user", "--map-root-user", "--mount"), sys.executable, "-c", _ON_A_FULL_DISK, tmp_path],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT / "tools"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    assert run.returncode == 0, run.stderr
    *failures, left = run.stdout.splitlines()
    assert failures[0].startswith("UserError no disk space left for the next checkpoint: needs 0.7 MB, 0.4 MB free at")
    assert len(failures) == 2
    assert failures[1].startswith("UserError no disk space left for the next checkpoint")
    assert left == "['checkpoint-000010'] ['checkpoint-000010']"


_WITHOUT_THE_RIGHT = """
import os
from pathlib import Path
from cosytune.errors import explain
from cosytune.training import checkpoint
if os.getuid() == 0:  # whom no mode of a directory stops
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    checkpoint.write(Path("llm"), {"state.pt": b"s"}, update=20, epoch=1, cv_loss=1.0, train_loss=1.0)
except OSError as failure:
    print(explain(failure))
print([item.path.name for item in checkpoint.find(Path("llm"))])
"""


def test_a_directory_that_may_not_be_written_is_one_line_and_costs_no_checkpoint(tmp_path: Path) -> None:
    write(tmp_path / "llm", 10)
    (tmp_path / "llm").chmod(0o555)
    tmp_path.chmod(0o755)
    run = subprocess.run(
        [sys.executable, "-c", _WITHOUT_THE_RIGHT],
        cwd=tmp_path,  # relative paths: the directories above it are for this test's user alone
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT / "tools")},
    )
    (tmp_path / "llm").chmod(0o755)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [
        "llm: permission denied; make it writable (chmod u+w) or use another directory",
        "['checkpoint-000010']",
    ]
    assert [path.name for path in (tmp_path / "llm").iterdir()] == ["checkpoint-000010"]


def test_the_command_lists_them_and_fails_for_a_damaged_one(tmp_path: Path) -> None:
    write(tmp_path, 10)
    write(tmp_path, 15, cv_loss=math.nan)
    command = [sys.executable, "-m", "cosytune.training.checkpoint", tmp_path]
    environment = {"PYTHONPATH": str(ROOT / "tools")}
    fine = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert fine.returncode == 0
    assert "update 10, epoch 1, cv loss 1.0000, train loss 2.0000" in fine.stdout
    assert "update 15, epoch 1, not evaluated, there to go on from" in fine.stdout
    _flip(tmp_path / "checkpoint-000010" / "state.pt")
    spoiled = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert spoiled.returncode == 1
    assert spoiled.stderr.startswith("error: ")
    assert "state.pt was changed" in spoiled.stderr


def test_the_command_says_where_there_are_none(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cosytune.training.checkpoint", tmp_path / "nowhere"]
    run = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT / "tools")})
    assert run.returncode == 1
    assert run.stderr == (
        f"error: {tmp_path / 'nowhere'}: no checkpoints there; they lie in exp/<name>/llm and exp/<name>/flow\n"
    )
