"""`metadata.csv`, `*.jsonl` and Kaldi directories -> entries: which audio says what, and where that is written."""

from __future__ import annotations

import json
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cosytune import kaldi
from cosytune.audio.folder import AUDIO_SUFFIXES, Folder, printable
from cosytune.errors import UserError
from cosytune.text import read_encoded
from cosytune.text.read import UTF_8

_HEADERS = frozenset({"id", "file", "filename", "file_name", "audio", "audio_file", "wav", "path"})
_KALDI_FILES = ("wav.scp", "text", "utt2spk")
_ALSO_KALDI = ("spk2utt", "utt2dur", "reco2dur", "spk2gender", "utt2num_frames")


@dataclass(frozen=True)
class Entry:
    """One audio file and what a transcript says about it.

    `transcript`: as written, None when there is none. `where`: `file:line` for messages. `name`: what its id is made
    from, `/` between folders. `speaker`: as stated beside it, if it is.
    """

    audio: Path
    transcript: str | None
    where: str
    name: str
    speaker: str | None = None


@dataclass
class Manifest:
    """What one file or Kaldi directory lists; `used`: the files that say so; `encodings`: of those not in UTF-8."""

    entries: list[Entry] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    used: set[Path] = field(default_factory=set)
    encodings: Counter[str] = field(default_factory=Counter)
    _where: dict[Path, str] = field(default_factory=dict)

    def add(self, entry: Entry, shown: str) -> None:
        """List `entry`, or say that its audio (`shown`) is listed already."""
        earlier = self._where.get(entry.audio)
        if earlier is None:
            self._where[entry.audio] = entry.where
            self.entries.append(entry)
        else:
            self.problems.append(f"{entry.where}: {shown} is already in {earlier}; delete one of the two lines")


def read_manifests(folder: Folder, language: str) -> Manifest:
    """All entries of all manifests below the folder."""
    everything = Manifest()
    disk = _Disk()
    for path in folder.files:
        if path.name == "metadata.csv":
            part = _metadata_csv(folder, path, language, disk)
        elif path.suffix.lower() == ".jsonl":
            part = _jsonl(folder, path, language, disk)
        elif path.name == "wav.scp":
            part = _kaldi_directory(folder, path.parent, language, disk)
        else:
            continue
        everything.entries += part.entries
        everything.problems += part.problems
        everything.used |= part.used
        everything.encodings += part.encodings
    return everything


def relative_name(folder: Folder, audio: Path) -> str:
    """What an id is made from: the path below audio/ without its suffix; the bare name for audio elsewhere."""
    inside = audio.relative_to(folder.root) if audio.is_relative_to(folder.root) else Path(audio.name)
    return inside.with_suffix("").as_posix()


def _lines(folder: Folder, path: Path, manifest: Manifest, language: str) -> Iterable[tuple[str, str]]:
    """(`file:line`, line) of every line that is not blank."""
    manifest.used.add(path)
    content = _decode(folder, path, manifest, language)
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            yield f"{folder.show(path)}:{number}", line


def _decode(folder: Folder, path: Path, manifest: Manifest, language: str) -> str:
    """What is in a list; "" and a problem if nobody can tell."""
    try:
        content, encoding = read_encoded(path, folder.show(path), language)
    except UserError as mistake:
        manifest.problems += mistake.messages
        return ""
    if encoding != UTF_8:
        manifest.encodings[encoding] += 1
    return content


def _metadata_csv(folder: Folder, path: Path, language: str, disk: _Disk) -> Manifest:
    """LJSpeech's `id|text` or `id|text|text as read`; the third column, numbers in words, wins when it is there."""
    manifest = Manifest()
    seen: dict[str, str] = {}
    for where, line in _lines(folder, path, manifest, language):
        columns = [column.strip() for column in line.split("|")]
        if not seen and not manifest.problems and columns[0].lower() in _HEADERS:
            continue
        if len(columns) not in (2, 3) or not columns[0]:
            manifest.problems.append(f"{where}: {len(columns)} column(s); write id|text or id|text|text as it is read")
        elif columns[0] in seen:
            first = seen[columns[0]]
            manifest.problems.append(f"{where}: id '{columns[0]}' is already in {first}; delete one of the two lines")
        else:
            seen[columns[0]] = where
            found = disk.clips(path.parent, columns[0])
            if len(found) == 1:
                text = columns[2] if len(columns) == 3 and columns[2] else columns[1]
                manifest.add(Entry(found[0], text, where, relative_name(folder, found[0])), folder.show(found[0]))
            elif found:
                names = " and ".join(folder.show(one) for one in found)
                manifest.problems.append(f"{where}: '{columns[0]}' is both {names}; keep one")
            else:
                manifest.problems.append(
                    f"{where}: no audio '{printable(columns[0])}' in {folder.show(path.parent)} or its wavs/; "
                    "add it or delete the line"
                )
    return manifest


