"""What every stage does around its work, seen on a small stage of the test's own, run as a program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cosytune import config as configs
from cosytune.layout import ROOT

# Copies audio/*.txt into parquet/, as stage 3 would be recorded; $SABOTAGE breaks it half-way.
STAGE = """
import errno, os, time
from cosytune import files
from cosytune.errors import UserError
from cosytune.stages.runner import need, run_stage

def work(context):
    print("again" if context.again else "goes on")
    for path in inputs(context):
        with files.atomic_path(context.layout.parquet / path.name) as temporary:
            temporary.write_bytes(path.read_bytes())
            if os.environ.get("SABOTAGE") == "error":
                raise UserError(f"{path.name}: broken; mend it")
            if os.environ.get("SABOTAGE") == "bug":
                raise ZeroDivisionError
            if os.environ.get("SABOTAGE") == "fork":
                raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
            if os.environ.get("SABOTAGE") == "wait":
                print("waiting", flush=True)
                for _ in range(1200):  # a signal that comes just before a long sleep would be seen at its end
                    time.sleep(0.05)

def inputs(context):
    return sorted(need(context.layout.audio, "prepare").glob("*.txt"))

run_stage("pack", work, inputs, lambda context: sorted(context.layout.parquet.glob("*.txt")))
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "花子's voice"
    (path / "audio").mkdir(parents=True)
    (path / "conf.yaml").write_text("base: random\n")
    (path / "audio" / "a.txt").write_text("a")
    return path


def stage(recipe: Path, *arguments: str, sabotage: str = "", seed: int = 1) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(recipe, *arguments, seed=seed), env=environment(sabotage), capture_output=True, text=True
    )


def command(recipe: Path, *arguments: str, seed: int = 1) -> list[str]:
    config = configs.freeze(recipe, "default", [f"seed={seed}"], -1, 7)
    return [sys.executable, "-c", STAGE, str(config), *arguments]


def environment(sabotage: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "tools"), "SABOTAGE": sabotage}


def test_a_second_run_does_nothing_and_says_so(recipe: Path) -> None:
    assert "done in" in stage(recipe).stdout
    assert stage(recipe).stdout == "stage 3 (pack): nothing to do, nothing changed\n"


def test_a_changed_input_setting_or_output_is_redone_and_the_reason_said(recipe: Path) -> None:
    stage(recipe)
    (recipe / "audio" / "b.txt").write_text("b")
    assert "again, audio/b.txt is new" in stage(recipe).stdout
    (recipe / "parquet" / "b.txt").unlink()
    assert "again, parquet/b.txt is gone" in stage(recipe).stdout
    assert (recipe / "parquet" / "b.txt").read_text() == "b"
    assert "again, seed was 1, is 2" in stage(recipe, seed=2).stdout


def test_a_named_finished_stage_starts_over(recipe: Path) -> None:
    stage(recipe)
    output = stage(recipe, "--again").stdout
    assert "again, asked for" in output
    assert "again\n" in output


@pytest.mark.parametrize("sabotage", ["error", "bug"])
def test_a_failed_stage_is_not_done_and_goes_on_when_named(recipe: Path, sabotage: str) -> None:
    stage(recipe)
    failed = stage(recipe, "--again", sabotage=sabotage)
    assert failed.returncode == 1
    assert ("Traceback" in failed.stderr) == (sabotage == "bug")
    assert "goes on\n" in stage(recipe, "--again").stdout
    assert "nothing to do" in stage(recipe).stdout


def test_a_later_stage_does_not_read_what_a_dead_one_left_half_done(recipe: Path) -> None:
    stage(recipe)
    stage(recipe, "--again", sabotage="bug")
    config = configs.freeze(recipe, "default", [], 4, 4)
    listing = [sys.executable, "-m", "cosytune.stages", str(recipe)]
    listed = subprocess.run(listing, env=environment(""), capture_output=True, text=True, check=True)
    assert "  3  pack      begun  " in listed.stdout
    later = [sys.executable, "-m", "cosytune.stages.train", str(config)]
    refused = subprocess.run(later, env=environment(""), capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr.endswith("stage 3 (pack) has begun and not finished; run it first: --stage 3\n")
    stage(recipe)
    refused = subprocess.run(later, env=environment(""), capture_output=True, text=True)
    assert "stage 3 (pack) has begun" not in refused.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_is_no_traceback(unbuffered: str) -> None:
    program = "from cosytune.errors import run_main; run_main(lambda: print('x'))"
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        left = subprocess.run(
            [sys.executable, "-c", program],
            env={**environment(""), "PYTHONUNBUFFERED": unbuffered},
            stdout=write_end,
            stderr=subprocess.PIPE,
        )
    finally:
        os.close(write_end)
    assert (left.returncode, left.stderr) == (141, b"")


def test_a_user_error_is_one_line(recipe: Path) -> None:
    assert stage(recipe, sabotage="error").stderr == "error: a.txt: broken; mend it\n"


def test_a_missing_input_names_the_stage_that_makes_it(recipe: Path) -> None:
    (recipe / "audio" / "a.txt").unlink()
    (recipe / "audio").rmdir()
    failed = stage(recipe)
    assert failed.returncode == 1
    assert "run stage 0 (prepare) first: --stage 0" in failed.stderr


@pytest.mark.parametrize(
    ("sent", "status", "word"), [(signal.SIGTERM, 143, "stopped"), (signal.SIGINT, 130, "interrupted")]
)
def test_a_stopped_stage_leaves_nothing_half_done(recipe: Path, sent: signal.Signals, status: int, word: str) -> None:
    hears = ("env", "--default-signal=INT")  # a job in the background ignores Ctrl-C, and so do its children
    with subprocess.Popen(
        [*hears, *command(recipe)], env=environment("wait"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        while process.stdout.readline() != "waiting\n":
            pass
        process.send_signal(sent)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == status
    assert errors.splitlines()[-1] == word
    assert list((recipe / "parquet").iterdir()) == []
    assert "nothing to do" not in stage(recipe).stdout


def test_two_runs_on_one_recipe_do_not_mix(recipe: Path) -> None:
    again = command(recipe)
    with subprocess.Popen(command(recipe), env=environment("wait"), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while process.stdout.readline() != "waiting\n":
            pass
        second = subprocess.run(again, env=environment(""), capture_output=True, text=True)
        process.kill()
    assert second.returncode == 1
    assert second.stderr == f"error: {recipe / 'data'}: another run is at work there; wait for it, or stop it\n"
    assert "done in" in stage(recipe).stdout  # a killed run blocks nobody


def test_a_lack_of_processes_is_not_taken_for_another_run(recipe: Path) -> None:
    failed = stage(recipe, sabotage="fork")
    assert failed.returncode == 1
    assert "BlockingIOError" in failed.stderr and "another run" not in failed.stderr
