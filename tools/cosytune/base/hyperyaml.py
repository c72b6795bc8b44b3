"""A family's document of specs -> the text of its YAML, as upstream's HyperPyYAML reads it.

The text is a function of the family's numbers alone, so its sha256 tells whether a YAML is ours: HyperPyYAML runs what
it reads, and only known text may be read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cosytune.errors import UserError
from cosytune.families import Apply, Family, Name, New, Ref, Shape

_HEADER = "# written by cosytune from the numbers of {title}; edit nothing here, only this exact text is trusted\n"


def render(family: Family, shape: Shape) -> str:
    """The YAML of a model of that shape."""
    return _HEADER.format(title=family.title) + text(family.document(family, shape))


def text(document: Mapping[str, Any]) -> str:
    """A document of specs as HyperPyYAML."""
    return "".join(f"{line}\n" for key, value in document.items() for line in _entry(key, value, indent=0))


def require_known(model_dir: Path, family: Family) -> None:
    """Raise UserError unless the directory's YAML is the published one or one of ours."""
    path = model_dir / family.yaml
    if not path.is_file():
        raise UserError(f"{path}: missing; run stage -1 (setup), or name a model directory with model_dir=PATH")
    if known_shape(path, family) is None:
        raise UserError(
            f"{path}: unknown text, and reading it would run whatever it says; restore the published file "
            f"(sha256 {str(family.published[family.yaml].sha256)[:16]}...) or the one that stage -1 wrote"
        )


def known_shape(path: Path, family: Family) -> Shape | None:
    """The shape that this YAML describes; None when the text is not known or not there."""
    if not path.is_file():
        return None
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest == family.published[family.yaml].sha256:
        return family.real
    for shape in (family.real, family.random, family.tiny):
        if digest == hashlib.sha256(render(family, shape).encode()).hexdigest():
            return shape
    return None


def _entry(key: str, value: Any, indent: int) -> Iterator[str]:
    """The lines of `key: value`, and of what is nested in it."""
    margin = "  " * indent
    if isinstance(value, New | Name):
        word = "new" if isinstance(value, New) else "name"
        yield f"{margin}{key}: !{word}:{value.target}"
        nested: Mapping[str, Any] = value.arguments
    elif isinstance(value, Mapping) and value:
        yield f"{margin}{key}:"
        nested = value
    else:
        yield f"{margin}{key}: {_scalar(value)}"
        return
    for inner_key, inner in nested.items():
        yield from _entry(inner_key, inner, indent + 1)


def _scalar(value: Any) -> str:
    """One value on one line; JSON's notation is YAML's, but for numbers such as 1e-05, which YAML 1.1 reads as text."""
    if isinstance(value, Ref):
        return f"!ref <{value.key}>"
    if isinstance(value, Apply):
        return f"!apply:{value.target} {json.dumps(list(value.arguments))}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_scalar(item) for item in value) + "]"
    if isinstance(value, float):
        return f"{value:.10f}".rstrip("0") if "e" in repr(value) else repr(value)
    return json.dumps(value)
