"""What was computed from a recording -> a JSON file, found again by everything that it depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cosytune import files

Value = TypeVar("Value")


@dataclass(frozen=True)
class Cache:
    """JSON files in `directory`, which nothing else uses; a file that cannot be read counts as not there."""

    directory: Path

    def get(self, key: str, parse: Callable[[Any], Value]) -> Value | None:
        """The value that was put under `key`, through `parse`; None when there is none or it is damaged."""
        try:
            return parse(files.read_json(self._path(key)))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def put(self, key: str, value: Any) -> None:
        files.write_json(self._path(key), value)

    def _path(self, key: str) -> Path:
        return self.directory / f"{key}.json"


def key(kind: str, *parts: Any) -> str:
    """A file name for JSON-able parts; the version in it changes whenever the same parts would give another result."""
    text = json.dumps(["1", *parts], ensure_ascii=False, sort_keys=True)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:40]}"
