"""cosyvoice_patches/<commit>/ -> what upstream's files must hash to, before and after every patch.

manifest.sha256     sha256 of each of upstream's files, as `sha256sum` writes it
series              the patches, in order, one name a line
series.sha256       `sha256  patch  file`: what a patched file hashes to once that patch is on
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cosytune.layout import PATCHES

COMMIT = "6e01309e01bc93bbeb83bdd996b1182a81aaf11e"
COSYVOICE = "cosyvoice"
MATCHA_SUBMODULE = "third_party/Matcha-TTS"
MATCHA = f"{MATCHA_SUBMODULE}/matcha"
PACKAGES = (COSYVOICE, MATCHA)
"""The parts of a checkout that are ours to judge: what upstream's models and trainer import."""


@dataclass(frozen=True)
class Pin:
    """One upstream commit: its directory of patches and hashes."""

    commit: str
    directory: Path

    @property
    def name(self) -> str:
        return f"CosyVoice-{self.commit[:7]}"

    @cached_property
    def pristine(self) -> Mapping[str, str]:
        """Path in the checkout -> sha256 of the file as upstream has it."""
        lines = _lines(self.directory / "manifest.sha256")
        return {path: digest for digest, path in (line.split("  ", 1) for line in lines)}

    @cached_property
    def patches(self) -> tuple[Path, ...]:
        return tuple(self.directory / name for name in _lines(self.directory / "series"))

    @property
    def recorded(self) -> Path:
        """Where the hashes of the patched files stand."""
        return self.directory / "series.sha256"

    @cached_property
    def histories(self) -> Mapping[str, tuple[str, ...]]:
        """Path -> its sha256 after 0, 1, 2, ... patches; for a file that no patch touches, the same every time."""
        after: dict[str, dict[str, str]] = {path.name: {} for path in self.patches}
        for line in _lines(self.recorded):
            digest, patch, path = line.split("  ", 2)
            after[patch][path] = digest
        histories = {path: [digest] for path, digest in self.pristine.items()}
        for changes in after.values():
            for path, history in histories.items():
                history.append(changes.get(path, history[-1]))
        return {path: tuple(history) for path, history in histories.items()}

    @property
    def patched(self) -> Mapping[str, str]:
        """Path -> sha256 of the file with every patch on."""
        return {path: history[-1] for path, history in self.histories.items()}

    @property
    def touched(self) -> tuple[str, ...]:
        """The files that the patches change."""
        return tuple(path for path, history in self.histories.items() if len(set(history)) > 1)


PINNED = Pin(COMMIT, PATCHES / COMMIT)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _lines(path: Path) -> Iterator[str]:
    return (line for line in path.read_text(encoding="utf-8").splitlines() if line)
