"""A Kaldi data directory -> checked utterances, and back: `wav.scp text utt2spk spk2utt utt2dur`.

    python -m cosytune.kaldi egs/demo/data/all      # prints every problem; exit status 1 if there is one

Every line is `<id> <value>`, split at the first space only (values may hold spaces), UTF-8, sorted by code point
(LC_ALL=C). Paths in wav.scp are relative to the data directory, so that a recipe can be moved or mounted elsewhere.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cosytune import files
from cosytune.errors import UserError, run_main

FILES = ("wav.scp", "text", "utt2spk", "spk2utt", "utt2dur")


@dataclass(frozen=True)
class Utterance:
    """One clip. `wav`: absolute path of a 24 kHz mono 16-bit file."""

    utt: str
    speaker: str
    wav: Path
    text: str
    duration_s: float


@dataclass(frozen=True)
class DataDir:
    """The utterances of one directory, sorted by id."""

    path: Path
    utterances: list[Utterance]

    @property
    def speakers(self) -> dict[str, list[Utterance]]:
        """Speaker -> that speaker's utterances, both sorted."""
        grouped: dict[str, list[Utterance]] = {}
        for utterance in sorted(self.utterances, key=lambda one: (one.speaker, one.utt)):
            grouped.setdefault(utterance.speaker, []).append(utterance)
        return grouped


@dataclass(frozen=True)
class Line:
    """One line of a file: its number (from 1), what stands before the first space, what after."""

    number: int
    key: str
    value: str


@dataclass
class Table:
    """A file's lines by id, and what is wrong with it as `file:line: what; remedy`."""

    path: Path
    lines: dict[str, Line] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def report(self, number: int, what: str) -> None:
        self.problems.append(f"{self.path}:{number}: {what}")


def read(directory: Path) -> DataDir:
    """The checked content of `directory`; raises a UserError that lists every problem."""
    tables, problems = _read_and_check(directory)
    if problems:
        raise UserError(*problems)
    wav, text, speaker, duration = (tables[name].lines for name in ("wav.scp", "text", "utt2spk", "utt2dur"))
    return DataDir(
        directory,
        [
            Utterance(
                utt, speaker[utt].value, _resolve(directory, line.value), text[utt].value, float(duration[utt].value)
            )
            for utt, line in sorted(wav.items())
        ],
    )


def validate(directory: Path) -> list[str]:
    """Every problem of `directory` as one line `file:line: what; remedy`; empty when all is well."""
    return _read_and_check(directory)[1]


def write(directory: Path, utterances: Iterable[Utterance]) -> None:
    """Write the five files, each one atomically; the wav files stay where they are."""
    ordered = sorted(utterances, key=lambda one: one.utt)
    data = DataDir(directory, ordered)
    tables: dict[str, dict[str, str]] = {
        "wav.scp": {one.utt: os.path.relpath(one.wav, directory) for one in ordered},
        "text": {one.utt: one.text for one in ordered},
        "utt2spk": {one.utt: one.speaker for one in ordered},
        "spk2utt": {speaker: " ".join(one.utt for one in ones) for speaker, ones in data.speakers.items()},
        "utt2dur": {one.utt: f"{one.duration_s:.6f}" for one in ordered},
    }
    for name, values in tables.items():
        write_table(directory / name, values)


def write_table(path: Path, values: Mapping[str, str]) -> None:
    """`id value` lines, sorted by code point. Ids without white space and one-line values are the caller's duty."""
    for key, value in values.items():
        if key.split() != [key] or not value.strip() or any(character in value for character in "\n\r\t\0"):
            raise ValueError(f"not a line of {path.name}: {key!r} {value!r}")
    files.write_text(path, "".join(f"{key} {value}\n" for key, value in sorted(values.items())))


def read_table(path: Path, *, strict: bool = True) -> Table:
    """The lines of one file, with all that is wrong in it alone; never raises for its content.

    `strict=False` is for a directory that others made: any order, tabs, runs of spaces, blank lines and empty values.
    """
    table = Table(path)
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        number = path.read_bytes().count(b"\n", 0, failure.start) + 1
        table.report(number, "not UTF-8; convert the file with iconv -t UTF-8")
        return table
    previous = ""
    for number, raw in enumerate(content.split("\n"), start=1):
        line = raw.removesuffix("\r")
        if not line and number == content.count("\n") + 1:
            break
        if not strict:
            line = line.replace("\t", " ").strip(" ")
            if not line:
                continue
        key, _, value = line.partition(" ")
        if problem := _line_problem(path.name, line, key, value, strict):
            table.report(number, problem)
        elif key in table.lines:
            table.report(number, f"'{key}' is already in line {table.lines[key].number}; delete one of the two")
        else:
            if strict and key < previous:
                table.report(number, f"'{key}' is not in order after '{previous}'; sort the file with LC_ALL=C sort")
            table.lines[key] = Line(number, key, value if strict else value.lstrip(" "))
            previous = key
    return table


