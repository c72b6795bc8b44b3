"""kill -9 at random times, again and again, in stages 0 to 6 of a small recipe; the voice at the end is the same.

    . ./path.sh; python tests/slow/random_kills.py [--kills 40] [--seed 1] [--dir DIRECTORY] [--minutes 30]

A script, not a test: `tests/run.sh` does not run it. A twin of the recipe (12 demo clips, the random base) runs
once to its end, and tells how long each stage takes. The recipe itself is started with the command that a user types,
`./run.sh RECIPE --stop_stage 6`, in rounds of seven kills. Each kill waits for the title of a stage, chosen at random,
and after a random part of the stage's time ends every process of the run by SIGKILL; the same command goes on from
there. After the last kill of a round it comes to its end, and the whole recipe is compared with the twin, byte by byte.

Prints a table in markdown; exit status 1 where something differs. With --dir this script, too, goes on after a kill.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import kills
from cosytune.layout import ROOT

STAGES = range(7)
CLIPS = 12
NAME = "話者 'kill'"
SETTINGS = """\
language: ja
base: random
device: cpu
train:
  llm: {num_train_epochs: 4, learning_rate: 3e-3, save_steps: 2}
  flow: {num_train_epochs: 3, learning_rate: 2e-3, save_steps: 1}
"""
_BEGINS = re.compile(r"^stage (\d) \(\w+\): (?!nothing to do|done in)", re.MULTILINE)
_DONE = re.compile(r"^stage (\d) \(\w+\): done in ([\d.]+) s", re.MULTILINE)
_PATIENCE_S = 600
_KILLS_A_ROUND = 7


@dataclass(frozen=True)
class Work:
    """A directory with the twin, the recipe that is killed, the clips of both, and what has happened so far."""

    place: Path

    @property
    def twin(self) -> Path:
        return self.place / "twin" / NAME

    @property
    def recipe(self) -> Path:
        return self.place / "killed" / NAME

    @property
    def journal(self) -> Path:
        return self.place / "kills.jsonl"

    def events(self) -> list[dict[str, Any]]:
        lines = self.journal.read_text(encoding="utf-8").splitlines() if self.journal.is_file() else []
        return [json.loads(line) for line in lines]

    def kills(self) -> list[dict[str, Any]]:
        return [event for event in self.events() if "kill" in event]

    def stages_to_kill(self) -> list[int]:
        """Of this round."""
        events = self.events()
        begins = [number for number, event in enumerate(events) if "stages" in event]
        if not begins:
            return []
        stages: list[int] = events[begins[-1]]["stages"]
        return stages[sum("kill" in event for event in events[begins[-1] :]) :]

    def note(self, **event: Any) -> None:
        with self.journal.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(event) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dir", type=Path, help="where all of it lies, and stays (default: a temporary directory)")
    parser.add_argument("--minutes", type=float, default=30.0, help="no kill is begun after that time")
    arguments = parser.parse_args()
    until_s = time.monotonic() + 60 * arguments.minutes
    with tempfile.TemporaryDirectory(prefix="kills-") as temporary:
        work = Work((arguments.dir or Path(temporary)).absolute())
        work.place.mkdir(parents=True, exist_ok=True)
        expected_s = _twin(work)
        while len(work.kills()) < arguments.kills and time.monotonic() < until_s:
            draws = random.Random(f"{arguments.seed} {len(work.events())}")
            if not work.stages_to_kill() or _done(work) == STAGES[-1]:
                _finish(work)
                _begin_round(work, draws)
            else:
                _kill(work, expected_s, draws)
        _finish(work)
        return _report(work, arguments.kills)


def _twin(work: Work) -> dict[int, float]:
    """Run the twin to its end, if that was not done yet; seconds of each stage."""
    for event in work.events():
        if "expected_s" in event:
            return {int(stage): seconds for stage, seconds in event["expected_s"].items()}
    _make(work, work.twin)
    output = _run_to_the_end(work, work.twin)
    expected_s = {int(stage): float(seconds) for stage, seconds in _DONE.findall(output) if int(stage) in STAGES}
    work.note(expected_s=expected_s)
    return expected_s


def _begin_round(work: Work, draws: random.Random) -> None:
    """A fresh recipe, and the stages in which it will be killed: each of them is as likely."""
    _make(work, work.recipe)
    work.note(stages=sorted(draws.choices(STAGES, k=_KILLS_A_ROUND)))


def _make(work: Work, recipe: Path) -> None:
    clips = work.place / "clips"
    if not clips.exists():
        made = work.place / "made"
        subprocess.run([sys.executable, ROOT / "egs" / "demo" / "local" / "make_audio.py", made], check=True)
        for path in sorted(made.iterdir())[2 * CLIPS :]:  # a wav and a txt each
            path.unlink()
        made.rename(clips)
    coming, going = work.place / "coming", work.place / "going"
    for left in (coming, going):
        shutil.rmtree(left, ignore_errors=True)
    shutil.copytree(clips, coming / NAME / "audio")
    (coming / NAME / "conf.yaml").write_text(SETTINGS, encoding="utf-8")
    if recipe.parent.exists():
        recipe.parent.rename(going)
    coming.rename(recipe.parent)


def _kill(work: Work, expected_s: dict[int, float], draws: random.Random) -> None:
    """One kill in the stage that is next in this round, or in a later one where that has ended already."""
    stage = max(work.stages_to_kill()[0], _done(work) + 1)
    after_s = round(draws.uniform(0.0, expected_s[stage]), 3)
    log = work.place / "run.log"
    started = kills.start(_command(work.recipe), log)
    try:
        begun_s = _wait_for(stage, log, started)
        time.sleep(max(0.0, begun_s + after_s - time.monotonic()))
    finally:
        kills.kill(started)
    output = log.read_text()
    if started.returncode == -signal.SIGKILL:
        at_work = _BEGINS.findall(output)[-1]
        between = at_work in dict(_DONE.findall(output))
        work.note(kill=len(work.kills()) + 1, aimed_at=stage, after_s=after_s, stage=int(at_work), between=between)
        print(work.events()[-1], flush=True)
    elif started.returncode != 0:
        raise SystemExit(f"the run failed with status {started.returncode}:\n{output}")


def _wait_for(stage: int, log: Path, started: subprocess.Popen[bytes]) -> float:
    """The moment at which the stage's title came."""
    deadline_s = time.monotonic() + _PATIENCE_S
    while str(stage) not in _BEGINS.findall(log.read_text(errors="replace")):
        if started.poll() is not None or time.monotonic() > deadline_s:
            raise SystemExit(f"stage {stage} has not begun:\n{log.read_text()}")
        time.sleep(0.005)
    return time.monotonic()


