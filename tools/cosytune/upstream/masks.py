"""Lengths of a batch -> the masks of one forward pass of upstream's flow, each made once and without waiting for a GPU.

Upstream makes the same attention mask again in every block of the estimator, asks the GPU each time whether a row of it
is empty, and repeats it for every query and every head of every attention layer, which keeps each copy for the backward
pass. `bridge.shared_masks` puts these functions in the place of upstream's; they give the same values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

_BIAS = -1.0e10
"""Upstream's mask_to_bias."""
_ALIGNMENT = 8
"""CUDA's memory-efficient attention copies a bias whose rows do not begin at multiples of so many values."""


@dataclass(frozen=True)
class Attended:
    """Which keys the queries of the estimator attend to, before it is made a bias.

    padding: bool [clips, 1, frames], True where there is a frame. chunk: frames of a streaming chunk, 0: no chunks.
    """

    padding: torch.Tensor
    chunk: int

    def repeat(self, *_: int) -> Attended:
        """Upstream repeats the row of keys for every query; attention broadcasts it."""
        return self


@dataclass
class Masks:
    """The masks of one forward pass.

    heads: of the estimator's attention. is_even: all clips have one length. made: every mask, by what it was made from;
    a tensor counts by identity and version, and is kept, so that its identity stays its own.
    """

    heads: int
    is_even: bool
    made: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    _kept: list[torch.Tensor] = field(default_factory=list)

    def padding(self, lengths: torch.Tensor, max_len: int = 0) -> torch.Tensor:
        """For make_pad_mask: bool [clips, positions], True at padding. Raises ValueError without max_len: the longest
        length stands on the device.
        """
        if max_len <= 0:
            raise ValueError("a padding mask needs max_len: reading the longest length would wait for the GPU")
        return self._once("padding", lengths, (max_len,), lambda: _padding(lengths, max_len))

    def chunks(
        self,
        xs: torch.Tensor,
        masks: torch.Tensor,
        use_dynamic_chunk: bool,
        use_dynamic_left_chunk: bool,
        decoding_chunk_size: int,
        static_chunk_size: int,
        num_decoding_left_chunks: int,
    ) -> torch.Tensor:
        """For the encoder's add_optional_chunk_mask: bool [clips, 1 or positions, positions], True where attended."""
        _refuse_dynamic(use_dynamic_chunk)
        return self._chunked(masks, static_chunk_size)

    def attended(
        self,
        xs: torch.Tensor,
        masks: torch.Tensor,
        use_dynamic_chunk: bool,
        use_dynamic_left_chunk: bool,
        decoding_chunk_size: int,
        static_chunk_size: int,
        num_decoding_left_chunks: int,
    ) -> Attended:
        """For the estimator's add_optional_chunk_mask."""
        _refuse_dynamic(use_dynamic_chunk)
        return Attended(masks, static_chunk_size)

    def bias(self, attended: Attended, dtype: torch.dtype) -> torch.Tensor | None:
        """For the estimator's mask_to_bias: [clips * heads, 1 or frames, frames], 0 where attended; None: everywhere.

        In the dtype that attention computes in, so that autocast need not convert it in every layer.
        """
        padding, chunk = attended.padding, attended.chunk
        if self.is_even and chunk == 0:
            return None
        device = padding.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else dtype
        return self._once("bias", padding, (chunk, dtype), lambda: self._bias(padding, chunk, dtype))

    def _bias(self, padding: torch.Tensor, chunk: int, dtype: torch.dtype) -> torch.Tensor:
        return _bias(self._chunked(padding, chunk), dtype, self.heads)

    def _chunked(self, padding: torch.Tensor, chunk: int) -> torch.Tensor:
        return self._once("chunks", padding, (chunk,), lambda: _chunks(padding, chunk))

    def _once(
        self, kind: str, tensor: torch.Tensor, others: tuple[Any, ...], make: Callable[[], torch.Tensor]
    ) -> torch.Tensor:
        key = (kind, id(tensor), tensor._version, *others)
        if key not in self.made:
            self.made[key] = make()
            self._kept.append(tensor)
        made: torch.Tensor = self.made[key]
        return made


def _padding(lengths: torch.Tensor, positions: int) -> torch.Tensor:
    return torch.arange(positions, device=lengths.device).unsqueeze(0) >= lengths.unsqueeze(1)


def _chunks(padding: torch.Tensor, chunk: int) -> torch.Tensor:
    """A query sees its own chunk and those before it; one that would see nothing sees everything, as in upstream."""
    seen = padding
    if chunk > 0:
        position = torch.arange(padding.size(2), device=padding.device)
        ends = (torch.div(position, chunk, rounding_mode="trunc") + 1) * chunk
        seen = padding & (position.unsqueeze(0) < ends.unsqueeze(1)).unsqueeze(0)
    return seen | ~seen.any(dim=-1, keepdim=True)


def _bias(seen: torch.Tensor, dtype: torch.dtype, heads: int) -> torch.Tensor:
    """Computed in fp32: -1e10 becomes -inf in fp16, and no row is -inf throughout."""
    bias = ((1.0 - seen.float()) * _BIAS).to(dtype).repeat_interleave(heads, dim=0)
    frames = bias.size(2)
    return F.pad(bias, (0, -frames % _ALIGNMENT))[:, :, :frames]


def _refuse_dynamic(use_dynamic_chunk: bool) -> None:
    if use_dynamic_chunk:  # upstream's flow never asks for it
        raise NotImplementedError("masks with chunks of random size")
