"""A recording as stage 0 works on it: mono samples in a file without a header, and what the original was like."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cosytune.audio.span import Span
from cosytune.quality.measure import Original

BINS_PER_S = 100


@dataclass(frozen=True)
class Track:
    """`path` holds float32 samples [frames], little-endian, at the original's level, a constant offset taken out.

    `dc_offset` and `peak_dbfs` are the original's; `channels_used` of its `channels` were mixed; `clipped`: how many
    of its samples stand in a flat top, uint32 for every 10 ms.
    """

    path: Path
    rate_hz: int
    frames: int
    source_rate_hz: int
    channels: int
    channels_used: int
    peak_dbfs: float
    dc_offset: float
    clipped: NDArray[np.uint32]

    @property
    def duration_s(self) -> float:
        return self.frames / self.rate_hz

    def read(self, span: Span) -> NDArray[np.float32]:
        """The samples [n] of a stretch; what lies outside of the recording is left out."""
        start = max(0, round(span.start_s * self.rate_hz))
        count = min(self.frames, round(span.end_s * self.rate_hz)) - start
        return np.fromfile(self.path, "<f4", count=max(0, count), offset=4 * start)

    def original(self, span: Span) -> Original:
        """What that stretch was like as it was given."""
        bins = self.clipped[int(span.start_s * BINS_PER_S) : int(np.ceil(span.end_s * BINS_PER_S))]
        samples = max(1.0, span.duration_s * self.source_rate_hz)
        return Original(min(1.0, float(bins.sum()) / samples), self.dc_offset, self.peak_dbfs)
