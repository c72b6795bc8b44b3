"""Planned updates -> their micro-batches, made ahead by worker processes where there are any.

One item is one update (this rank's part of it), so no number of workers or ranks changes which clips are seen.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from cosytune.errors import UserError
from cosytune.features.cache import FeatureCache
from cosytune.training.batches import Batch
from cosytune.training.draws import Epoch
from cosytune.training.plan import MicroBatch
from cosytune.training.tasks import Task


@dataclass(frozen=True)
class Part:
    """What one rank does of one update."""

    micro_batches: list[Batch]

    def pin_memory(self) -> Part:
        """For torch's DataLoader: pages that the GPU copies from while it computes."""
        return Part([_pinned(batch) for batch in self.micro_batches])


class _Parts(Dataset[Part]):
    def __init__(self, task: Task, features: FeatureCache, parts: Sequence[Sequence[MicroBatch]], epoch: Epoch) -> None:
        self._task, self._features, self._parts, self._epoch = task, features, parts, epoch

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, number: int) -> Part:
        return Part([batch_of(self._task, self._features, indices, self._epoch) for indices in self._parts[number]])


@contextmanager
def load(
    task: Task,
    features: FeatureCache,
    parts: Sequence[Sequence[MicroBatch]],
    epoch: Epoch,
    num_workers: int,
    pin_memory: bool,
) -> Iterator[Iterator[Part]]:
    """The parts in order; the workers end with the block. Raises UserError when one of them was killed in it."""
    loader = DataLoader(
        _Parts(task, features, parts, epoch),
        batch_size=None,
        num_workers=min(num_workers, len(parts)),
        pin_memory=pin_memory,
        worker_init_fn=_prepare if num_workers else None,
        multiprocessing_context="fork" if num_workers and parts else None,  # shares the mapped features
        generator=torch.Generator(),  # its own: the global one belongs to the dropout
    )
    iterator: Any = iter(loader)
    try:
        yield iterator
    except (RuntimeError, MemoryError) as failure:
        if not _is_workers_end(failure):
            raise
        raise UserError(
            f"dataloader_num_workers = {loader.num_workers}: a process that makes batches has ended "
            f"({str(failure).splitlines()[0]}), most likely for lack of memory, or of shared memory (docker run "
            "--shm-size=2g); set dataloader_num_workers=0; the same command goes on from the newest checkpoint"
        ) from None
    finally:
        if hasattr(iterator, "_shutdown_workers"):
            iterator._shutdown_workers()  # else they live until the iterator is collected


def batch_of(task: Task, features: FeatureCache, indices: MicroBatch, epoch: Epoch) -> Batch:
    """One micro-batch."""
    return task.batch([features[index] for index in indices], epoch)


def _prepare(_: int) -> None:
    """A signal may reach the whole process group; the trainer alone answers it, and ends its workers."""
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _is_workers_end(failure: Exception) -> bool:
    """Torch's words for a worker that is gone, which it says wherever the block is; other failures are no worker's."""
    said = str(failure)
    return said.startswith("DataLoader worker") or (isinstance(failure, MemoryError) and "DataLoader worker" in said)


def _pinned(batch: Any) -> Any:
    values = {
        name: value.pin_memory() if isinstance(value, torch.Tensor) else value for name, value in vars(batch).items()
    }
    return type(batch)(**values)
