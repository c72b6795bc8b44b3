"""Programs that train side by side -> one end: all of them well, stopped by a signal, or the first failure of any.

What torchrun's agent does for the ranks of one module, this does for the ranks of both, in the stage's own process. So
a signal reaches each rank once, its exit status is known, and the error that the user sees is the one that came first.
A rank finds what torchrun would have given it in its environment, and a stage that torchrun itself has started leaves
everything here alone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from cosytune.errors import UserError
from cosytune.training import signals

_REPORT = "COSYTUNE_REPORT"
"""<the stage's process id>:<a file descriptor>, where a launched program writes why it failed."""
_LOOK_S = 0.05
_FELLOWS_S = 5.0
"""For the other ranks of a module when one of them has ended too early: they can train no further."""
_GRACE_S = 25.0
"""For the other module, to write its checkpoint."""


@dataclass(frozen=True)
class Program:
    """One rank of one module. `label`: its name in messages. `team`: the module, whose ranks need each other. `log`:
    where its output goes, if not to the terminal.
    """

    label: str
    team: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    log: Path | None = None


def run(programs: Sequence[Program]) -> None:
    """Start all of them and wait until all have ended.

    SIGTERM, SIGINT and SIGHUP are passed on; when one program fails the others are stopped by SIGTERM. Nobody is left
    behind, whatever happens. Raises signals.Stopped after a signal, UserError with the words of the first failure.
    """
    with ExitStack() as stack:
        stop = stack.enter_context(signals.listening())
        children: list[_Child] = []
        stack.callback(_end, children)
        for program in programs:
            children.append(_Child.start(program, stack))
        failure = _watch(children, stop)
        if failure is not None:
            raise failure
        if stop.received:
            raise signals.Stopped(stop.received)


@contextmanager
def meeting_point() -> Iterator[dict[str, str]]:
    """The environment by which the ranks of one module find each other: at a store in this process."""
    from torch import distributed

    store: Any = distributed.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", 0, is_master=True, wait_for_workers=False
    )
    yield {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # torch's word for a store that is no rank's
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
    del store


def ranks(
    team: str, command: Sequence[str], count: int, threads: int, directory: Path, meeting: Mapping[str, str]
) -> list[Program]:
    """The `count` programs that train one module; the first one speaks on the terminal, the others in rank<N>.log."""
    programs = []
    for rank in range(count):
        places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count} if count > 1 else {}
        environment = {**meeting, **{name: str(value) for name, value in places.items()}}
        if "OMP_NUM_THREADS" not in os.environ:
            environment["OMP_NUM_THREADS"] = str(threads)
        label = f"{team}, rank {rank}" if count > 1 else team
        log = directory / f"rank{rank}.log" if rank else None
        programs.append(Program(label, team, command, environment, log))
    return programs


@dataclass(frozen=True)
class Launcher:
    """In a launched program: the stage that has started it by `run`, and speaks for it."""

    report_to: int

    @classmethod
    def join(cls) -> Launcher | None:
        """End with the stage, be it killed; None where no stage has started this process."""
        started_by = os.environ.pop(_REPORT, None)  # not for programs that this one starts
        if started_by is None:
            return None
        stage, _, descriptor = started_by.partition(":")
        signals.die_with_parent(int(stage))
        return cls(int(descriptor))

    def report(self, messages: Sequence[str]) -> None:
        """Say when and why this program failed; without a message there was a traceback."""
        words = {"at_s": time.monotonic(), "messages": list(messages)}
        os.pwrite(self.report_to, json.dumps(words).encode(), 0)


