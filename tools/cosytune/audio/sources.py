"""A folder of recordings and transcripts in any mix of forms -> sources: audio, id, speaker and text of each clip."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosytune.audio import ids
from cosytune.audio.folder import TRANSCRIPT_SUFFIXES, Folder
from cosytune.audio.manifests import Entry, read_manifests, relative_name
from cosytune.audio.speakers import Choice, look_alikes, speaker_of
from cosytune.errors import UserError
from cosytune.text import clean, is_speakable, normalize, read_encoded
from cosytune.text.read import UTF_8


@dataclass(frozen=True)
class Source:
    """One clip as the user gave it. `name`: its path in reports. `text`: normalised; None without a transcript.

    `written`: the transcript as it was typed, only decoded; None without one.
    """

    audio: Path
    name: str
    utt: str
    speaker: str
    text: str | None
    written: str | None


@dataclass(frozen=True)
class Found:
    """`unused`: files that are neither audio nor a transcript of any. `encodings`: of text files converted to UTF-8,
    name -> files. `changes`: what cleaning took out of the transcripts, kind -> how often.
    """

    sources: list[Source]
    problems: list[str]
    unused: list[str]
    encodings: Counter[str]
    changes: Counter[str]


def find_sources(folder: Folder, speaker: str, choice: Choice, language: str) -> Found:
    """Everything in the folder, sorted by name, and all that is wrong with it as one line each."""
    manifest = read_manifests(folder, language)
    sidecars = _Sidecars(folder, language)
    besides = [entry for audio in folder.audio for entry in sidecars.of(audio)]
    problems = [*folder.problems, *manifest.problems, *sidecars.problems, *_same_stem(folder)]
    entries, clashes = _one_each(folder, [*manifest.entries, *besides])
    problems += clashes
    if choice == "auto" and (alike := look_alikes(folder, entries, sidecars.used)):
        problems.append(alike)
    problems += [
        f"{entry.where}: empty transcript; write what is said, or remove it to have the recording transcribed"
        for entry in entries
        if entry.transcript is not None and not is_speakable(clean(entry.transcript).text)
    ]
    sources, homeless = _sources(folder, entries, speaker, choice, language)
    used = {entry.audio for entry in entries} | manifest.used | sidecars.used
    return Found(
        sources,
        problems + homeless,
        [folder.name(path) for path in folder.files if path not in used],
        manifest.encodings + sidecars.encodings,
        sum((clean(source.written).changes for source in sources if source.written is not None), Counter()),
    )


class _Sidecars:
    """X.txt or X.lab beside X.wav; macOS and zip files disagree on NFC and NFD, so names are compared in NFC."""

    def __init__(self, folder: Folder, language: str) -> None:
        self.folder = folder
        self.language = language
        self.problems: list[str] = []
        self.used: set[Path] = set()
        self.encodings: Counter[str] = Counter()
        self._by_stem: dict[tuple[Path, str], list[Path]] = defaultdict(list)
        for path in folder.files:
            if path.suffix.lower() in TRANSCRIPT_SUFFIXES:
                self._by_stem[_stem(path)].append(path)

    def of(self, audio: Path) -> list[Entry]:
        """An entry for each transcript beside `audio`, or one without a transcript."""
        name = relative_name(self.folder, audio)
        found = self._by_stem.get(_stem(audio), [])
        exact = [path for path in found if path.stem == audio.stem]
        entries = []
        for path in exact or found:
            self.used.add(path)
            try:
                text, encoding = read_encoded(path, self.folder.show(path), self.language)
            except UserError as mistake:
                self.problems += mistake.messages
                text, encoding = "unreadable", UTF_8  # not empty and not missing: the encoding is the one problem
            if encoding != UTF_8:
                self.encodings[encoding] += 1
            entries.append(Entry(audio, text, self.folder.show(path), name))
        return entries or [Entry(audio, None, self.folder.show(audio), name)]


def _stem(path: Path) -> tuple[Path, str]:
    return path.parent, unicodedata.normalize("NFC", path.stem)


def _same_stem(folder: Folder) -> list[str]:
    """X.wav and X.mp3 in one folder: which one is meant?"""
    by_stem: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path in folder.audio:
        by_stem[path.parent, path.stem].append(path)
    return [
        f"{folder.show(paths[0])}: one id twice, the other is {folder.show(paths[1])}; keep one of them"
        for paths in by_stem.values()
        if len(paths) > 1
    ]


def _one_each(folder: Folder, entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """One entry per audio file: what several places say of it must be the same; a manifest's id comes first."""
    by_audio: dict[Path, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_audio[entry.audio].append(entry)
    chosen, problems = [], []
    for audio, several in sorted(by_audio.items(), key=lambda item: folder.name(item[0])):
        said = [entry for entry in several if entry.transcript is not None]
        texts = {clean(entry.transcript or "").text for entry in said}
        if len(texts) > 1:
            places = " and ".join(entry.where for entry in said)
            problems.append(f"{folder.show(audio)}: two different transcripts, {places}; keep one of them")
        first = several[0]
        best = said[0] if said else first
        chosen.append(Entry(audio, best.transcript, best.where, first.name, first.speaker))
    return chosen, problems


def _sources(
    folder: Folder, entries: Sequence[Entry], default: str, choice: Choice, language: str
) -> tuple[list[Source], list[str]]:
    speakers = [speaker_of(folder, entry, choice, default) for entry in entries]
    homeless = [
        f"{folder.show(entry.audio)}: in no speaker's folder; move it into one, or set audio.speakers=single"
        for entry, speaker in zip(entries, speakers, strict=True)
        if speaker is None
    ]
    known = _speaker_ids(speaker for speaker in speakers if speaker is not None)
    owned = [(entry, speaker) for entry, speaker in zip(entries, speakers, strict=True) if speaker is not None]
    below = "{}/" if choice == "by_folder" else ""
    names = [f"{known[speaker]}-{entry.name.removeprefix(below.format(speaker))}" for entry, speaker in owned]
    files = [folder.name(entry.audio) for entry, _ in owned]
    utts = ids.make_unique(names, files)
    sources = [
        Source(
            entry.audio,
            file,
            utt,
            known[speaker],
            None if entry.transcript is None else normalize(entry.transcript, language),
            entry.transcript,
        )
        for (entry, speaker), file, utt in zip(owned, files, utts, strict=True)
    ]
    return sources, homeless


def _speaker_ids(speakers: Iterable[str]) -> dict[str, str]:
    """Speaker -> id: two people never become one because `a b` and `a_b` are written alike."""
    ordered = sorted(set(speakers))
    known = ids.make_unique(ordered, ordered)
    while (apart := _apart(known)) != known:
        known = ids.make_unique(apart, ordered)
    return dict(zip(ordered, known, strict=True))


def _apart(speakers: Sequence[str]) -> list[str]:
    """Ids that sort alike alone and with `-clip` behind them, as Kaldi wants it of utt2spk.

    Beside `a`, `a-b` and `a(old)` do not: clips of `a` would come before, between and after theirs. What follows the
    shorter id in the longer one is written as `_`, which sorts behind `-`.
    """
    known = set(speakers)
    return [
        "".join(
            "_" if position and character <= "-" and speaker[:position] in known else character
            for position, character in enumerate(speaker)
        )
        for speaker in speakers
    ]
