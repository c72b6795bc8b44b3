"""Entries -> whose voice they are: one speaker's, unless the config says otherwise or it looks otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from cosytune.audio.folder import Folder
from cosytune.audio.manifests import Entry

Choice = Literal["auto", "single", "by_folder"]

_SPEAKER_FOLDER = re.compile(r"(?:spk|speaker)(?:[-_ ]?\d+|[-_ ]\w+|[a-z])?", re.IGNORECASE)


def look_alikes(folder: Folder, entries: Sequence[Entry], transcripts: Iterable[Path]) -> str | None:
    """An error line when the recordings look like several people's, else None.

    They do if two folders in audio/ are named like speakers (SPK1, speaker_2), or if .lab transcripts, as fish-speech
    has them, lie in two of them, or if utt2spk or jsonl name two speakers. Other sub-folders are one person's.
    """
    tops = {top for entry in entries if (top := _top(folder, entry.audio))}
    named = sorted(top for top in tops if _SPEAKER_FOLDER.fullmatch(top))
    labelled = sorted({top for path in transcripts if path.suffix.lower() == ".lab" and (top := _top(folder, path))})
    stated = sorted({entry.speaker for entry in entries if entry.speaker})
    for found, why in (
        (named, "folders named so"),
        (labelled, "folders with .lab transcripts"),
        (stated, "named so in utt2spk or jsonl"),
    ):
        if len(found) > 1:
            listed = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
            return (
                f"{folder.show(folder.root)}: {listed} look like {len(found)} speakers ({why}); choose "
                "audio.speakers=by_folder (each is a speaker) or audio.speakers=single (all are one person)"
            )
    return None


def speaker_of(folder: Folder, entry: Entry, choice: Choice, default: str) -> str | None:
    """The speaker's name; None when `by_folder` finds neither a folder nor a stated speaker."""
    if choice != "by_folder":
        return default
    return entry.speaker or _top(folder, entry.audio)


def _top(folder: Folder, path: Path) -> str | None:
    """The folder in audio/ that `path` lies in, at any depth."""
    parts = path.relative_to(folder.root).parts if path.is_relative_to(folder.root) else ()
    return parts[0] if len(parts) > 1 else None
