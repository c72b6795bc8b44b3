"""The stage under torchrun: the first rank keeps the books, the others train what it says.

torchrun --nproc_per_node 2 -m cosytune.stages.train egs/demo/exp/default/config.yaml
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

_KEY = "cosytune/train"
_PATIENCE = timedelta(days=1)
"""The first rank hashes the base's weights before it knows whether there is anything to do."""


def rank() -> int:
    """Of this process among those that train the same module; 0 where it is alone."""
    return int(os.environ.get("RANK", "0"))


def is_at_work() -> bool:
    """Whether this process is one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


class Leader:
    """The first rank's word to the others."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.has_spoken = False

    def announce(self, modules: tuple[str, ...]) -> None:
        """All ranks train these, one after the other."""
        self._store.set(_KEY, " ".join(modules))
        self.has_spoken = True


@contextmanager
def leading() -> Iterator[Leader]:
    """In the first rank. Who has not announced anything by the end had nothing to do, and the others end, too."""
    leader = Leader(_store())
    try:
        yield leader
    finally:
        if not leader.has_spoken:
            leader.announce(())


def following() -> list[str]:
    """In the other ranks: the modules to train, as soon as the first rank knows."""
    store = _store()
    store.wait([_KEY], _PATIENCE)
    return str(store.get(_KEY).decode()).split()


def _store() -> Any:
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(rendezvous("env://"))
    return store
