"""train.launcher=torchrun: this node's processes, started by torchrun's agent when all nodes have met at the endpoint.

    ./run.sh egs/lj --stage 4 --stop_stage 4 train.launcher=torchrun train.num_nodes=2 train.rdzv_endpoint=node0:29500

The agent's own way to end is to print tables and to return 1. Here it ends as the stage does on one machine, and no
node is left waiting: each says in the store of the meeting that it is alive and how it has ended.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.rendezvous import RendezvousError, RendezvousParameters, RendezvousTimeoutError, registry

from cosytune.errors import UserError
from cosytune.layout import Layout
from cosytune.schema import Config
from cosytune.training import nodes, processes, reports, signals, torchrun
from cosytune.training.watchdog import Watchdog

_LOOK_S = 1.0
_SILENCE_S = 60.0
"""A node that says nothing for so long is gone: its power, its network or its kernel."""
_HANGS_S = 75.0
"""For one call of the agent, of which the longest takes the 30 s that its processes have to end, and the same again."""
_AGAIN_S = 1.0
_EXIT_S = 30
"""For the other agents to end, where all went well."""


class _NodeEnded(Exception):  # noqa: N818 - it may have been stopped
    """Another node has ended with this status, or is gone (None)."""

    def __init__(self, host: str, status: int | None) -> None:
        super().__init__(host, status)
        self.host, self.status = host, status


@dataclass
class _Meeting:
    """What this node says of itself in the store, and what it hears of the others."""

    store: Any
    node: int
    count: int
    looked_s: float = 0.0
    beats: dict[int, tuple[str, float]] = field(default_factory=dict)

    def look(self) -> None:
        """Raises _NodeEnded for a node that ended badly or is silent; RuntimeError when the store is gone."""
        now_s = time.monotonic()
        if now_s - self.looked_s < _LOOK_S:
            return
        self.looked_s = now_s
        self.store.set(f"cosytune/beat/{self.node}", f"{socket.gethostname()} {now_s}")
        for other in range(self.count):
            if other != self.node:
                self._look_at(other, now_s)

    def _look_at(self, other: int, now_s: float) -> None:
        if self.store.check([f"cosytune/ended/{other}"]):
            host, status = self.store.get(f"cosytune/ended/{other}").decode().split()
            if int(status):
                raise _NodeEnded(host, int(status))
            return
        key = f"cosytune/beat/{other}"
        beat = self.store.get(key).decode() if self.store.check([key]) else f"node {other}, which never spoke"
        if self.beats.get(other, ("", 0.0))[0] != beat:
            self.beats[other] = (beat, now_s)
        elif now_s - self.beats[other][1] > _SILENCE_S:
            raise _NodeEnded(beat.rpartition(" ")[0], None)

    def end(self, status: int) -> None:
        with suppress(RuntimeError):  # the node of the store has ended before
            self.store.set(f"cosytune/ended/{self.node}", f"{socket.gethostname()} {status}")


class _Agent(LocalElasticAgent):
    """torchrun's agent, which also looks at the other nodes. `watchdog`: for a store that never answers."""

    meeting: _Meeting | None = None
    watchdog: Watchdog

    def _rendezvous(self, worker_group: WorkerGroup) -> None:
        super()._rendezvous(worker_group)
        self.watchdog.start()
        self.meeting = _Meeting(worker_group.store, worker_group.group_rank or 0, worker_group.group_world_size or 1)
        mine, all_of_them = len(worker_group.workers), worker_group.workers[0].world_size
        print(
            f"{socket.gethostname()}: node {self.meeting.node + 1} of {self.meeting.count}, {mine} of {all_of_them} "
            "processes" + ("" if self.meeting.node == 0 else "; the first node keeps the books")
        )

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        self.watchdog.pat()
        result: RunResult = super()._monitor_workers(worker_group)
        if result.state == WorkerState.HEALTHY and self.meeting:
            self.meeting.look()
        return result


def train(config: Config, layout: Layout, arguments: Sequence[str]) -> None:
    """Train on `train.num_nodes` nodes; `arguments`: of the stage. Returns when the stage has ended well.

    Raises signals.Stopped after a signal to any node, UserError with the words of what failed, here or elsewhere.
    """
    count = processes.num_processes(config)
    endpoint = config.train.rdzv_endpoint or "127.0.0.1:0"
    nodes.require_known(endpoint)
    address = nodes.own_address(nodes.split(endpoint)[0])
    with tempfile.TemporaryDirectory(prefix="cosytune-") as name:
        _prepare(Path(name), address, count)
        if config.train.num_nodes not in (1, "auto"):
            print(f"{socket.gethostname()}: meets {config.train.num_nodes} nodes at {endpoint}")
        launch = _Launch(config, layout, arguments, count, endpoint, address, Path(name))
        try:
            failure = launch.run()
        finally:
            signals.leave_at_once()  # torch has set handlers of its own
    if failure is not None:
        raise failure


def _prepare(directory: Path, address: str, count: int) -> None:
    logging.disable(logging.CRITICAL)  # the agent's tables; what it knows is told here
    os.environ |= {torchrun.IS_LAUNCHED: "torchrun", torchrun.LAUNCHER: str(os.getpid())}
    os.environ[reports.DIRECTORY] = str(directory)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // count)))
    nodes.use_interface(os.environ, address)


