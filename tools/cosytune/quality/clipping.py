"""A recording as it was given -> which of its samples stand in the flat tops that clipping leaves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Block = NDArray[np.float32]
Frames = NDArray[np.int64]

_NEAR = 0.02  # a flat top lies at the recording's own peak: dither and a filter moved it by no more than this share
_STEP = 2.0**-14  # two steps of 16 bits: samples that differ by less are equal
_CORNER = 4  # a round top that is flat for three samples falls by at most this many steps beside them
_BEND = 1.5  # a round top whose peak lies between two equal samples falls by d, then by 2 d; a clipped one evenly


def clipped_samples(block: Block, full_scale_peak: float) -> Frames:
    """Frames of `block` (float32 [frames, channels], full scale = 1) that are part of a flat top in any channel.

    `full_scale_peak`: the largest absolute sample of the whole recording, whatever its scale: a recording that was
    clipped and turned down later is flat at its own peak, a float recording beyond 1.0 is not clipped. A flat top is
    two or more equal samples in a row with a corner beside them: the top of a slow sine is flat too, but round.
    """
    if len(block) < 3 or _peak(block) <= full_scale_peak * (1 - _NEAR):
        return np.zeros(0, np.int64)
    found = [_flat_tops(channel, full_scale_peak) for channel in block.T]
    return np.unique(np.concatenate(found))


def _peak(block: Block) -> float:
    return max(float(np.max(block, initial=0.0)), -float(np.min(block, initial=0.0)))


def _flat_tops(channel: NDArray[np.float32], peak: float) -> Frames:
    """Only what lies near the peak is looked at, which is little: a whole channel costs one comparison."""
    near = np.flatnonzero(np.abs(channel) >= peak * (1 - _NEAR))
    if len(near) < 2:
        return np.zeros(0, np.int64)
    values = channel[near]
    same = (np.diff(near) == 1) & (np.abs(np.diff(values)) <= _STEP)
    first = np.concatenate([[0], np.flatnonzero(~same) + 1])
    last = np.concatenate([first[1:], [len(near)]]) - 1
    height = np.abs(channel)
    corner = _corner(height, near[first], -1, last - first) | _corner(height, near[last], 1, last - first)
    run = np.flatnonzero((last > first) & corner)
    return np.concatenate([near[first[i] : last[i] + 1] for i in run] or [np.zeros(0, np.int64)]).astype(np.int64)


def _corner(height: NDArray[np.float32], ends: Frames, step: int, steps: Frames) -> NDArray[np.bool_]:
    """Whether the wave comes straight into the ends of flat tops, instead of bending towards them."""
    outside, further = (height[np.clip(ends + k * step, 0, len(height) - 1)] for k in (1, 2))
    fall, next_fall = height[ends] - outside, outside - further
    return (fall > _CORNER * _STEP) & ((steps > 1) | (next_fall < _BEND * fall))
