"""The wav files of a directory -> what their headers say that the directory does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cosytune.kaldi.checks import resolve
from cosytune.kaldi.tables import Table

_TOLERANCE_S = 0.01


@dataclass(frozen=True)
class Header:
    rate_hz: int
    channels: int
    frames: int

    @property
    def duration_s(self) -> float:
        return self.frames / self.rate_hz

    @property
    def form(self) -> str:
        return f"{self.rate_hz} Hz, {self.channels} channel{'s' * (self.channels > 1)}"


def read_header(path: Path) -> Header | None:
    """None for a file that libsndfile cannot open."""
    import soundfile

    try:
        info = soundfile.info(str(path))
    except (soundfile.SoundFileError, OSError):
        return None
    return Header(info.samplerate, info.channels, info.frames)


def check(directory: Path, tables: Mapping[str, Table]) -> Iterator[str]:
    """Audio that cannot be opened, is empty, differs from the rest in rate or channels, or from utt2dur in length."""
    wavs, durations = tables["wav.scp"], tables["utt2dur"].lines
    paths = {utt: resolve(directory, line.value) for utt, line in wavs.lines.items()}
    headers = {utt: read_header(path) for utt, path in paths.items() if path.is_file()}
    forms = Counter(header.form for header in headers.values() if header)
    usual = forms.most_common(1)[0][0] if forms else ""
    for utt, header in headers.items():
        place = f"{wavs.path}:{wavs.lines[utt].number}: {wavs.lines[utt].value}"
        if header is None:
            yield f"{place}: not audio that can be opened; replace it or delete the id from every file"
        elif not header.frames:
            yield f"{place}: no samples; replace it or delete the id from every file"
        elif header.form != usual:
            yield f"{place}: {header.form}, the others have {usual}; convert it, or run stage 0 again"
        elif utt in durations and differs(durations[utt].value, header.duration_s):
            stated = durations[utt]
            yield (
                f"{tables['utt2dur'].path}:{stated.number}: '{utt}' is said to last {stated.value} s, its audio lasts "
                f"{header.duration_s:.6f} s; --repair writes the audio's"
            )


def differs(stated: str, real_s: float) -> bool:
    """More than rounding apart, or no number."""
    try:
        return abs(float(stated) - real_s) > _TOLERANCE_S
    except ValueError:
        return True
