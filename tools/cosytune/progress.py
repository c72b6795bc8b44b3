"""A loop -> the same loop with its rate and the time left on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def track(items: Iterable[Item], label: str, total: int | None = None, unit: str = "it") -> Iterator[Item]:
    """Yield `items`, showing done/total, the rate and the time left; one line every few seconds in a log file."""
    from tqdm import tqdm

    interval_s = 0.2 if sys.stderr.isatty() else 5.0
    yield from tqdm(items, desc=label, total=total, unit=f" {unit}", mininterval=interval_s, dynamic_ncols=True)
