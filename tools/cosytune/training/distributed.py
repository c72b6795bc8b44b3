"""The processes that train one module together: who is who, sums over all of them, and waiting for each other.

torchrun sets RANK, WORLD_SIZE and the rest; without them there is one process and nothing to wait for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from cosytune.training.reports import Aftermath

Value = TypeVar("Value")

_STEP_TIMEOUT = timedelta(seconds=45)
"""Within an update nobody is late: a rank that is gone ends the run soon."""
_MEETING_TIMEOUT = timedelta(minutes=10)
"""For the first meeting: one machine reads the base's weights more slowly than another."""
_WAIT_TIMEOUT = timedelta(hours=2)
"""For what the first rank does alone: a checkpoint to a slow disk, audio samples."""


@dataclass(frozen=True)
class Ranks:
    """`waiting`: a group with patience; None where there is one process."""

    rank: int = 0
    size: int = 1
    waiting: Any = None

    @property
    def is_first(self) -> bool:
        """The one that writes."""
        return self.rank == 0

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks, in place."""
        if self.size > 1:
            together(lambda: dist.all_reduce(tensor))
        return tensor

    def sum_gradients(self, parameters: list[torch.nn.Parameter]) -> None:
        """Give every rank the sum of the gradients; one that had no clip of an update brings zeros."""
        if self.size == 1:
            return
        gradients = [
            parameter.grad if parameter.grad is not None else torch.zeros_like(parameter) for parameter in parameters
        ]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])  # one exchange, not hundreds
        self.sum(flat)
        sizes = [gradient.numel() for gradient in gradients]
        for parameter, summed in zip(parameters, flat.split(sizes), strict=True):
            parameter.grad = summed.view_as(parameter)

    def concatenate(self, tensor: torch.Tensor) -> torch.Tensor:
        """The vectors of all ranks, equally long, one after the other."""
        joined = tensor.new_empty(self.size * tensor.numel())
        together(lambda: dist.all_gather_into_tensor(joined, tensor.contiguous()))
        return joined

    def most(self, value: int, device: torch.device) -> int:
        """The largest value of all ranks."""
        if self.size == 1:
            return value
        votes = torch.zeros(self.size, dtype=torch.int64, device=device)
        votes[self.rank] = value
        return int(self.sum(votes).max())

    def from_first(self, make: Callable[[], Value]) -> Value:
        """What the first rank makes, for all of them; also a way to wait for it. An error of it is everybody's."""
        if self.size == 1:
            return make()
        answer: list[Any] = [None]
        if self.is_first:
            try:
                answer = [(True, make())]
            except Exception as failure:
                answer = [(False, failure)]
        together(lambda: dist.broadcast_object_list(answer, src=0, group=self.waiting))
        succeeded, value = answer[0]
        if not succeeded:
            raise value
        made: Value = value
        return made

    def wait(self) -> None:
        """Until all are here, however long one has work of its own."""
        if self.size > 1:
            together(lambda: dist.barrier(group=self.waiting))


def join(device: torch.device) -> Ranks:
    """Meet the other processes that torchrun started; one process alone meets nobody."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Ranks()
    if not dist.is_initialized():
        together(partial(_meet, "nccl" if device.type == "cuda" else "gloo"))
    waiting = dist.new_group(backend="gloo", timeout=_WAIT_TIMEOUT)
    return Ranks(dist.get_rank(), size, waiting)


def _meet(backend: str) -> None:
    store, rank, size = next(rendezvous("env://", timeout=_MEETING_TIMEOUT))
    store.set(f"cosytune/here/{rank}", "")
    store.wait([f"cosytune/here/{other}" for other in range(size)], _MEETING_TIMEOUT)
    store.set_timeout(_STEP_TIMEOUT)
    own = dist.PrefixStore("default_pg", store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=_STEP_TIMEOUT)


def together(exchange: Callable[[], Any]) -> None:
    """Exchange something with the other ranks. Raises Aftermath when one of them is gone or hangs."""
    try:
        exchange()
    except RuntimeError as failure:  # gloo's and NCCL's own words for a closed connection or a time-out
        rank = os.environ.get("RANK", "0")
        raise Aftermath(
            f"rank {rank}: another process of this training is gone or hangs ({str(failure).splitlines()[0][:160]}); "
            "the same command goes on from the newest checkpoint"
        ) from None
