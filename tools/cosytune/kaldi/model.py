"""What a Kaldi data directory holds: its files and its utterances."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FILES = ("wav.scp", "text", "utt2spk", "spk2utt", "utt2dur")
RECORDINGS = "utt2recording"
"""Which take a clip was cut from. Optional: directories that others made have none."""
ORIGINALS = "text.original"
"""Each transcript as it was typed, beside the normalised one in `text`. Stage 0 writes it."""


@dataclass(frozen=True)
class Utterance:
    """One clip. `wav`: absolute path of a 24 kHz mono 16-bit file. `recording`: its take; "" when it is its own."""

    utt: str
    speaker: str
    wav: Path
    text: str
    duration_s: float
    recording: str = ""


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
