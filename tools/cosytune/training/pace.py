"""Updates and tokens as they are trained -> how fast, how much longer, and how much of the GPU's memory."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

LINES_ONLY = "COSYTUNE_LINES_ONLY"
"""An environment variable: when it is set there is no bar on a terminal, which another process writes to as well."""


@dataclass
class Pace:
    """How fast training is. Its clock stands still during evaluations; that of the time left does not."""

    update: int
    spent_s: float = 0.0
    """Since tokens were last counted."""
    begun_at: int = field(init=False)
    begun_s: float = field(default_factory=time.monotonic)
    seen_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.begun_at = self.update

    def trained(self, update: int) -> None:
        now_s = time.monotonic()
        self.update, self.spent_s, self.seen_s = update, self.spent_s + now_s - self.seen_s, now_s

    def paused(self, update: int) -> None:
        """What came since the last update was no training."""
        self.seen_s = time.monotonic()
        if update == self.begun_at:  # the first evaluation is not repeated with every so many updates
            self.begun_s = self.seen_s

    def tokens_per_s(self, tokens: int) -> float:
        spent_s, self.spent_s = self.spent_s, 0.0
        return tokens / max(spent_s, 1e-9)

    @property
    def updates_per_s(self) -> float:
        return (self.update - self.begun_at) / max(time.monotonic() - self.begun_s, 1e-9)


def gpu_gib() -> tuple[float, float] | None:
    """The most that was allocated so far, and all that the card has; None where no GPU is in use."""
    import torch

    if not torch.cuda.is_available() or not torch.cuda.max_memory_allocated():
        return None
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    return torch.cuda.max_memory_allocated() / 2**30, total / 2**30


def duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
