"""A forward pass -> the bytes that it leaves for the backward pass.

Each storage that was made on the way and still lives when the loss is there, counted once; parameters and inputs were
there before. torch's `saved_tensors_hooks` would miss what checkpointing holds, and hooks of the measured code hide
those of a measuring one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Storages(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.known: dict[int, tuple[StorageWeakRef, int]] = {}
        """By the address of torch's own storage object, which the weak reference keeps from being given away."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if _is_tensor(leaf)}
        for tensor in filter(_is_tensor, tree_leaves(made)):
            storage = tensor.untyped_storage()
            if storage._cdata not in given and storage._cdata not in self.known:
                self.known[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        return made


def measure(forward: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, int]:
    """The loss, and the bytes that live for its backward pass."""
    with _Storages() as storages:
        loss = forward()
    alive = sum(size for reference, size in storages.known.values() if not reference.expired())
    return loss, alive


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor)
