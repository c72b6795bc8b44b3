"""Several programs at once, as real processes: signals, failures, kills, and that nobody is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from cosytune.errors import UserError
from cosytune.layout import ROOT
from cosytune.training import launch, signals
from cosytune.training.launch import Program

PREPARED = """
import os, signal, sys, time
from cosytune.training import signals
from cosytune.training.launch import Launcher
signal.alarm(60)  # whatever a test forgets
launcher = Launcher.join()
signals.leave_at_once(quiet=True)
here = sys.argv[1]
def say(name):
    mine = os.path.join(here, f"{name}.{os.getpid()}")
    open(mine, "w").write(str(os.getpid()))
    os.rename(mine, os.path.join(here, name))
def wait_for(name):
    while not os.path.exists(os.path.join(here, name)):
        time.sleep(0.01)
"""
TRAINS = """
with signals.listening() as stop:
    say(NAME)
    while not stop.received:
        time.sleep(0.01)
    say(NAME + ".saved")
sys.exit(signals.EXIT_STATUS[stop.received])
"""


@pytest.fixture(autouse=True)
def hears_hang_ups() -> Iterator[None]:
    """Under nohup a hang-up is ignored, by us and by what we start."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Program]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tools"))

    def make(name: str, code: str = TRAINS, team: str = "llm", log: Path | None = None) -> Program:
        text = f"{PREPARED}NAME = {name!r}\n{textwrap.dedent(code)}"
        return Program(name, team, [sys.executable, "-c", text, str(tmp_path)], log=log)

    return make


def when_there(paths: Sequence[Path], act: Callable[[], None]) -> None:
    """Do something in a thread as soon as all the files are there."""

    def wait() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if all(path.exists() for path in paths):
                act()
                return
            time.sleep(0.01)

    threading.Thread(target=wait, daemon=True).start()


def is_running(pid_file: Path) -> bool:
    return Path(f"/proc/{pid_file.read_text()}").exists()


def test_all_end_well(program: Callable[..., Program], tmp_path: Path) -> None:
    launch.run([program("one", "say('a')\nwait_for('b')"), program("two", "say('b')\nwait_for('a')")])
    assert (tmp_path / "a").exists(), "each waited for the other: they ran at the same time"


@pytest.mark.parametrize("sent", list(signals.EXIT_STATUS))
def test_a_signal_reaches_all_and_all_save(
    program: Callable[..., Program], tmp_path: Path, sent: signal.Signals
) -> None:
    when_there([tmp_path / "one", tmp_path / "two"], lambda: os.kill(os.getpid(), sent))
    with pytest.raises(signals.Stopped, match=f"stopped by {sent.name}; the same command") as stopped:
        launch.run([program("one"), program("two", team="flow")])
    assert stopped.value.exit_status == signals.EXIT_STATUS[sent]
    assert (tmp_path / "one.saved").exists()
    assert (tmp_path / "two.saved").exists()


def test_a_signal_to_one_rank_stops_all_of_them(program: Callable[..., Program], tmp_path: Path) -> None:
    paths = [tmp_path / "one", tmp_path / "two"]
    when_there(paths, lambda: os.kill(int(paths[1].read_text()), signal.SIGTERM))
    with pytest.raises(signals.Stopped) as stopped:
        launch.run([program("one"), program("two", team="flow")])
    assert stopped.value.exit_status == 75
    assert (tmp_path / "one.saved").exists()