def _jsonl(folder: Folder, path: Path, language: str, disk: _Disk) -> Manifest:
    """One object a line with `audio` (a path, from this file's folder) and `text`; `speaker` may stand beside them."""
    manifest = Manifest()
    for where, line in _lines(folder, path, manifest, language):
        try:
            row = json.loads(line)
        except ValueError as failure:
            manifest.problems.append(f'{where}: not JSON ({failure}); write {{"audio": "a.wav", "text": "..."}}')
            continue
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("audio", "text")):
            manifest.problems.append(f'{where}: no "audio" or no "text"; write {{"audio": "a.wav", "text": "..."}}')
            continue
        audio = disk.first_file(row["audio"], path.parent, folder.root.parent)
        if audio is None:
            manifest.problems.append(f"{where}: no audio {printable(row['audio'])}; add it or delete the line")
        else:
            speaker = str(row["speaker"]) if row.get("speaker") else None
            manifest.add(Entry(audio, row["text"], where, relative_name(folder, audio), speaker), folder.show(audio))
    return manifest


def _kaldi_directory(folder: Folder, directory: Path, language: str, disk: _Disk) -> Manifest:
    """wav.scp, and text and utt2spk where they are. Commands in wav.scp are never run."""
    manifest = Manifest()
    if (directory / "segments").is_file():
        manifest.problems.append(
            f"{folder.show(directory / 'segments')}: recordings cut by a segments file are not read; "
            "cut them first (Kaldi's extract-segments) and delete the file"
        )
    tables = {}
    for name in _KALDI_FILES:
        path = directory / name
        content = _decode(folder, path, manifest, language) if path.is_file() else ""
        tables[name] = kaldi.read_table(path, strict=False, content=content)
        manifest.problems += [problem.replace(str(path), folder.show(path), 1) for problem in tables[name].problems]
    manifest.used |= {directory / name for name in (*_KALDI_FILES, *_ALSO_KALDI) if (directory / name).is_file()}
    wavs, texts, speakers = (tables[name].lines for name in _KALDI_FILES)
    for utt, line in wavs.items():
        where = f"{folder.show(directory / 'wav.scp')}:{line.number}"
        audio = disk.first_file(line.value, directory, folder.root.parent)
        if line.value.endswith("|"):
            manifest.problems.append(f"{where}: '{line.value}' is a command and is not run; write the path of a file")
        elif audio is None:
            manifest.problems.append(f"{where}: no audio {printable(line.value)}; add it or delete the line")
        else:
            inside = directory.relative_to(folder.root).as_posix()
            name = utt if inside == "." else f"{inside}/{utt}"
            if utt in texts:
                where = f"{folder.show(directory / 'text')}:{texts[utt].number}"
            speaker = speakers[utt].value if utt in speakers else None
            text = texts[utt].value if utt in texts else None
            manifest.add(Entry(audio, text, where, name, speaker), folder.show(audio))
    for utt in texts.keys() - wavs.keys():
        where = f"{folder.show(directory / 'text')}:{texts[utt].number}"
        manifest.problems.append(f"{where}: '{utt}' has no audio; add it to wav.scp or delete the line")
    return manifest


class _Disk:
    """The files that manifests name. Lists are long: each directory is read once."""

    def __init__(self) -> None:
        self._listed: dict[Path, _Listing] = {}

    def clips(self, directory: Path, name: str) -> list[Path]:
        """`name` with or without its suffix in wavs/ or beside metadata.csv; more than one if suffixes compete."""
        for place in (directory / "wavs", directory):
            wanted = _normal(place / name)
            if wanted.suffix.lower() in AUDIO_SUFFIXES and (exact := self._file(wanted)):
                return [exact]
            if found := self._list(wanted.parent).clips[_nfc(wanted.name)]:
                return found
        return []

    def first_file(self, value: str, *directories: Path) -> Path | None:
        """`value` as a path from the first of the directories in which it is a file."""
        return next((path for one in directories if (path := self._file(_normal(one / value)))), None)

    def _file(self, path: Path) -> Path | None:
        """The file of that name, whether the disk writes it in NFC or, copied from a Mac, in NFD."""
        if _is_file(path):
            return path
        return next(filter(_is_file, self._list(path.parent).names[_nfc(path.name)]), None)

    def _list(self, directory: Path) -> _Listing:
        if directory not in self._listed:
            self._listed[directory] = _Listing(directory)
        return self._listed[directory]


class _Listing:
    """One directory, sorted: everything by its name and audio by its name without suffix, both in NFC."""

    def __init__(self, directory: Path) -> None:
        self.names: dict[str, list[Path]] = defaultdict(list)
        self.clips: dict[str, list[Path]] = defaultdict(list)
        try:
            paths = sorted(directory.iterdir())
        except (OSError, ValueError):  # not there, or no name that a disk can hold
            paths = []
        for path in paths:
            self.names[_nfc(path.name)].append(path)
            if path.suffix.lower() in AUDIO_SUFFIXES:
                self.clips[_nfc(path.stem)].append(path)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long for any disk
        return False


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _normal(path: Path) -> Path:
    """Without `..`, so that one file has one name."""
    return Path(os.path.normpath(path))
