"""A directory `voice/` -> its speakers, its origin, and whether a byte of it has changed.

python -m cosytune.voice verify egs/demo/voice

Layout (paths inside are relative, so that the bundle can be moved):

    speaker_config.json  speakers_config.json  llm.pt  flow.pt  spk2info.pt  spk2embedding.pt
    adapters/{llm,flow,vllm}/  reference/<speaker>.wav  scores.json  versions.json
    README.md  LICENSE  consent.json  manifest.json
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosytune import files
from cosytune.errors import UserError

MANIFEST = "manifest.json"
SPEAKERS = "speaker_config.json"
VERSIONS = "versions.json"
_FORMAT = 1


@dataclass(frozen=True)
class Voice:
    """A bundle as its own files describe it. `versions` says what it was made from: see `cosytune.voice.origin`."""

    root: Path
    speakers: Mapping[str, Mapping[str, Any]]
    default_speaker: str
    versions: Mapping[str, Any]

    def speaker(self, name: str | None) -> str:
        """`name`, or the default speaker; raises UserError for a name that the bundle does not have."""
        if name is None:
            return self.default_speaker
        if name not in self.speakers:
            raise UserError(f"{self.root}: no speaker '{name}'; it has: {', '.join(self.speakers)}")
        return name

    def weights(self, module: str) -> Path | None:
        """The merged `llm.pt` or `flow.pt`, a drop-in file for upstream; None in a bundle of adapters alone."""
        path = self.root / f"{module}.pt"
        return path if path.is_file() else None

    def adapter(self, module: str) -> Path | None:
        """The PEFT adapter of one module; None if that module was not trained."""
        path = self.root / "adapters" / module
        return path if path.is_dir() else None


@dataclass(frozen=True)
class Check:
    """What a comparison with the manifest found; names are relative to the bundle. `digest` names the whole bundle."""

    files: int
    digest: str
    changed: list[str]
    missing: list[str]
    extra: list[str]

    @property
    def ok(self) -> bool:
        return not (self.changed or self.missing or self.extra)

    def problems(self) -> list[str]:
        """One line for every file that is not as it was."""
        named = (("changed", self.changed), ("missing", self.missing), ("not in the manifest", self.extra))
        return [f"{name}: {what}" for what, names in named for name in names]


def read(root: Path) -> Voice:
    """The bundle at `root`; raises UserError when it is none."""
    _require_bundle(root)
    config = _object(root / SPEAKERS)
    speakers, default = config.get("speakers"), config.get("default_speaker")
    if not isinstance(speakers, dict) or not isinstance(default, str) or default not in speakers:
        raise UserError(f"{root / SPEAKERS}: no default speaker in it; copy the bundle again, or run stage 6")
    return Voice(root, speakers, default, _object(root / VERSIONS))


def seal(root: Path) -> Check:
    """Write the manifest over everything below `root`; the last step of making a bundle."""
    entries = {
        name: {"bytes": (root / name).stat().st_size, "sha256": files.sha256(root / name)} for name in _names(root)
    }
    files.write_json(root / MANIFEST, {"format": _FORMAT, "files": entries})
    return Check(len(entries), files.sha256(root / MANIFEST), [], [], [])


def check(root: Path) -> Check:
    """Compare every file with the manifest, by sha256; raises UserError when there is no readable manifest."""
    _require_bundle(root)
    listed = _object(root / MANIFEST).get("files")
    if not isinstance(listed, dict) or not all(isinstance(entry, dict) for entry in listed.values()):
        raise UserError(f"{root / MANIFEST}: lists no files; copy the bundle again, or run stage 6")
    present = set(_names(root))
    return Check(
        files=len(listed),
        digest=files.sha256(root / MANIFEST),
        changed=sorted(name for name in listed.keys() & present if _differs(root / name, listed[name])),
        missing=sorted(listed.keys() - present),
        extra=sorted(present - listed.keys()),
    )


def require_whole(root: Path) -> Check:
    """`check`, as an error: a flipped bit in a weights file would load without a word and be heard as noise."""
    result = check(root)
    broken = [f"{root / name}: {what}" for what, names in _broken(result) for name in names]
    if broken:
        raise UserError(*broken, f"{root}: {len(broken)} files are not as stage 6 wrote them; copy the bundle again")
    return result


def _require_bundle(root: Path) -> None:
    if not root.is_dir():
        raise UserError(f"{root}: no such voice; make one with ./run.sh egs/<speaker>")
    if not (root / MANIFEST).is_file():
        raise UserError(f"{root}: not a voice bundle (no {MANIFEST}); name a voice/ directory that stage 6 wrote")


def _broken(result: Check) -> tuple[tuple[str, list[str]], ...]:
    """An extra file harms nobody; a changed or missing one does."""
    return ("changed since it was made", result.changed), ("missing", result.missing)


def _differs(path: Path, entry: Mapping[str, Any]) -> bool:
    """Size first: it spares the hashing of a truncated file of 2 GB."""
    return path.stat().st_size != entry.get("bytes") or files.sha256(path) != entry.get("sha256")


def _names(root: Path) -> list[str]:
    """Every file below `root` but the manifest, with forward slashes, sorted."""
    found = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file() or path.is_symlink())
    return sorted(name for name in found if name != MANIFEST)


def _object(path: Path) -> dict[str, Any]:
    try:
        value = files.read_json(path)
    except FileNotFoundError:
        raise UserError(f"{path}: missing; copy the bundle again, or run stage 6") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as failure:
        raise UserError(f"{path}: not readable as JSON ({failure}); copy the bundle again, or run stage 6") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected an object; copy the bundle again, or run stage 6")
    return value