@dataclass(frozen=True)
class _Launch:
    """`endpoint`: where the nodes meet. `address`: of this one. `directory`: where its processes leave reports."""

    config: Config
    layout: Layout
    arguments: Sequence[str]
    count: int
    endpoint: str
    address: str
    directory: Path

    def run(self) -> signals.Stopped | UserError | None:
        """What came of it; the other nodes hear of it, too."""
        patience_s = self.config.train.rdzv_timeout_s
        until_s = time.monotonic() + patience_s
        while True:
            agent, result, cause = self._attempt(max(1, round(until_s - time.monotonic())))
            if agent is not None and agent.meeting is not None:
                found = reports.read(self.directory)
                failure = _verdict(found, result, cause, self.endpoint)
                agent.meeting.end(failure.exit_status if failure else 0)
                agent.watchdog.stop()
                return failure
            if isinstance(cause, signals.Stopped):
                return cause
            if time.monotonic() > until_s or isinstance(cause, RendezvousTimeoutError):
                return self._nobody_came(patience_s)
            time.sleep(_AGAIN_S)  # it came upon the end of a former meeting, or two nodes wanted to be the host

    def _attempt(self, patience_s: int) -> tuple[_Agent | None, RunResult | None, Exception | None]:
        agent, result = None, None
        cause: Exception | None = None
        try:
            agent = self._agent(patience_s)
            result = agent.run()
        except SignalException as wish:
            cause = signals.Stopped(wish.sigval)
        except (_NodeEnded, RendezvousError, RuntimeError) as failure:
            cause = failure
        return agent, result, cause

    def _agent(self, patience_s: int) -> _Agent:
        train = self.config.train
        count = 1 if train.num_nodes == "auto" else train.num_nodes
        host, port = nodes.split(self.endpoint)
        parameters = RendezvousParameters(
            backend="c10d",
            endpoint=self.endpoint,
            run_id=nodes.meeting_name(self.config, self.layout),
            min_nodes=count,
            max_nodes=count,
            local_addr=self.address,
            is_host=nodes.is_own(host) and nodes.is_free(port),
            read_timeout=patience_s,
            join_timeout=patience_s,
        )
        spec = WorkerSpec(
            role="train",
            local_world_size=self.count,
            rdzv_handler=registry.get_rendezvous_handler(parameters),
            entrypoint=sys.executable,
            args=("-m", "cosytune.stages.train", *self.arguments),
            max_restarts=0,  # the same command goes on from the newest checkpoint
            monitor_interval=0.1,
        )
        agent = _Agent(spec, DefaultLogsSpecs(log_dir=str(self.directory)), exit_barrier_timeout=_EXIT_S)
        agent.watchdog = Watchdog(_HANGS_S, _silent(self.endpoint), partial(shutil.rmtree, self.directory, True))
        return agent

    def _nobody_came(self, patience_s: int) -> UserError:
        return UserError(
            f"train.rdzv_endpoint = {self.endpoint}: {self.config.train.num_nodes} nodes did not meet there within "
            f"{patience_s} s (train.rdzv_timeout_s); start the same command on each of them, and see that they reach "
            "this address"
        )


def _silent(endpoint: str) -> str:
    return (
        f"train.rdzv_endpoint = {endpoint}: the node that is there has not answered for {_HANGS_S:.0f} s; the same "
        "command on each node goes on from the newest checkpoint"
    )


def _verdict(
    found: Sequence[reports.Report], result: RunResult | None, cause: Exception | None, endpoint: str
) -> signals.Stopped | UserError | None:
    """What the user is told: who was killed, the first mistake, a wish to stop, or what others have seen."""
    failures = result.failures if result is not None else {}
    for rank, failed in sorted(failures.items()):
        if failed.exitcode == -signal.SIGKILL:
            return UserError(
                f"rank {rank} was killed by SIGKILL, most likely for lack of memory; free some, or use fewer processes "
                "with train.num_processes=1; the same command goes on from the newest checkpoint"
            )
    mistake = reports.failure(found)
    if mistake is not None and not isinstance(mistake, reports.Aftermath):
        return mistake
    if isinstance(cause, signals.Stopped):
        return cause
    if stopped := reports.stopped(found):
        return stopped
    if isinstance(cause, _NodeEnded):
        return _ended_elsewhere(cause)
    if mistake is not None:
        return mistake
    if cause is not None:
        return UserError(
            f"train.rdzv_endpoint = {endpoint}: the node that is there is gone ({str(cause).splitlines()[0][:160]}); "
            "the same command goes on from the newest checkpoint"
        )
    if failures:
        rank, failed = min(failures.items())
        return UserError(f"rank {rank} failed with status {failed.exitcode}; it says more above")
    return None


def _ended_elsewhere(ended: _NodeEnded) -> signals.Stopped | UserError:
    if ended.status is None:
        return UserError(
            f"{ended.host} has said nothing for {_SILENCE_S:.0f} s; the same command on each node goes on from the "
            "newest checkpoint"
        )
    by_status = {status: number for number, status in signals.EXIT_STATUS.items()}
    if ended.status in by_status:
        return signals.Stopped(by_status[ended.status])
    return UserError(
        f"{ended.host} has ended with status {ended.status}, and says why; the same command on each node goes on from "
        "the newest checkpoint",
        exit_status=ended.status,
    )
