"""Files that a data directory may have besides its own -> what does not fit: feats.scp, segments, spk2gender and more.

`segments` and what hangs on it is checked for its form; stages read one wav per utterance.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from cosytune.kaldi.model import ORIGINALS
from cosytune.kaldi.tables import Line, Table, read_table


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return float("nan")


def _any(_value: str) -> bool:
    return True


def _one_word(value: str) -> bool:
    return len(value.split()) == 1


def _is_warp(value: str) -> bool:
    return 0.5 < _number(value) < 1.5


def _is_length(value: str) -> bool:
    return 0 < _number(value) < float("inf")


def _is_channel(value: str) -> bool:
    words = value.split()
    return len(words) == 2 and words[1] in ("A", "B")


def _is_segment(value: str) -> bool:
    words = value.split()
    return len(words) == 3 and 0 <= _number(words[1]) < _number(words[2])


OF_UTTERANCES: Mapping[str, tuple[Callable[[str], bool], str]] = {
    "feats.scp": (_any, "a path"),
    "vad.scp": (_any, "a path"),
    "utt2lang": (_one_word, "one language"),
    "utt2uniq": (_one_word, "one id"),
    "utt2num_frames": (lambda value: value.isdecimal() and int(value) > 0, "a whole number from 1"),
    "utt2warp": (_is_warp, "a number between 0.5 and 1.5"),
    "segments": (_is_segment, "a recording, its start and a later end in seconds"),
    ORIGINALS: (_any, "a text"),
}
OF_SPEAKERS: Mapping[str, tuple[Callable[[str], bool], str]] = {
    "cmvn.scp": (_any, "a path"),
    "spk2gender": (lambda value: value in ("m", "f"), "m or f"),
    "spk2warp": (_is_warp, "a number between 0.5 and 1.5"),
}
OF_RECORDINGS: Mapping[str, tuple[Callable[[str], bool], str]] = {
    "reco2dur": (_is_length, "seconds above 0"),
    "reco2file_and_channel": (_is_channel, "a file name and A or B"),
}
NAMES = (*OF_UTTERANCES, *OF_SPEAKERS, *OF_RECORDINGS)


def check(directory: Path, tables: Mapping[str, Table]) -> Iterator[str]:
    """Each file that is there: its form, its ids, its values."""
    utts = tables["utt2spk"].lines.keys()
    for names, ids, of in (
        (OF_UTTERANCES, utts, "utt2spk"),
        (OF_SPEAKERS, tables["spk2utt"].lines.keys(), "spk2utt"),
        (OF_RECORDINGS, tables["wav.scp"].lines.keys(), "wav.scp"),
    ):
        for name, (accepts, wanted) in names.items():
            if (directory / name).is_file():
                yield from _check_one(read_table(directory / name), ids, of, accepts, wanted)
    if (directory / "segments").is_file():
        yield from _check_recordings(read_table(directory / "segments"), tables["wav.scp"])


def _check_one(
    table: Table, ids: Collection[str], of: str, accepts: Callable[[str], bool], wanted: str
) -> Iterator[str]:
    yield from table.problems
    for key, line in table.lines.items():
        if key not in ids:
            yield f"{table.path}:{line.number}: '{key}' is not in {of}; delete the line"
        elif not accepts(line.value):
            yield f"{table.path}:{line.number}: '{line.value}' is not {wanted}; mend the line"
    for key in ids if not table.problems else ():
        if key not in table.lines:
            yield f"{table.path}:1: '{key}' of {of} is not there; add it, or delete the file"


def _check_recordings(segments: Table, wavs: Table) -> Iterator[str]:
    for line in segments.lines.values():
        if (recording := _first(line)) not in wavs.lines:
            yield f"{segments.path}:{line.number}: '{recording}' is not in wav.scp; add it or delete the line"
    used = {_first(line) for line in segments.lines.values()}
    for key, line in wavs.lines.items():
        if key not in used:
            yield f"{wavs.path}:{line.number}: '{key}' is in no line of segments; add one or delete the id"


def _first(line: Line) -> str:
    return (line.value.split() or [""])[0]
