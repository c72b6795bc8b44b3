"""A launcher that hangs in a call without a limit ends, and says so; one that is alive goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from cosytune.layout import ROOT

HANGS = """
import ctypes, pathlib, sys, time
from cosytune.training.watchdog import Watchdog
cleaned = pathlib.Path(sys.argv[1])
watchdog = Watchdog(1.0, "nobody answers; go on", lambda: cleaned.write_text("yes"))
watchdog.start()
for _ in range(30):  # three times as long as it is patient
    watchdog.pat()
    time.sleep(0.1)
if sys.argv[2] == "stops":
    watchdog.stop()
    time.sleep(1.5)
    sys.exit(7)
ctypes.CDLL(None).sem_wait(ctypes.create_string_buffer(32))  # a call that python answers no signal in
"""


def run(cleaned: Path, how: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", HANGS, str(cleaned), how]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tools")}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


def test_a_call_that_never_returns_ends_the_process_in_a_line(tmp_path: Path) -> None:
    started_s = time.monotonic()
    ended = run(tmp_path / "cleaned", "hangs")
    assert ended.returncode == 1
    assert ended.stderr == "error: nobody answers; go on\n"
    assert (tmp_path / "cleaned").exists()
    assert time.monotonic() - started_s >= 3, "it was patted for so long"


def test_who_has_stopped_it_is_left_alone(tmp_path: Path) -> None:
    ended = run(tmp_path / "cleaned", "stops")
    assert (ended.returncode, ended.stderr) == (7, "")
    assert not (tmp_path / "cleaned").exists()