def test_a_signal_before_a_program_listens_is_a_stop_too(program: Callable[..., Program], tmp_path: Path) -> None:
    when_there([tmp_path / "one"], lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(signals.Stopped):
        launch.run([program("one", "say(NAME)\ntime.sleep(60)")])


def test_the_rank_that_waits_for_a_stopped_one_is_ended(program: Callable[..., Program], tmp_path: Path) -> None:
    deaf = "with signals.listening():\n    say(NAME)\n    while True:\n        time.sleep(1)"
    when_there([tmp_path / "one", tmp_path / "two"], lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(signals.Stopped):
        launch.run([program("one"), program("two", deaf)])
    assert not is_running(tmp_path / "two")


def test_a_failure_while_stopping_is_no_stop(program: Callable[..., Program], tmp_path: Path) -> None:
    code = """
    with signals.listening() as stop:
        say(NAME)
        while not stop.received:
            time.sleep(0.01)
    launcher.report(["no disk space left"])
    sys.exit(1)
    """
    when_there([tmp_path / "one"], lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(UserError, match="no disk space left"):
        launch.run([program("one", code)])


def test_one_fails_the_other_is_stopped_and_saves(program: Callable[..., Program], tmp_path: Path) -> None:
    fails = "wait_for('two')\nlauncher.report(['flow: not enough', 'of it'])\nsys.exit(2)"
    with pytest.raises(UserError) as failure:
        launch.run([program("one", fails), program("two", team="flow")])
    assert failure.value.messages == ("flow: not enough", "of it")
    assert failure.value.exit_status == 2
    assert (tmp_path / "two.saved").exists()


def test_the_first_failure_counts_whoever_ends_first(program: Callable[..., Program]) -> None:
    cause = "launcher.report(['the cause'])\nsay('said')\nwait_for('gone')\ntime.sleep(0.3)\nsys.exit(1)"
    symptom = "wait_for('said')\nlauncher.report(['another process is gone'])\nsay('gone')\nsys.exit(1)"
    with pytest.raises(UserError, match=r"^the cause$"):
        launch.run([program("one", symptom), program("two", cause)])


def test_a_killed_rank_is_named_and_nobody_stays(program: Callable[..., Program], tmp_path: Path) -> None:
    paths = [tmp_path / "llm, rank 0", tmp_path / "llm, rank 1", tmp_path / "flow"]
    when_there(paths, lambda: os.kill(int(paths[1].read_text()), signal.SIGKILL))
    with pytest.raises(
        UserError, match=r"^llm, rank 1 was killed by SIGKILL, most likely for lack of memory; "
    ) as failure:
        launch.run([program("llm, rank 0"), program("llm, rank 1"), program("flow", team="flow")])
    assert failure.value.exit_status == 1
    assert not any(is_running(path) for path in paths)
    assert (tmp_path / "flow.saved").exists()


def test_a_crash_is_named(program: Callable[..., Program]) -> None:
    with pytest.raises(UserError, match=r"^one died of SIGSEGV; "):
        launch.run([program("one", "os.kill(os.getpid(), signal.SIGSEGV)")])


def test_a_traceback_of_another_rank_is_in_its_log(program: Callable[..., Program], tmp_path: Path) -> None:
    log = tmp_path / "rank1.log"
    code = "launcher.report([])\nraise RuntimeError('ours')"
    with pytest.raises(UserError, match=rf"^one failed with status 1; {log} says more$"):
        launch.run([program("one", code, log=log)])
    assert "RuntimeError: ours" in log.read_text()


def test_programs_end_with_the_stage_be_it_killed(program: Callable[..., Program], tmp_path: Path) -> None:
    one = program("one")
    stage = (
        "import sys\nfrom cosytune.training.launch import Program, run\n"
        f"run([Program('one', 'llm', {list(one.command)!r})])\n"
    )
    with subprocess.Popen([sys.executable, "-c", stage]) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "one").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
        process.wait()
        while is_running(tmp_path / "one") and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not is_running(tmp_path / "one")
        assert not (tmp_path / "one.saved").exists()


RANK = """
import torch, torch.distributed as dist
dist.init_process_group("gloo")
value = torch.tensor([float(dist.get_rank() + 1)])
dist.all_reduce(value)
say(f"{NAME}: {int(value)} of {dist.get_world_size()}")
"""


def test_ranks_find_each_other(program: Callable[..., Program], tmp_path: Path) -> None:
    with launch.meeting_point() as meeting:
        command = program("x", RANK).command
        launch.run(launch.ranks("llm", command, 2, 1, tmp_path, meeting))
    assert (tmp_path / "x: 3 of 2").exists()
    assert (tmp_path / "rank1.log").exists()


def test_a_signal_that_comes_twice_at_once_is_one_wish() -> None:
    with signals.listening() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
    assert stop.received == signal.SIGTERM


def test_a_later_second_signal_acts_as_everywhere() -> None:
    code = (
        "import os, signal, time\nfrom cosytune.training import signals\nsignals._ECHO_S = 0.05\n"
        "with signals.listening():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(0.1)\n    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], env=_environment()).returncode == -signal.SIGTERM


def test_a_forked_worker_leaves_the_answer_to_its_owner() -> None:
    code = (
        "import os, signal, sys\nfrom cosytune.training import signals\nsignals.leave_at_once()\n"
        "with signals.listening() as stop:\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        os._exit(7 if stop.received is None else 8)\n"
        "    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7\n"
        "pid = os.fork()\n"
        "if pid == 0:\n    os.kill(os.getpid(), signal.SIGTERM)\n    os._exit(9)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], env=_environment()).returncode == 9


def test_nohup_is_respected() -> None:
    code = (
        "import os, signal, sys\nfrom cosytune.training import signals\nsignals.leave_at_once()\n"
        "with signals.listening() as stop:\n    os.kill(os.getpid(), signal.SIGHUP)\n"
        "sys.exit(3 if stop.received is None else 4)\n"
    )
    ignores = ["env", "--ignore-signal=HUP", sys.executable, "-c", code]
    assert subprocess.run(ignores, env=_environment()).returncode == 3


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "tools")}
