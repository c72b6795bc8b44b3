"""One expression -> as it is said, by wetext's grammars (weighted finite-state transducers) of English and Chinese."""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import Any, Literal

_LOCK = threading.Lock()  # the grammars are shared


def say(expression: str, language: Literal["en", "zh"]) -> str:
    """What the grammar cannot read stays as it is written."""
    try:
        with _LOCK:
            return str(_grammar(language).normalize(expression))
    except AssertionError:  # wetext's answer to what its grammar does not know
        return expression


@lru_cache
def _grammar(language: str) -> Any:
    from wetext import Normalizer

    return Normalizer(lang=language, operator="tn")