def _line_problem(name: str, line: str, key: str, value: str, strict: bool) -> str | None:
    if "\0" in line:
        return "a NUL character; delete it, or convert the file to UTF-8 if it is UTF-16"
    if "\t" in line:
        return "a tab; put one space between id and value, and spaces in the value"
    if not line.strip():
        return "an empty line; delete it"
    if not key:
        return "begins with a space; begin with the id"
    if strict and not value.strip():
        what = "no transcript" if name == "text" else "no value"
        return f"'{key}' has {what}; write one after the id or delete the id from every file"
    return None


def _read_and_check(directory: Path) -> tuple[dict[str, Table], list[str]]:
    missing = [name for name in FILES if not (directory / name).is_file()]
    if missing:
        return {}, [f"{directory / name}: not there; run stage 0 (prepare) again: --stage 0" for name in missing]
    tables = {name: read_table(directory / name) for name in FILES}
    checks = (_check_ids(tables), _check_speakers(tables), _check_values(directory, tables))
    problems = [problem for table in tables.values() for problem in table.problems]
    if not tables["wav.scp"].lines and not problems:
        problems.append(f"{directory / 'wav.scp'}: empty; run stage 0 (prepare) again: --stage 0")
    return tables, problems + [problem for check in checks for problem in check]


def _check_ids(tables: Mapping[str, Table]) -> list[str]:
    """Every utterance stands in wav.scp, text, utt2spk and utt2dur. A line that is itself refused counts as there."""
    problems = []
    wavs = tables["wav.scp"]
    for name, what in (("text", "transcript"), ("utt2spk", "speaker"), ("utt2dur", "duration")):
        table = tables[name]
        for key in table.lines.keys() - wavs.lines.keys() if not wavs.problems else ():
            problems.append(
                f"{table.path}:{table.lines[key].number}: '{key}' has no audio; add it to wav.scp or delete the line"
            )
        for key in wavs.lines.keys() - table.lines.keys() if not table.problems else ():
            problems.append(
                f"{wavs.path}:{wavs.lines[key].number}: '{key}' has no {what}; add it to {name} or delete the line"
            )
    return sorted(problems)


def _check_speakers(tables: Mapping[str, Table]) -> list[str]:
    """Both maps between speakers and utterances say the same."""
    speaker_of = {key: line.value for key, line in tables["utt2spk"].lines.items()}
    problems = []
    listed: set[str] = set()
    table = tables["spk2utt"]
    for speaker, line in table.lines.items():
        for utt in line.value.split():
            listed.add(utt)
            if speaker_of.get(utt) != speaker:
                stated = f"of '{speaker_of[utt]}'" if utt in speaker_of else "not there"
                problems.append(
                    f"{table.path}:{line.number}: '{utt}' of '{speaker}' is {stated} in utt2spk; make both say the same"
                )
    for utt, speaker in speaker_of.items():
        if utt not in listed:
            number = tables["utt2spk"].lines[utt].number
            problems.append(
                f"{tables['utt2spk'].path}:{number}: '{utt}' is not in spk2utt; add it to the line of '{speaker}'"
            )
    return problems


def _check_values(directory: Path, tables: Mapping[str, Table]) -> list[str]:
    """Each path is a file, no command; each duration is a positive number of seconds."""
    problems = []
    for line in tables["wav.scp"].lines.values():
        place = f"{tables['wav.scp'].path}:{line.number}"
        if line.value.rstrip().endswith("|"):
            problems.append(f"{place}: '{line.value}' is a command, commands are not run; write the path of a wav file")
        elif not _resolve(directory, line.value).is_file():
            problems.append(f"{place}: {line.value}: no such file; run stage 0 again or delete the id from every file")
    for line in tables["utt2dur"].lines.values():
        if not _is_positive(line.value):
            place = f"{tables['utt2dur'].path}:{line.number}"
            problems.append(f"{place}: '{line.value}' is no duration; write seconds, as in 2.5")
    return problems


def _is_positive(value: str) -> bool:
    try:
        return 0 < float(value) < math.inf
    except ValueError:
        return False


def _resolve(directory: Path, value: str) -> Path:
    return Path(os.path.normpath(directory.absolute() / value))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args(arguments).directory
    data = read(directory)
    total_s = sum(one.duration_s for one in data.utterances)
    print(
        f"{directory}: {len(data.utterances)} utterances, {len(data.speakers)} speakers, {total_s:.1f} s; all is well"
    )
    return 0


if __name__ == "__main__":
    run_main(main)
