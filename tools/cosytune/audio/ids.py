"""Relative paths -> Kaldi ids: no white space, no `/`, one of a kind, the same on every run and machine."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Sequence

_MAX_BYTES = 180  # file names end at 255 bytes, and a temporary name is longer than the id


def clean(name: str) -> str:
    """NFC, white space -> `_`, `/` -> `-`, control characters gone; everything else stays, Japanese and quotes too."""
    composed = unicodedata.normalize("NFC", name)
    spaced = "".join("_" if character.isspace() else character for character in composed)
    return "".join(one for one in spaced if unicodedata.category(one) not in ("Cc", "Cf", "Cs")).replace("/", "-")


def make_unique(names: Sequence[str], sources: Sequence[str]) -> list[str]:
    """`clean` names; where two become one, all but the one that was clean before get a hash of their source.

    So `a_b.wav` keeps its id whether or not `a b.wav` lies beside it.
    """
    cleaned = [_shorten(clean(name), name) for name in names]
    taken = Counter(cleaned)
    as_they_were = Counter(name for name, clean_name in zip(names, cleaned, strict=True) if name == clean_name)
    unique = []
    for name, clean_name, source in zip(names, cleaned, sources, strict=True):
        keeps = taken[clean_name] == 1 or (name == clean_name and as_they_were[name] == 1)
        unique.append(clean_name if keeps and clean_name else f"{clean_name}-{_digest(source)}")
    return unique


def _shorten(cleaned: str, name: str) -> str:
    encoded = cleaned.encode()
    if len(encoded) <= _MAX_BYTES:
        return cleaned
    return f"{encoded[: _MAX_BYTES - 9].decode(errors='ignore')}-{_digest(name)}"


def _digest(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()[:8]
