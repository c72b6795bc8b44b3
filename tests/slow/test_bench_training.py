"""The training bench runs, on the random model."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from cosytune.layout import ROOT


@pytest.mark.slow
def test_the_script_measures_each_side() -> None:
    """In a process of its own: it forks before anything was trained. Upstream reads each clip once for each worker."""
    script = ROOT / "tests" / "bench" / "compare_training.py"
    size = ["--base", "random", "--modules", "llm", "--llm_clips", "4", "--llm_frames", "300"]
    command = [sys.executable, str(script), *size, "--rounds", "1", "--threads", "1"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    rows = dict(re.findall(r"^\| ([^|]+) \|(.*)\|$", run.stdout, re.MULTILINE))
    served = [float(cell) for cell in rows["clips served / unique"].split("|")[:3]]
    assert served == [2.0, 1.0, 1.0]
    shipped, _, saved = (cell.split("(")[0] for cell in rows["checkpoint, MB"].split("|")[:3])
    assert float(shipped) > 5 * float(saved) > 0
