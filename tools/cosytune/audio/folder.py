"""A folder of recordings -> the files in it, sorted, and what is wrong with their names or links."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

AUDIO_SUFFIXES = frozenset({".wav", ".mp3", ".flac", ".m4a", ".ogg", ".opus", ".aac", ".aif", ".aiff", ".wma"})
TRANSCRIPT_SUFFIXES = frozenset({".txt", ".lab"})


@dataclass(frozen=True)
class Folder:
    """`files`: every visible file below `root` (`egs/<speaker>/audio`), links followed, sorted by code point."""

    root: Path
    files: list[Path]
    problems: list[str]

    def name(self, path: Path) -> str:
        """How a report names `path`: from the recipe's directory where it lies in it (`audio/a.wav`)."""
        return path.relative_to(self.root.parent).as_posix() if path.is_relative_to(self.root.parent) else str(path)

    def show(self, path: Path) -> str:
        """`name` on one line, whatever control characters are in it, for messages."""
        return printable(self.name(path))

    @property
    def audio(self) -> list[Path]:
        return [path for path in self.files if path.suffix.lower() in AUDIO_SUFFIXES]


def printable(name: str) -> str:
    """`name` without line breaks and other control characters, and without bytes that are not UTF-8."""
    return "".join(
        character if character.isprintable() or character == "\u3000" else character.encode("unicode_escape").decode()
        for character in name
    )


def scan(root: Path) -> Folder:
    """Every file below `root`. Hidden files and macOS's `__MACOSX` are no recordings and are passed over."""
    folder = Folder(root, [], [])
    if not root.exists():
        return folder
    for directory, subdirectories, names in os.walk(root, followlinks=True, onerror=lambda e: _refuse(folder, e)):
        here = Path(directory)
        subdirectories[:] = sorted(
            name for name in subdirectories if _is_visible(name) and _leads_on(folder, here / name)
        )
        for name in filter(_is_visible, names):
            problem = _problem(here / name)
            if problem is None:
                folder.files.append(here / name)
            else:
                folder.problems.append(f"{folder.show(here / name)}: {problem}")
    folder.files.sort(key=folder.name)
    folder.problems.sort()
    return folder


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def _leads_on(folder: Folder, directory: Path) -> bool:
    """False for a link back to a directory that it lies in, which would never end."""
    if directory.is_symlink() and directory.parent.resolve().is_relative_to(directory.resolve()):
        folder.problems.append(f"{folder.show(directory)}: a link to a folder that it lies in; remove it")
        return False
    return True


def _problem(path: Path) -> str | None:
    try:
        path.name.encode()
    except UnicodeEncodeError:
        return "the file name is not UTF-8; rename it (Japanese Windows: convmv -r -f CP932 -t UTF-8 --notest audio)"
    if path.is_file():
        return None
    if path.is_symlink():
        return "a link to a file that is not there; copy the file itself here or remove the link"
    return "not a regular file; remove it"


def _refuse(folder: Folder, failure: OSError) -> None:
    folder.problems.append(f"{printable(str(failure.filename))}: {failure.strerror}; make it readable (chmod -R u+rX)")
