"""Tables of a data directory -> what Kaldi's own tools or upstream's readers would trip over; no audio is opened.

The rules are those of Kaldi's validate_data_dir.sh and validate_text.pl (Apache-2.0, read, not run), and more: a path
is one word, because upstream splits lines at white space.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path

from cosytune.kaldi.checks import resolve
from cosytune.kaldi.tables import Table

_RESERVED = ("<s>", "</s>", "#0")


def check_bytes(path: Path) -> Iterator[str]:
    """Line ends, a byte order mark, characters that cannot be seen, and forms of Unicode other than NFC."""
    raw = path.read_bytes()
    if not raw:
        yield f"{path}:1: an empty file; write its lines or delete it"
        return
    if raw.startswith(b"\xef\xbb\xbf"):
        yield f"{path}:1: a byte order mark; --repair takes it out"
    if not raw.endswith(b"\n"):
        last = raw.count(b"\n") + 1
        yield f"{path}:{last}: the last line has no line end; --repair adds it"
    for number, line in enumerate(raw.decode("utf-8", errors="ignore").split("\n"), start=1):
        place = f"{path}:{number}"
        if line.endswith("\r"):
            yield f"{place}: a Windows line end (CR); --repair takes it out"
        for character in sorted(set(line.removesuffix("\r").removeprefix("\ufeff"))):
            if is_odd(character):
                name = unicodedata.name(character, "a control character")
                yield f"{place}: U+{ord(character):04X} ({name}) cannot be seen; --repair takes it out"
        if not unicodedata.is_normalized("NFC", line):
            yield f"{place}: letters and marks that are not composed (NFC); --repair composes them"


def is_odd(character: str) -> bool:
    """White space other than a space, and control characters. A tab and NUL are the table's own problems."""
    if character in " \t\0":
        return False
    return character.isspace() or unicodedata.category(character) == "Cc" or character == "\ufeff"


def check_tables(directory: Path, tables: Mapping[str, Table]) -> Iterator[str]:
    """Order of speakers, words per line, reserved words, and paths."""
    yield from _check_order(tables["utt2spk"])
    yield from _check_spk2utt(tables["spk2utt"])
    for name in ("utt2spk", "utt2dur", "utt2recording"):
        for line in tables[name].lines.values() if name in tables else ():
            if len(line.value.split()) != 1:
                yield f"{tables[name].path}:{line.number}: '{line.value}' is not one word; write the id and one word"
    for line in tables["text"].lines.values():
        for word in set(line.value.split()) & set(_RESERVED):
            yield f"{tables['text'].path}:{line.number}: '{word}' is reserved; take it out of the transcript"
    yield from _check_paths(directory, tables["wav.scp"])


def _check_order(table: Table) -> Iterator[str]:
    """In order of ids is in order of speakers, too (`sort -k2`): Kaldi's tools join these files line by line.

    Ids that begin with their speaker are not enough: `a-b-1` of `a-b` comes before `a-c` of `a`, but `a` before `a-b`.
    """
    by_id = sorted(table.lines.values(), key=lambda line: line.key)
    by_speaker = sorted(by_id, key=lambda line: line.value)
    for here, wanted in zip(by_id, by_speaker, strict=True):
        if here != wanted:
            yield (
                f"{table.path}:{here.number}: '{here.key}' of '{here.value}' comes before '{wanted.key}' of "
                f"'{wanted.value}', their speakers the other way round; begin ids with the speaker and -, and no "
                "speaker's name with another's and -"
            )
            return


def _check_spk2utt(table: Table) -> Iterator[str]:
    seen: dict[str, int] = {}
    for line in table.lines.values():
        utts = line.value.split()
        if utts != sorted(utts):
            yield f"{table.path}:{line.number}: the utterances are not in order; --repair makes it from utt2spk"
        for utt in utts:
            if utt in seen:
                yield f"{table.path}:{line.number}: '{utt}' is already in line {seen[utt]}; --repair makes it anew"
            seen[utt] = line.number


def _check_paths(directory: Path, table: Table) -> Iterator[str]:
    home = directory.absolute().parent
    for line in table.lines.values():
        place = f"{table.path}:{line.number}: {line.value}"
        if line.value.rstrip().endswith("|"):
            continue
        if re.search(r"\s", line.value):
            yield f"{place}: white space in a path, readers split there; rename the file and write its new name"
        if line.value.startswith("~"):
            yield f"{place}: ~ is not known to programs; write the path out"
        if ".." in Path(line.value).parts and not resolve(directory, line.value).is_relative_to(home):
            yield f"{place}: leads out of {home}; move the audio below it or write an absolute path"
