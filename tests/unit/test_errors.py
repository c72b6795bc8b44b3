"""A disk that refuses: one line that names what is really in the way, and the remedy for that."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cosytune.layout import ROOT

# root passes permission bits unless it gives that right away
AS_A_USER = (
    ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")
    if os.geteuid() == 0
    else ()
)


def said(work: str, cwd: Path, output: int | None = None, before: tuple[str, ...] = AS_A_USER) -> str:
    """The one line on stderr of a program that ends in a mistake at `work`."""
    program = f"import os, resource, sys, tempfile; from cosytune import files; from pathlib import Path\n{work}"
    lines = "\n".join(f"    {line}" for line in program.splitlines())
    code = f"from cosytune.errors import run_main\ndef main():\n{lines}\nrun_main(main)"
    done = subprocess.run(
        [*before, sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tools")},
        cwd=cwd,
        stdout=output or subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    return line.replace(f"{cwd}/", "")  # tempfile makes names absolute


@pytest.mark.parametrize(
    "work",
    [
        "files.write_text(Path('data/wav.scp'), 'x')",
        "tempfile.mkdtemp(dir='data', prefix='.prepare-')",
        "Path('data/a/b').mkdir(parents=True)",
        "Path('data/there').unlink()",
        "Path('data/there').replace('data/elsewhere')",
    ],
)
def test_a_directory_that_takes_nothing_is_named_and_no_temporary_file(tmp_path: Path, work: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "there").touch()
    data.chmod(0o555)
    line = said(work, tmp_path)
    data.chmod(0o755)
    assert line == "error: data: permission denied; make it writable (chmod u+w) or use another directory"


def test_a_file_that_may_not_be_read_and_one_that_may_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch(mode=0o200)
    (tmp_path / "b.txt").touch(mode=0o400)
    assert said("open('a.txt').read()", tmp_path) == ("error: a.txt: permission denied; make it readable (chmod u+r)")
    assert said("open('b.txt', 'w')", tmp_path) == (
        "error: b.txt: permission denied; make it writable (chmod u+w) or use another directory"
    )


@pytest.mark.parametrize(("mode", "work"), [(0o600, "open('data/a.txt')"), (0o300, "os.listdir('data')")])
def test_a_directory_that_may_not_be_entered_or_listed(tmp_path: Path, mode: int, work: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").touch()
    (tmp_path / "data").chmod(mode)
    line = said(work, tmp_path)
    (tmp_path / "data").chmod(0o755)
    assert line == "error: data: permission denied; make it readable (chmod u+rx)"


def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    work = "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
    line = said(work + "files.write_bytes(Path('b'), bytes(5000))", tmp_path)
    assert line == (
        f"error: {tmp_path}: a file is larger than the limit of this shell or disk; raise it (ulimit -f unlimited) and "
        "run the same command again"
    )


def test_a_full_disk_behind_the_output(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        line = said("print('x')", tmp_path, full.fileno())
    assert line == (
        "error: output: no disk space left; free some, or move the recipe to a larger disk, and run the same "
        "command again"
    )


def test_a_full_disk_is_named_where_write_names_no_file(tmp_path: Path) -> None:
    """A small disk, in a name space of its own: nobody else sees it, and it goes with the program."""
    (tmp_path / "data").mkdir()
    in_it = ("unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=256k none data && exec "$@"', "sh")
    if subprocess.run([*in_it, "true"], cwd=tmp_path, capture_output=True).returncode != 0:
        pytest.skip("no disk can be mounted here")
    line = said("files.write_bytes(Path('data/big'), bytes(1 << 20))", tmp_path, before=in_it)
    assert line.startswith("error: data: no disk space left; free some")
