"""run.sh as a user meets it: mistakes on the command line, recipes by path, the way on after a failure, signals."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from cosytune.layout import LOCK, ROOT

SHELL_FILES = ("run.sh", "path.sh", "tools/options.sh", "tools/install.sh", LOCK.relative_to(ROOT))
HEARS_SIGNALS = ("env", "--default-signal=INT")  # a job in the background ignores Ctrl-C, and so do its children
STAGES = ("setup", "prepare", "embed", "tokenize", "pack", "train", "select", "export", "evaluate")

# A stage that says its name and arguments; the one named in $FAILS ends with status 70, that in $KILLED by SIGKILL.
STAGE = """
import os, sys
name = __spec__.name.rpartition(".")[2]
print(name, *sys.argv[2:], flush=True)
if os.environ.get("KILLED") == name:
    os.kill(os.getpid(), 9)
sys.exit(70 if os.environ.get("FAILS") == name else 0)
"""
CONFIG = """
import sys
print(sys.argv[-1])
"""
SLOW_STAGE = """
import signal, sys, time
def leave(number, frame):
    time.sleep(0.5)  # a last checkpoint
    print("saved", flush=True)
    sys.exit(90)
signal.signal(signal.SIGTERM, leave)
try:
    print("started", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    sys.exit(91)
"""


def run(
    *arguments: str, cwd: Path = ROOT, script: Path = ROOT / "run.sh", **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(script), *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A root with the real shell files and small stages of its own, to see what the shell alone does."""
    root = tmp_path / "a house"
    stages = root / "tools" / "cosytune" / "stages"
    stages.mkdir(parents=True)
    for name in SHELL_FILES:
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    (root / ".venv").symlink_to(ROOT / ".venv")
    for name in STAGES:
        (stages / f"{name}.py").write_text(STAGE)
    (stages.parent / "config.py").write_text(CONFIG)
    return root


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--stage", "--stage needs a value"),
        ("--exp --stage 3", "--exp needs a value"),
        ("--stage four", "'four' is no stage; the stages are the numbers -1 to 7"),
        ("--stage 08", "'08' is no stage"),
        ("--stage 1.5", "'1.5' is no stage"),
        ("--stop_stage 1x", "'1x' is no stage"),
        ("--stage 6 --stop_stage 3", "no stage lies from --stage 6 to --stop_stage 3"),
        ("--stage 12", "no stage lies from --stage 12 to --stop_stage 7"),
        ("--stage 8 --stop_stage 8", "no stage lies from --stage 8 to --stop_stage 8"),
        ("--stop_stage -2", "no stage lies from --stage -1 to --stop_stage -2"),
        ("--stge 3", "unknown option '--stge'"),
        ("--stage=3", "unknown option '--stage=3'"),
        ("-n 3", "unknown option '-n'"),
        ("egs/demo egs/other", "two recipes, 'egs/demo' and 'egs/other'"),
        ("egs/demo seed", "a setting is key=value"),
        ("egs/demo =3", "'=3' names no key; a setting is key=value"),
        ("egs/nobody", "egs/nobody: no recipe there"),
        ("--exp ../other", "--exp '../other': not a directory's name"),
        ("seed", "seed: no recipe there"),
        ("bas=tiny", "unknown key 'bas'; did you mean 'base'?"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments: str, says: str) -> None:
    result = run(*arguments.split())
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert says in line


def test_help_shows_every_option_and_needs_no_environment(house: Path) -> None:
    (house / ".venv").unlink()
    result = run("--help", script=house / "run.sh")
    assert result.returncode == 0
    assert result.stderr == ""
    for option in ("--stage N", "--stop_stage M", "--exp NAME", "--list", "key=value"):
        assert option in result.stdout
    assert "set -e" not in result.stdout


def test_list_shows_every_stage_and_what_is_done() -> None:
    result = run("egs/demo", "--list", "--exp", "never_run")
    lines = result.stdout.splitlines()[1:]
    assert [line.split()[:2] for line in lines] == [[str(i), name] for i, name in enumerate(STAGES, start=-1)]
    assert "to do" in lines[-1]


def test_stages_run_in_order_each_once(house: Path) -> None:
    result = run(script=house / "run.sh")
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == list(STAGES)


def test_a_named_stage_is_told_to_run_again(house: Path) -> None:
    result = run("--stage", "3", "--stop_stage", "4", script=house / "run.sh")
    assert result.stdout.splitlines() == ["pack --again", "train --again"]


def test_the_last_stage_may_be_named_generously(house: Path) -> None:
    assert run("--stage", "7", "--stop_stage", "99", script=house / "run.sh").stdout.split() == ["evaluate", "--again"]


def test_a_failing_stage_stops_the_run_and_says_how_to_go_on(house: Path) -> None:
    arguments = ["egs/山田 'taro'", "--stop_stage", "5", "--exp", "my try", "description=a b", "base=random"]
    result = run(*arguments, cwd=house, script=house / "run.sh", FAILS="train")
    assert result.returncode == 70
    assert result.stdout.split()[-1] == "train"
    message, _, command = result.stderr.strip().partition("mend it and go on with: ")
    assert message == "stage 4 (train) failed with status 70; "
    assert shlex.split(command) == ["./run.sh", arguments[0], "--stage", "4", *arguments[1:]]


def test_a_killed_stage_is_no_riddle(house: Path) -> None:
    result = run("--stop_stage", "4", script=house / "run.sh", KILLED="train")
    assert result.returncode == 137
    said = result.stderr.splitlines()[-1]
    assert said.startswith("stage 4 (train) was killed by SIGKILL, most likely for lack of memory; free some and go on")


def test_the_way_on_is_a_command_that_works_from_where_the_user_is(house: Path, tmp_path: Path) -> None:
    failed = run(cwd=tmp_path, script=house / "run.sh", FAILS="select")
    command = shlex.split(failed.stderr.partition("go on with: ")[2])
    assert command[0] == str(house / "run.sh")
    assert subprocess.run(command, cwd=tmp_path, stdin=subprocess.DEVNULL, check=False).returncode == 0


@pytest.mark.parametrize(("sent", "expected"), [(signal.SIGTERM, 90), (signal.SIGINT, 91)])
def test_a_signal_reaches_the_stage_and_its_status_comes_back(house: Path, sent: signal.Signals, expected: int) -> None:
    (house / "tools/cosytune/stages/train.py").write_text(SLOW_STAGE)
    command = [*HEARS_SIGNALS, str(house / "run.sh"), "--stage", "4"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.send_signal(sent)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == expected
    assert f"was stopped, status {expected}; go on with:" in errors
    assert ("saved" in output) == (sent == signal.SIGTERM)


def test_ctrl_c_in_a_terminal_interrupts_the_stage_once(house: Path) -> None:
    """The terminal sends SIGINT to the foreground group, and a shell without job control hides it from its stages."""
    (house / "tools/cosytune/stages/train.py").write_text(SLOW_STAGE)
    try:
        pid, terminal = os.forkpty()
    except OSError as failure:
        pytest.skip(f"no pseudo-terminals here: {failure}")
    if pid == 0:
        os.execvp("env", [*HEARS_SIGNALS, str(house / "run.sh"), "--stage", "4"])
    seen = b""
    while b"started" not in seen:
        seen += os.read(terminal, 1024)
    time.sleep(0.2)
    os.write(terminal, b"\x03")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 91
    os.close(terminal)


def test_recipes_are_found_from_here_and_from_the_root(tmp_path: Path) -> None:
    recipe = tmp_path / "egs" / "花子 san"
    recipe.mkdir(parents=True)
    (recipe / "conf.yaml").write_text("base: random\n")
    here = run("egs/花子 san", "--list", cwd=tmp_path)
    assert here.returncode == 0, here.stderr
    assert str(recipe) in here.stdout
    root = run("egs/demo", "--list", cwd=tmp_path)
    assert str(ROOT / "egs" / "demo") in root.stdout


def test_an_unknown_user_without_a_home_gets_caches_that_can_be_written(house: Path, tmp_path: Path) -> None:
    (house / "tools/cosytune/stages/setup.py").write_text(
        "import os\nfrom pathlib import Path\n"
        "for name in ('HOME', 'NUMBA_CACHE_DIR', 'MPLCONFIGDIR', 'TORCHINDUCTOR_CACHE_DIR', 'XDG_CACHE_HOME'):\n"
        "    Path(os.environ[name]).mkdir(parents=True, exist_ok=True)\n"
        "    print(os.environ[name])\n"
    )
    result = run("--stop_stage", "-1", script=house / "run.sh", HOME="/nowhere", TMPDIR=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert all(line.startswith(str(tmp_path)) for line in result.stdout.splitlines())
