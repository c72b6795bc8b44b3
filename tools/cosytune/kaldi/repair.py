"""A data directory with mistakes -> the same one without those that can be mended without a guess.

Every file that changes is first copied to `.backup-<UTC time>-N/` in the directory; audio is left alone. What needs
a person (two transcripts of one id, a pipe command, a wav that is gone or cut short) is left for `validate` to name.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from cosytune import files
from cosytune.kaldi import headers, optional
from cosytune.kaldi.checks import resolve
from cosytune.kaldi.mend import Mended, mend
from cosytune.kaldi.model import ORIGINALS, RECORDINGS

_NEEDED = {"wav.scp": "no audio", "text": "no transcript", "utt2spk": "no speaker"}
_AS_TYPED = ("wav.scp", "feats.scp", "vad.scp", "cmvn.scp", ORIGINALS)


def repair(directory: Path) -> list[str]:
    """What was changed, one line each, and last the balance of utterances; only one line when nothing was.

    A run that was killed has written some files whole: the next one finds what is left and finishes.
    """
    names = (*_NEEDED, "utt2dur", RECORDINGS, *optional.NAMES)
    tables = {
        name: mended
        for name in names
        if (directory / name).is_file() and (mended := mend(directory / name, as_typed=name in _AS_TYPED))
    }
    if missing := [name for name in _NEEDED if name not in tables]:
        return [f"{directory / name}: not there or not readable, nothing was changed" for name in missing]
    dropped = _drop(tables)
    balance = _balance(len(tables["wav.scp"].ids), dropped)
    if not tables["wav.scp"].lines:
        return [f"{directory}: {balance}; that is no repair, nothing was changed"]
    _mend_durations(directory, tables)
    if RECORDINGS in tables:
        own = {utt: utt for utt in sorted(tables["wav.scp"].ids - tables[RECORDINGS].ids)}
        tables[RECORDINGS].add(own, "a recording of its own")
    contents = {name: mended.content for name, mended in tables.items()} | {"spk2utt": _spk2utt(tables["utt2spk"])}
    changed = {name: new for name, new in contents.items() if _bytes(directory / name) != new}
    if not changed:
        return [f"{directory}: {balance}; nothing to mend"]
    backup = _back_up(directory, [directory / name for name in changed])
    for name, new in changed.items():
        files.write_bytes(directory / name, new)
    changes = [change for name, mended in tables.items() if name in changed for change in mended.changes]
    if "spk2utt" in changed:
        changes.append(f"{directory / 'spk2utt'}: made from utt2spk")
    return [*changes, f"{directory}: {balance}; {len(changed)} files changed, the former ones are in {backup}"]


def _balance(kept: int, dropped: Mapping[str, str]) -> str:
    reasons = "".join(f" + {count} dropped ({reason})" for reason, count in sorted(Counter(dropped.values()).items()))
    return f"{kept + len(dropped)} utterances = {kept} kept{reasons}"


def _drop(tables: Mapping[str, Mended]) -> dict[str, str]:
    """`{utt: reason}` of utterances that cannot be: their lines leave every file, and their speakers' with the last."""
    there = {name: {line.key for line in tables[name].lines if line.value} for name in _NEEDED}
    dropped: dict[str, str] = {}
    for utt in sorted(set().union(*(tables[name].ids for name in _NEEDED))):
        lacks = [reason for name, reason in _NEEDED.items() if utt not in there[name]]
        if lacks:
            dropped[utt] = lacks[0]
    kept = tables["wav.scp"].ids - dropped.keys()
    for name in (*_NEEDED, "utt2dur", RECORDINGS, *optional.OF_UTTERANCES, *optional.OF_RECORDINGS):
        if name in tables:
            tables[name].drop(tables[name].ids - kept, lambda utt: dropped.get(utt, "no audio"))
    speakers = {line.value for line in tables["utt2spk"].lines}
    for name in optional.OF_SPEAKERS:
        if name in tables:
            tables[name].drop(tables[name].ids - speakers, lambda _: "no utterance of this speaker")
    return dropped


def _mend_durations(directory: Path, tables: dict[str, Mended]) -> None:
    """The audio's own duration where utt2dur says nothing, or another that is near it."""
    table = tables.setdefault("utt2dur", Mended(directory / "utt2dur"))
    real = dict(_durations(directory, tables["wav.scp"]))
    for place, line in enumerate(table.lines):
        if line.key not in real or headers.is_far(line.value, real[line.key]):
            continue
        if headers.differs(line.value, real[line.key]):
            table.lines[place] = replace(line, value=f"{real[line.key]:.6f}")
            table.note(line.number, f"'{line.key}': {line.value} made {real[line.key]:.6f}, as its audio lasts")
    table.add({utt: f"{real[utt]:.6f}" for utt in real.keys() - table.ids}, "as its audio lasts")


def _durations(directory: Path, wavs: Mended) -> Iterator[tuple[str, float]]:
    """Utterance -> seconds, of the audio that is whole: the length of what is left of a clip is not the clip's."""
    from cosytune.audio.probe import Broken

    for line in wavs.lines:
        if line.value.endswith("|"):
            continue
        header = headers.read_header(resolve(directory, line.value))
        if not isinstance(header, Broken):
            yield line.key, header.duration_s


def _spk2utt(utt2spk: Mended) -> bytes:
    grouped: dict[str, list[str]] = {}
    for line in utt2spk.lines:
        grouped.setdefault(line.value, []).append(line.key)
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
    files.fsync(folder)
    files.fsync(directory)
    return folder
