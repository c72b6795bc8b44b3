"""What a model said of a clip, kept by the content of the clip: a second run asks only about what is new.

A file of lines, each `<checksum> <JSON of [sha256 of the clip, value]>`. The checksum also covers who made the value
(model, arithmetic, provider), so a line that is damaged, cut off or of another maker is no answer. Lines are appended
as values come: a run that is killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from io import BufferedWriter
from pathlib import Path
from typing import Any

from cosytune import base, files
from cosytune.schema import Config

ARITHMETIC = 1
"""Grows when the same model would say something else of the same clip: what is kept of former runs is then void."""


def maker(config: Config, model: str) -> str:
    """Who made a value: the model file by its content, the arithmetic around it, where it was asked to run."""
    return f"{base.hashes(base.locate(config))[model]} {ARITHMETIC} {config.features.provider}"


class Store:
    """The values of one kind; `close` writes the file anew with just the clips that there are."""

    def __init__(self, path: Path, maker: str, again: bool = False) -> None:
        self._path, self._maker = path, maker
        if again:
            path.unlink(missing_ok=True)
        self._lines = self._read()
        self._stream: BufferedWriter | None = None

    def __contains__(self, clip: str) -> bool:
        return clip in self._lines

    def __getitem__(self, clip: str) -> list[Any]:
        """A list of its own on every call: pickle writes a list that two clips share in another way."""
        value: list[Any] = json.loads(self._lines[clip].partition(b" ")[2])[1]
        return value

    def add(self, clip: str, value: list[Any]) -> None:
        """Note it, on the disk as well."""
        line = self._line(json.dumps([clip, value]).encode())
        self._lines[clip] = line
        if self._stream is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self._path.open("ab")
            self._stream.write(b"\n")  # a run that was killed may have left half a line
        self._stream.write(line + b"\n")
        self._stream.flush()

    def close(self, clips: Collection[str]) -> None:
        """Forget every clip but these."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        self._lines = {clip: self._lines[clip] for clip in sorted(self._lines.keys() & set(clips))}
        files.write_bytes(self._path, b"".join(line + b"\n" for line in self._lines.values()))

    def _read(self) -> dict[str, bytes]:
        lines = {}
        for line in self._path.read_bytes().split(b"\n") if self._path.is_file() else []:
            content = line.partition(b" ")[2]
            if line and line == self._line(content):
                lines[str(json.loads(content)[0])] = line
        return lines

    def _line(self, content: bytes) -> bytes:
        check = hashlib.sha256(self._maker.encode() + b"\n" + content).hexdigest()[:16]
        return check.encode() + b" " + content
