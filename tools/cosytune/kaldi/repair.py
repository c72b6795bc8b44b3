"""A data directory with mistakes -> the same one without those that can be mended without a guess.

Every file that changes is first copied to `.backup-<UTC time>-N/` in the directory; audio is left alone. What needs
a person (two transcripts of one id, a pipe command, a missing wav) is left for `validate` to name.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from cosytune import files
from cosytune.kaldi import headers, optional
from cosytune.kaldi.checks import resolve
from cosytune.kaldi.mend import Mended, mend
from cosytune.kaldi.model import RECORDINGS

_NEEDED = {"wav.scp": "no audio", "text": "no transcript", "utt2spk": "no speaker"}


def repair(directory: Path) -> list[str]:
    """What was changed, one line each, and last the balance of utterances; only one line when nothing was."""
    names = (*_NEEDED, "utt2dur", RECORDINGS, *optional.NAMES)
    tables = {
        name: mended
        for name in names
        if (directory / name).is_file() and (mended := mend(directory / name, is_path=name.endswith(".scp")))
    }
    if missing := [name for name in _NEEDED if name not in tables]:
        return [f"{directory / name}: not there or not readable, nothing was changed" for name in missing]
    dropped = _drop(tables)
    _mend_durations(directory, tables)
    if RECORDINGS in tables:
        _add_recordings(tables)
    contents = {name: mended.content for name, mended in tables.items()} | {"spk2utt": _spk2utt(tables["utt2spk"])}
    changed = {name: new for name, new in contents.items() if _bytes(directory / name) != new}
    kept = len(tables["wav.scp"].ids)
    reasons = "".join(f" + {count} dropped ({reason})" for reason, count in sorted(Counter(dropped.values()).items()))
    balance = f"{kept + len(dropped)} utterances = {kept} kept{reasons}"
    if not changed:
        return [f"{directory}: {balance}; nothing to mend"]
    backup = _back_up(directory, [directory / name for name in changed])
    for name, new in changed.items():
        files.write_bytes(directory / name, new)
    changes = [change for name, mended in tables.items() if name in changed for change in mended.changes]
    if "spk2utt" in changed:
        changes.append(f"{directory / 'spk2utt'}:1: made from utt2spk")
    return [*changes, f"{directory}: {balance}; {len(changed)} files changed, the former ones are in {backup}"]


def _drop(tables: Mapping[str, Mended]) -> dict[str, str]:
    """`{utt: reason}` of utterances that cannot be: their lines leave every file."""
    there = {name: {key for key, value in tables[name].lines if value} for name in _NEEDED}
    dropped: dict[str, str] = {}
    for utt in sorted(set().union(*(tables[name].ids for name in _NEEDED))):
        lacks = [reason for name, reason in _NEEDED.items() if utt not in there[name]]
        if lacks:
            dropped[utt] = lacks[0]
    kept = tables["wav.scp"].ids - dropped.keys()
    of_utterances = (*_NEEDED, "utt2dur", RECORDINGS, *optional.OF_UTTERANCES)
    for name in (one for one in of_utterances if one in tables):
        for utt in sorted(tables[name].ids - kept):
            tables[name].note(1, f"'{utt}' dropped: {dropped.get(utt, 'no audio')}")
        tables[name].drop(tables[name].ids - kept)
    return dropped


def _mend_durations(directory: Path, tables: dict[str, Mended]) -> None:
    """The audio's own duration where utt2dur says another, or nothing."""
    table = tables.setdefault("utt2dur", Mended(directory / "utt2dur"))
    stated = dict(table.lines)
    for utt, path in tables["wav.scp"].lines:
        header = None if path.endswith("|") else headers.read_header(resolve(directory, path))
        if header and header.frames and headers.differs(stated.get(utt, ""), header.duration_s):
            table.note(1, f"'{utt}': {stated.get(utt, 'nothing')} made {header.duration_s:.6f}, as its audio lasts")
            stated[utt] = f"{header.duration_s:.6f}"
    table.lines = sorted(stated.items())


def _add_recordings(tables: Mapping[str, Mended]) -> None:
    """A clip without a recording is its own."""
    table = tables[RECORDINGS]
    for utt in sorted(tables["wav.scp"].ids - table.ids):
        table.note(1, f"'{utt}' added as a recording of its own")
        table.lines.append((utt, utt))
    table.lines.sort(key=lambda one: one[0])


def _spk2utt(utt2spk: Mended) -> bytes:
    grouped: dict[str, list[str]] = {}
    for utt, speaker in utt2spk.lines:
        grouped.setdefault(speaker, []).append(utt)
    return "".join(f"{speaker} {' '.join(sorted(utts))}\n" for speaker, utts in sorted(grouped.items())).encode()


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _back_up(directory: Path, paths: list[Path]) -> Path:
    """Copies in a folder that was not there before."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    number = 1
    while (folder := directory / f".backup-{stamp}-{number}").exists():
        number += 1
    folder.mkdir()
    for path in paths:
        if path.is_file():
            shutil.copy2(path, folder / path.name)
            files.fsync(folder / path.name)
    return folder
