"""How upstream's modules are put together, as plain data: the bridge builds from it, the YAML is written from it.

The three words are HyperPyYAML's: `!new:` calls a class, `!name:` holds a function with some arguments given, `!ref`
names a value of the same document.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class New:
    """An object of the class `target` (dotted), made with `arguments`, which may hold specs themselves."""

    target: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Name:
    """The function `target` (dotted), with `arguments` already given."""

    target: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ref:
    """The value that stands under `key` at the top of the same document."""

    key: str


@dataclass(frozen=True)
class Apply:
    """The function `target` called with `arguments` while the document is read (seeding)."""

    target: str
    arguments: tuple[Any, ...]
