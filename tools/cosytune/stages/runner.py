"""What every stage has in common: read the frozen config, skip when nothing changed, run, record.

python -m cosytune.stages.pack egs/demo/exp/default/config.yaml [--again]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from cosytune import config as configs
from cosytune import locks
from cosytune.errors import UserError, run_main
from cosytune.layout import Layout
from cosytune.record import Record, capture, flatten
from cosytune.schema import Config
from cosytune.stages import STAGES, Stage


@dataclass(frozen=True)
class Context:
    """What a stage gets. `again`: the user named this finished stage, so it starts over even if nothing changed.

    A stage that was stopped on its way is not finished: named or not, it may go on from what it has.
    """

    config: Config
    layout: Layout
    again: bool


Paths = Iterable[Path]


def run_stage(
    name: str,
    work: Callable[[Context], None],
    inputs: Callable[[Context], Paths],
    outputs: Callable[[Context], Paths],
    answer: Callable[[Callable[[], int | None]], None] = run_main,
) -> None:
    """Run one stage as a program.

    `inputs` names the files whose change makes the stage run again; it raises a UserError that says which stage to
    run when one is missing. `outputs` names the files that the stage has written, once it has. `answer` runs it, and
    answers its errors.
    """
    answer(lambda: _run(_stage(name), work, inputs, outputs))


def need(path: Path, stage: str) -> Path:
    """`path`, or an error that says which stage makes it."""
    if path.exists():
        return path
    maker = _stage(stage)
    raise UserError(f"{path}: not there yet; run stage {maker.number} ({maker.name}) first: --stage {maker.number}")


def _run(
    stage: Stage,
    work: Callable[[Context], None],
    inputs: Callable[[Context], Paths],
    outputs: Callable[[Context], Paths],
) -> None:
    parser = argparse.ArgumentParser(prog=f"python -m cosytune.stages.{stage.name}", description=stage.summary)
    parser.add_argument("config", type=Path, help="exp/<name>/config.yaml, as run.sh froze it")
    parser.add_argument("--again", action="store_true", help="run even if nothing changed")
    arguments = parser.parse_args()
    config, layout = configs.load(arguments.config)
    with _alone(layout, stage):
        before = Record.read(layout, stage)
        context = Context(config, layout, again=arguments.again and before is not None)
        settings = flatten(config, stage.uses)
        _require_finished(layout, stage)
        read = sorted(inputs(context))
        title = f"stage {stage.number} ({stage.name})"
        if before is not None and not stage.always:
            reason = "asked for" if arguments.again else before.stale_reason(layout, settings, read)
            if reason is None:
                print(f"{title}: nothing to do, nothing changed")
                return
            print(f"{title}: again, {reason}")
        else:
            print(f"{title}: {stage.summary}")
        started_s = time.monotonic()
        Record.begin(layout, stage)  # from here on the outputs are not to be trusted
        states = capture(layout, read, before.inputs if before else None)
        work(context)
        Record(settings, states, capture(layout, outputs(context))).write(layout, stage)
        print(f"{title}: done in {time.monotonic() - started_s:.1f} s")


def _require_finished(layout: Layout, stage: Stage) -> None:
    """A stage that died on its way leaves data of two runs behind: a clip may be in both train and cv."""
    for earlier in STAGES:
        makes_data = earlier.is_shared and not earlier.always
        if earlier.number < stage.number and makes_data and Record.has_begun(layout, earlier):
            number = earlier.number
            raise UserError(
                f"{layout.recipe}: stage {number} ({earlier.name}) has begun and not finished; run it first: "
                f"--stage {number}"
            )


def _alone(layout: Layout, stage: Stage) -> AbstractContextManager[None]:
    """One run at a time where the stage writes: two terminals on one recipe would mix their outputs."""
    place = Record.path(layout, stage).parent
    return locks.nobody_else(place.parent, place)


def _stage(name: str) -> Stage:
    return next(stage for stage in STAGES if stage.name == name)
