"""Shards as processes of this machine, one for each core or few of them; a killed one takes no other with it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Literal

from cosytune.shards.job import Ended, Job, ended

_POLL_S = 0.05
DIE_WITH_PARENT = "--die-with-parent"


def run(jobs: Sequence[Job], cores: int | Literal["auto"], alone: bool) -> Iterator[Ended]:
    """As they end. `cores`: to use in all. `alone`: one shard at a time, with all of them."""
    count = len(os.sched_getaffinity(0)) if cores == "auto" else cores
    at_once = 1 if alone else min(count, len(jobs))
    waiting = deque(jobs)
    running: list[tuple[Job, subprocess.Popen[bytes]]] = []
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(_start(waiting.popleft(), count // at_once))
            for job, process in list(running):
                if process.poll() is not None:
                    running.remove((job, process))
                    yield ended(job.number, process.returncode)
            time.sleep(_POLL_S)
    finally:
        for _, process in running:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        for _, process in running:
            process.wait()


def _start(job: Job, threads: int) -> tuple[Job, subprocess.Popen[bytes]]:
    with job.log.open("wb") as stream:
        command = job.on(threads, DIE_WITH_PARENT)
        return job, subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT)
