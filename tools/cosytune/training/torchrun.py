"""The stage in one of several processes that torchrun or srun has started: the first keeps the books for all of them.

torchrun --nproc_per_node 2 -m cosytune.stages.train egs/demo/exp/default/config.yaml

The lock, the record and the choice of what is to be trained are the first one's. It tells the others by a store, and in
the end with which status the stage has ended, so that all of them end with the same.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from cosytune.errors import UserError
from cosytune.training import signals
from cosytune.training.reports import Aftermath

IS_LAUNCHED = "COSYTUNE_LAUNCHED"
"""Set for a process that train.launcher has started, be it the only one."""
LAUNCHER = "COSYTUNE_LAUNCHER"
"""The process id of the agent that has started this process, if one has."""
_WORD, _END, _HEARD = "cosytune/train", "cosytune/end", "cosytune/heard"
_PATIENCE = timedelta(hours=1)
"""The first rank hashes the base's weights before it knows whether there is anything to do."""
_HEARING = timedelta(seconds=30)
"""For the others to hear how it ended; their store may be in the process that ends."""
_SIGHT_S = 90.0
"""A file of another machine is seen within the minute for which NFS trusts what it knows of a directory."""
Value = TypeVar("Value")


def rank() -> int:
    """Of this process among those that train the same module; 0 where it is alone."""
    return int(os.environ.get("RANK", "0"))


def size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_at_work() -> bool:
    """Whether this process is one of several, or was started by train.launcher."""
    return size() > 1 or is_launched()


def is_launched() -> bool:
    """Whether train.launcher has started this process, and speaks for it."""
    return IS_LAUNCHED in os.environ


def end_with_launcher() -> None:
    """Let the kernel end this process when its agent is killed: nobody else would stop it."""
    if pid := os.environ.get(LAUNCHER):
        signals.die_with_parent(int(pid))


def say(line: str) -> None:
    """As the first process of another node."""
    if rank() > 0 and _is_first_here():
        print(line)


def end_as(status: int, host: str) -> None:
    """As the first rank, on `host`, has ended. Raises Aftermath where a line about that is due."""
    if not status:
        say(f"stage 4 (train): {host} has finished it")
        return
    if not _is_first_here():
        sys.exit(status)
    raise Aftermath(f"the first process, on {host}, has ended with status {status}, and says why", exit_status=status)


def _is_first_here() -> bool:
    return os.environ.get("LOCAL_RANK", "0") == "0"


@dataclass(frozen=True)
class Word:
    """What the first rank tells the others. `config`: the digest of what it has read. `runs`: of each module, the text
    of a file that it has written.
    """

    host: str
    config: str = ""
    modules: tuple[str, ...] = ()
    runs: Mapping[str, str] = field(default_factory=dict)

    def require_same(self, config: str, path: Callable[[str], Path]) -> None:
        """Raise UserError where this process has read other settings, or does not see what the first one writes."""
        here = socket.gethostname()
        if config != self.config:
            raise UserError(
                f"{here} and {self.host} have read different settings; start the same command on each node, with the "
                "same egs/"
            )
        until_s = time.monotonic() + _SIGHT_S
        for name, text in self.runs.items():
            while _text(path(name)) != text:
                if time.monotonic() > until_s:
                    raise UserError(
                        f"{path(name)}: {here} does not see here what {self.host} has written; egs/ and "
                        "pretrained_models/ have to lie on a file system that all nodes share"
                    )
                time.sleep(0.1)


class Leader:
    """The first rank's word to the others."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._has_spoken = False

    def announce(self, word: Word) -> None:
        """All ranks train its modules, one after the other."""
        self._store.set(_WORD, json.dumps(asdict(word)))
        self._has_spoken = True

    def end(self, status: int) -> None:
        """The others end with the same status. Who is busy with its own end is not waited for."""
        self._store.set(_END, str(status))
        is_listened_to = status == 0 or not self._has_spoken
        if not self._has_spoken:
            self.announce(Word(socket.gethostname()))
        if is_listened_to and size() > 1:
            self._store.wait([f"{_HEARD}/{other}" for other in range(1, size())], _HEARING)


class Follower:
    """In the other ranks. Raises Aftermath when the first one is gone, or says nothing for an hour."""

    def __init__(self) -> None:
        self._store = _reached(_store)

    def word(self) -> Word:
        """As soon as the first rank knows it; without modules there is nothing to do, or it has failed."""
        word = json.loads(_reached(lambda: self._get(_WORD)))
        return Word(**{**word, "modules": tuple(word["modules"])})

    def end(self) -> int:
        """The status with which the first rank has ended."""
        status = int(_reached(lambda: self._get(_END)))
        _reached(lambda: self._store.set(f"{_HEARD}/{rank()}", ""))
        return status

    def _get(self, key: str) -> str:
        self._store.wait([key], _PATIENCE)
        return str(self._store.get(key).decode())


@contextmanager
def leading() -> Iterator[Leader]:
    """In the first rank: whatever comes of the block, the others hear of it."""
    leader = Leader(_store())
    status = 1
    try:
        yield leader
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
    except UserError as mistake:
        status = mistake.exit_status
        raise
    finally:
        with suppress(RuntimeError):  # who did not listen, or is gone, has a failure of its own to tell
            leader.end(status)


def _reached(ask: Callable[[], Value]) -> Value:
    try:
        return ask()
    except RuntimeError as failure:  # torch's word for a store that is gone or does not answer
        raise Aftermath(
            f"rank {rank()}: the first process of this training is gone or hangs "
            f"({str(failure).splitlines()[0][:160]}); the same command goes on from the newest checkpoint"
        ) from None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None


def _store() -> Any:
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(rendezvous("env://"))
    return store