def _finish(work: Work) -> None:
    """Lead the recipe to its end, and compare it with its twin."""
    if not work.recipe.exists():
        return  # before the first round
    _run_to_the_end(work, work.recipe)
    ours, theirs = kills.contents(work.recipe), kills.contents(work.twin)
    work.note(compared=len(theirs), differs=kills.differences(ours, theirs))


def _run_to_the_end(work: Work, recipe: Path) -> str:
    log = work.place / "whole.log"
    started = kills.start(_command(recipe), log)
    try:
        status = started.wait(_PATIENCE_S)
    finally:
        kills.kill(started)
    if status != 0:
        raise SystemExit(f"{recipe}: the run failed with status {status}:\n{log.read_text()}")
    return log.read_text()


def _command(recipe: Path) -> list[str | Path]:
    return [ROOT / "run.sh", recipe, "--stop_stage", "6"]


def _done(work: Work) -> int:
    """The last stage that is finished; -1 before the first."""
    from cosytune.layout import Layout
    from cosytune.record import Record
    from cosytune.stages import STAGES as ALL

    layout = Layout(work.recipe)
    return max([one.number for one in ALL if one.number in STAGES and Record.read(layout, one)], default=-1)


def _report(work: Work, wanted: int) -> int:
    killed, compared = work.kills(), [event for event in work.events() if "compared" in event]
    wrong = sorted({name for event in compared for name in event["differs"]})
    print("\n| stage | killed at work | after it, before the next |\n|---|---|---|")
    for stage in STAGES:
        counts = Counter(event["between"] for event in killed if event["stage"] == stage)
        print(f"| {stage} | {counts[False]} | {counts[True]} |")
    sizes = ", ".join(str(event["compared"]) for event in compared)
    print(f"\n{len(killed)} kills. {len(compared)} times the recipe came to its end and was compared with the twin:")
    print(f"{sizes} files and directories; " + (f"{len(wrong)} differ: {', '.join(wrong)}" if wrong else "all equal"))
    if len(killed) < wanted:
        print(f"the time was up before {wanted} kills")
    return 1 if wrong or len(killed) < wanted else 0


if __name__ == "__main__":
    sys.exit(main())
