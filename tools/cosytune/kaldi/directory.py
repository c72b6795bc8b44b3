"""A Kaldi data directory -> checked utterances, and back."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from cosytune.errors import UserError
from cosytune.kaldi.checks import read_and_check, resolve
from cosytune.kaldi.model import RECORDINGS, DataDir, Utterance
from cosytune.kaldi.tables import write_table


def read(directory: Path) -> DataDir:
    """The checked content of `directory`; raises a UserError that lists every problem."""
    tables, problems = read_and_check(directory)
    if problems:
        raise UserError(*problems)
    recording = tables[RECORDINGS].lines if RECORDINGS in tables else {}
    wav, text, speaker, duration = (tables[name].lines for name in ("wav.scp", "text", "utt2spk", "utt2dur"))
    return DataDir(
        directory,
        [
            Utterance(
                utt,
                speaker[utt].value,
                resolve(directory, line.value),
                text[utt].value,
                float(duration[utt].value),
                _other(utt, recording[utt].value) if recording else "",
            )
            for utt, line in sorted(wav.items())
        ],
    )


def write(directory: Path, utterances: Iterable[Utterance]) -> None:
    """Write the five files and utt2recording, each one atomically; the wav files stay where they are."""
    ordered = sorted(utterances, key=lambda one: one.utt)
    data = DataDir(directory, ordered)
    tables: dict[str, dict[str, str]] = {
        "wav.scp": {one.utt: os.path.relpath(one.wav, directory) for one in ordered},
        "text": {one.utt: one.text for one in ordered},
        "utt2spk": {one.utt: one.speaker for one in ordered},
        "spk2utt": {speaker: " ".join(one.utt for one in ones) for speaker, ones in data.speakers.items()},
        "utt2dur": {one.utt: f"{one.duration_s:.6f}" for one in ordered},
        RECORDINGS: {one.utt: "_".join(one.recording.split()) or one.utt for one in ordered},
    }
    for name, values in tables.items():
        write_table(directory / name, values)


def _other(utt: str, recording: str) -> str:
    """A clip that is its own take is written under its own name."""
    return "" if recording == utt else recording
