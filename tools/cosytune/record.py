"""What a finished stage was made from: a small JSON file, by which a second run knows that there is nothing to do.

A stage is current when its settings, every file that it read and every file that it wrote are still the same by
sha256. Size and modification time spare the hashing of a file that nobody touched.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosytune import files
from cosytune.layout import ROOT, Layout
from cosytune.schema import Config
from cosytune.stages import Stage


@dataclass(frozen=True)
class FileState:
    """One file as it was: bytes, nanoseconds since the epoch, hex sha256."""

    size: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path, known: FileState | None = None) -> FileState:
        """The state now; the hash of `known` is trusted when size and time agree with it."""
        stat = path.stat()
        if known is not None and (known.size, known.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
            return known
        return cls(stat.st_size, stat.st_mtime_ns, files.sha256(path))


@dataclass(frozen=True)
class Change:
    """A setting that a finished stage has used with another value; both as Python writes them."""

    key: str
    was: str
    now: str

    def __str__(self) -> str:
        return f"{self.key} was {self.was}, is {self.now}"

    @property
    def restoring(self) -> str:
        """The `key=value` that brings the former value back, quoted for a shell."""
        value = {"None": "null", "True": "true", "False": "false"}.get(self.was, self.was)
        return f"{self.key}={value}" if value.startswith("'") else shlex.quote(f"{self.key}={value}")


@dataclass(frozen=True)
class Record:
    """The settings, inputs and outputs of a finished stage. Paths are relative to the recipe or the root."""

    settings: dict[str, Any]
    inputs: dict[str, FileState]
    outputs: dict[str, FileState]

    @staticmethod
    def path(layout: Layout, stage: Stage) -> Path:
        return (layout.recipe / "data" if stage.is_shared else layout.exp_dir) / "done" / f"{stage.name}.json"

    @classmethod
    def read(cls, layout: Layout, stage: Stage) -> Record | None:
        path = cls.path(layout, stage)
        if not path.is_file():
            return None
        try:
            value = files.read_json(path)
            states = {part: {name: FileState(**state) for name, state in value[part].items()} for part in _PARTS}
            return cls(settings=value["settings"], **states)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None  # damaged or of another version: the stage cannot be called done

    @classmethod
    def has_begun(cls, layout: Layout, stage: Stage) -> bool:
        """Whether the stage was begun and is not finished, be it at work or dead."""
        return cls.path(layout, stage).exists() and cls.read(layout, stage) is None

    @classmethod
    def begin(cls, layout: Layout, stage: Stage) -> None:
        """Leave, in place of the record, a word that the outputs are being changed."""
        files.write_json(cls.path(layout, stage), {"stage": stage.name, "finished": False})

    def write(self, layout: Layout, stage: Stage) -> None:
        value = {part: {name: vars(state) for name, state in getattr(self, part).items()} for part in _PARTS}
        files.write_json(self.path(layout, stage), {"stage": stage.name, "settings": self.settings, **value})

    def changed_settings(self, now: Mapping[str, Any]) -> list[Change]:
        """The settings that are not as the stage has used them."""
        keys = sorted(self.settings.keys() | now.keys())
        changes = (Change(key, repr(self.settings.get(key)), repr(now.get(key))) for key in keys)
        return [change for change in changes if change.was != change.now]

    def stale_reason(self, layout: Layout, settings: Mapping[str, Any], inputs: Iterable[Path]) -> str | None:
        """Why the stage must run again, in a few words; None if everything is as it was."""
        changed = self.changed_settings(settings)
        if changed:
            return str(changed[0])
        now = {_name(layout, path): path for path in inputs}
        if missing := sorted(self.inputs.keys() - now.keys()):
            return f"{missing[0]} is gone"
        if added := sorted(now.keys() - self.inputs.keys()):
            return f"{added[0]} is new"
        for part, paths in (
            (self.inputs, now),
            (self.outputs, {name: path_of(layout, name) for name in self.outputs}),
        ):
            for name, path in paths.items():
                if not path.is_file():
                    return f"{name} is gone"
                if FileState.of(path, part[name]).sha256 != part[name].sha256:
                    return f"{name} has changed"
        return None


_PARTS = ("inputs", "outputs")


def flatten(config: Config, uses: Sequence[str]) -> dict[str, Any]:
    """The settings below the given keys or sections, as `{"train.llm.learning_rate": 0.0001}`."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{prefix}.{key}", inner)
        else:
            flat[prefix] = value

    values = config.model_dump(mode="json")
    for key in uses:
        value: Any = values
        for part in key.split("."):
            value = value[part]
        walk(key, value)
    return flat


def capture(
    layout: Layout, paths: Iterable[Path], known: Mapping[str, FileState] | None = None
) -> dict[str, FileState]:
    """The state of every given file, by name."""
    known = known or {}
    named = {_name(layout, path): path for path in sorted(paths)}
    return {name: FileState.of(path, known.get(name)) for name, path in named.items()}


def path_of(layout: Layout, name: str) -> Path:
    """The file that a record calls `name`."""
    return next((base / name for base in (layout.recipe, ROOT) if (base / name).exists()), layout.recipe / name)


def _name(layout: Layout, path: Path) -> str:
    """Relative where possible: a repository that was moved, or mounted in a container, has nothing to do again."""
    for base in (layout.recipe, ROOT):
        if path.is_relative_to(base):
            return str(path.relative_to(base))
    return str(path)