@dataclass
class _Child:
    program: Program
    process: subprocess.Popen[bytes]
    words: IO[bytes]
    was_killed: bool = False

    @classmethod
    def start(cls, program: Program, stack: ExitStack) -> _Child:
        words = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
        output = stack.enter_context(program.log.open("ab")) if program.log else None
        environment = {**os.environ, **program.environment, _REPORT: f"{os.getpid()}:{words.fileno()}"}
        process = subprocess.Popen(
            program.command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[words.fileno()],
            start_new_session=True,  # Ctrl-C in a terminal reaches a whole process group: here it comes from us alone
        )
        return cls(program, process, words)

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    @property
    def status(self) -> int | None:
        """As subprocess has it: None while it runs, -9 after SIGKILL."""
        return self.process.returncode

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.is_alive:
            self.was_killed = True
            self.process.kill()

    def report(self) -> dict[str, Any] | None:
        written = os.pread(self.words.fileno(), 1 << 20, 0)
        try:
            found: dict[str, Any] = json.loads(written)
        except ValueError:
            return None  # nothing, or it died while it wrote
        return found


def _watch(children: Sequence[_Child], stop: signals.Request) -> UserError | None:
    """Until all have ended; returns the first failure."""
    failure: UserError | None = None
    asked = False
    deadlines: dict[str, float] = {}  # of each team, by the monotonic clock
    while True:
        alive = [child for child in children if child.is_alive]
        ended = [child for child in children if child not in alive]
        _notice_stopped(ended, stop)
        if failure is None and (bad := [child for child in ended if not _ended_well(child, stop)]):
            failure = _first_failure(bad, children)
        if not alive:
            return failure
        if not asked and (failure or stop.received):
            asked = True
            now_s = time.monotonic()
            for child in alive:
                child.send(signal.SIGTERM if failure or not stop.received else stop.received)
            if failure:
                deadlines.update({child.program.team: now_s + _GRACE_S for child in alive})
        if asked:
            _hurry(alive, ended, deadlines)
        time.sleep(_LOOK_S)


def _hurry(alive: Sequence[_Child], ended: Sequence[_Child], deadlines: dict[str, float]) -> None:
    """Kill who does not end: soon where another rank of the module is gone, which nobody can train without."""
    now_s = time.monotonic()
    for team in {child.program.team for child in ended}:
        deadlines[team] = min(deadlines.get(team, now_s + _FELLOWS_S), now_s + _FELLOWS_S)
    for child in alive:
        if now_s > deadlines.get(child.program.team, now_s):
            child.kill()


def _notice_stopped(ended: Sequence[_Child], stop: signals.Request) -> None:
    """A signal to a rank alone stops all of them, just as one to the stage."""
    by_status = {status: number for number, status in signals.EXIT_STATUS.items()}
    for child in ended:
        if stop.received is None and child.status in by_status:
            stop.received = by_status[child.status]


def _ended_well(child: _Child, stop: signals.Request) -> bool:
    """Also by a signal that was passed on before the program had begun to listen, and by our own hand."""
    if child.status == 0 or child.was_killed:
        return True
    return stop.received is not None and child.status in (signals.EXIT_STATUS[stop.received], -stop.received)


def _first_failure(bad: Sequence[_Child], children: Sequence[_Child]) -> UserError:
    """Who was killed comes first: the others' errors are about the rank that is gone."""
    for child in bad:
        if child.status is not None and child.status < 0:
            return _killed(child.program, signal.Signals(-child.status))
    reports = [(report["at_s"], child, report["messages"]) for child in children if (report := child.report())]
    if not reports:
        return _without_words(bad[0])
    _, child, messages = min(reports, key=lambda one: one[0])
    return UserError(*messages, exit_status=child.status or 1) if messages else _without_words(child)


def _killed(program: Program, number: signal.Signals) -> UserError:
    if number != signal.SIGKILL:
        return UserError(f"{program.label} died of {number.name}; {_where(program)}")
    return UserError(
        f"{program.label} was killed by SIGKILL, most likely for lack of memory; free some, or use fewer processes "
        "with train.num_processes=1 or train.side_by_side=false; the same command goes on from the newest checkpoint"
    )


def _without_words(child: _Child) -> UserError:
    status = child.status or 1
    return UserError(f"{child.program.label} failed with status {status}; {_where(child.program)}", exit_status=status)


def _where(program: Program) -> str:
    return f"{program.log} says more" if program.log else "it says more above"


def _end(children: Sequence[_Child]) -> None:
    for child in children:
        child.kill()
    for child in children:
        child.process.wait()
