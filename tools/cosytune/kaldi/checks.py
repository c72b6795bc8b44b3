"""A data directory -> what would make a stage read something wrong. Fast: every stage asks this; no audio is opened."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

from cosytune.kaldi.model import FILES, RECORDINGS
from cosytune.kaldi.tables import Table, read_table


def read_and_check(directory: Path) -> tuple[dict[str, Table], list[str]]:
    """The tables of `directory` and every problem that would make a stage read something wrong."""
    missing = [name for name in FILES if not (directory / name).is_file()]
    if missing:
        return {}, [f"{directory / name}: not there; run stage 0 (prepare) again: --stage 0" for name in missing]
    names = (*FILES, *(name for name in (RECORDINGS,) if (directory / name).is_file()))
    tables = {name: read_table(directory / name) for name in names}
    checks = (_check_ids(tables), _check_speakers(tables), _check_values(directory, tables))
    problems = [problem for table in tables.values() for problem in table.problems]
    if not tables["wav.scp"].lines and not problems:
        problems.append(f"{directory / 'wav.scp'}: empty; run stage 0 (prepare) again: --stage 0")
    return tables, problems + [problem for check in checks for problem in check]


def _check_ids(tables: Mapping[str, Table]) -> list[str]:
    """Every utterance stands in every file. A line that is itself refused counts as there."""
    problems = []
    wavs = tables["wav.scp"]
    for name, what in (
        ("text", "transcript"),
        ("utt2spk", "speaker"),
        ("utt2dur", "duration"),
        (RECORDINGS, "recording"),
    ):
        if name not in tables:
            continue
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
        elif not resolve(directory, line.value).is_file():
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


def resolve(directory: Path, value: str) -> Path:
    """A path of wav.scp, which is relative to its directory, as an absolute one."""
    return Path(os.path.normpath(directory.absolute() / value))
