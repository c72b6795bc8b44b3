"""Files that are whole or not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cosytune import files
from cosytune.layout import ROOT


def test_a_failing_block_leaves_the_former_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "llm.pt"
    path.write_text("former")
    with pytest.raises(ZeroDivisionError), files.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "former"
    assert list(tmp_path.iterdir()) == [path]


def test_the_destination_changes_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "花子's.json"
    with files.atomic_path(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == path.parent
        assert temporary.suffix == path.suffix
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_the_result_is_readable_like_any_other_file(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        files.write_text(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_a_killed_writer_leaves_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    files.write_json(path, {"update": 1})
    script = (
        "import os, signal, sys; from pathlib import Path; from cosytune import files\n"
        "with files.atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, str(path)], env={**os.environ, "PYTHONPATH": str(ROOT / "tools")}, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert files.read_json(path) == {"update": 1}
    assert len(list(tmp_path.iterdir())) == 2
    write = "import sys; from pathlib import Path; from cosytune import files; files.write_json(Path(sys.argv[1]), 3)"
    subprocess.run(
        [sys.executable, "-c", write, str(tmp_path / "other.json")],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tools")},
        check=True,
    )
    assert {found.name for found in tmp_path.iterdir()} == {"state.json", "other.json"}, "what was half written is gone"


def test_what_another_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from cosytune import files\n"
        "with files.atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('whole'); print('half', flush=True); sys.stdin.readline()"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "theirs.json")],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tools")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "half\n"
    files.write_text(tmp_path / "ours.json", "ours")
    writer.communicate("\n")
    assert writer.returncode == 0
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"theirs.json": "whole", "ours.json": "ours"}


def test_json_is_readable_by_people(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"z": "花子", "a": [1]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "z": "花子",\n  "a": [\n    1\n  ]\n}\n'


def test_one_value_gives_the_same_torch_bytes_under_any_name(tmp_path: Path) -> None:
    import torch

    value = {"花子": torch.arange(4.0), "list": [1.0, 2.0]}
    files.write_torch(tmp_path / "a.pt", value)
    files.write_torch(tmp_path / "other name.pt", value)
    assert files.sha256(tmp_path / "a.pt") == files.sha256(tmp_path / "other name.pt")
    read = files.read_torch(tmp_path / "a.pt")
    assert torch.equal(read["花子"], value["花子"])
    assert read["list"] == value["list"]


def test_sha256_of_a_file_larger_than_one_block(tmp_path: Path) -> None:
    (tmp_path / "zeros").write_bytes(bytes((1 << 20) + 1))
    expected = subprocess.run(["sha256sum", tmp_path / "zeros"], capture_output=True, text=True, check=True)
    assert files.sha256(tmp_path / "zeros") == expected.stdout.split()[0]
