"""A lack of memory: how it is recognised, and the smaller micro-batches that answer it."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import torch

from cosytune.errors import UserError
from cosytune.training import plan
from cosytune.training.plan import MicroBatch

_WORDS = (
    *("can't allocate memory", "could not create a primitive"),
    *("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"),
)
"""What torch's allocator and oneDNN say when a CPU has no memory left; and CUDA and its libraries, which torch's
allocator has left none of the GPU's."""


def is_one(failure: Exception) -> bool:
    """Whether a failure is a lack of memory: torch's own error, or the words that torch passes on."""
    return isinstance(failure, (torch.OutOfMemoryError, MemoryError)) or any(words in str(failure) for words in _WORDS)


def halved(
    batches: Sequence[MicroBatch], utts: Sequence[str], lengths: Sequence[int], budget: int, module: str, what: str
) -> int:
    """The budget in tokens for half of the largest micro-batch. `what`: training, cross-validation.

    Raises UserError, which names the longest clip, when each clip has a micro-batch of its own already.
    """
    largest = max(batches, key=lambda batch: plan.padded_tokens(batch, lengths))
    tokens = plan.padded_tokens(largest, lengths)
    if all(len(batch) == 1 for batch in batches):
        raise UserError(
            f"{module}: out of memory in {what} with one clip alone, '{utts[largest[0]]}', {tokens} tokens; set "
            f"low_memory=true or train.{module}.gradient_checkpointing=true, or have shorter clips with "
            "audio.segment.max_s and audio.max_duration_s"
        )
    return min(tokens, budget) // 2


def release(device: torch.device) -> None:
    """Give back what the failed attempt held."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
