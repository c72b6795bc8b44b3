"""What a model directory that we made is: `cosytune_model.json`, and how to tell the shape of any model directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cosytune import files
from cosytune.base import hyperyaml
from cosytune.families import Family, Shape
from cosytune.text import Script

NAME = "cosytune_model.json"
FORMAT = 3
"""Grows when the same seed makes other files; older directories are then made again."""


def read(model_dir: Path) -> dict[str, Any] | None:
    """The directory's own description; None when it is not one that we made."""
    path = model_dir / NAME
    return files.read_json(path) if path.is_file() else None


def script(model_dir: Path, family: Family, language: str) -> Script:
    """In which the directory's model reads that language, in training and in speaking."""
    return family.script(language, shape(model_dir, family))


def shape(model_dir: Path, family: Family) -> Shape:
    """The sizes of the directory's modules: as its description or its YAML says, else those of the real model."""
    description = read(model_dir)
    if description is not None:
        return family.shape(description["base"])
    return hyperyaml.known_shape(model_dir / family.yaml, family) or family.real
