"""What a step says of itself: the columns of its rows, what decides about them, and its work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from cosytune.layout import Layout
from cosytune.schema import Config

Value = dict[str, Any]
"""An item as JSON can hold it, or a row by its columns."""


@dataclass(frozen=True)
class Item:
    """`seconds`: of sound in it, by which shards are cut."""

    seconds: float
    value: Value


@dataclass(frozen=True)
class Shard:
    """What the work of one shard gets. `threads`: cores to use.

    `directory`: for its sound files; a step that has some makes it.
    """

    config: Config
    layout: Layout
    items: Sequence[Value]
    directory: Path
    threads: int


@dataclass(frozen=True)
class Step:
    """`maker`: settings and model files that the rows depend on. `cores`: how many a machine is to use at most.
    `on_gpu`: a GPU is of use.

    `files`: names and sizes in bytes of the sound files that belong to the rows.
    """

    name: str
    columns: pa.Schema
    maker: Callable[[Config], Value]
    work: Callable[[Shard], Iterable[Value]]
    cores: Callable[[Config], int | Literal["auto"]]
    on_gpu: bool
    files: Callable[[pa.Table], Iterable[tuple[str, int]]]


def no_files(_: pa.Table) -> Iterable[tuple[str, int]]:
    return ()


def name_of(layout: Layout, path: Path) -> str:
    """Relative where possible: a recipe may lie elsewhere on another machine, or have been moved."""
    return str(path.relative_to(layout.recipe) if path.is_relative_to(layout.recipe) else path)


def path_of(layout: Layout, name: str) -> Path:
    return layout.recipe / name
