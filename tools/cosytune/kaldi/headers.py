"""The wav files of a directory -> what their headers say that the directory does not."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cosytune.kaldi.checks import resolve
from cosytune.kaldi.tables import Line, Table

if TYPE_CHECKING:
    from cosytune.audio.probe import Broken, Probe

_TOLERANCE_S = 0.01
_FAR = 0.5


def read_header(path: Path) -> Probe | Broken:
    """What stage 0 knows of a recording, of a clip: cut short, empty, a web page under the name of audio."""
    from cosytune.audio.probe import Broken, probe

    try:
        found = probe(path)
    except FileNotFoundError:  # no ffprobe, which is asked about what libsndfile cannot open
        return Broken("not audio that can be opened; replace it")
    if not isinstance(found, Broken) and found.decoder != "libsndfile":
        return Broken("only ffmpeg can decode it; export it as wav")
    return found


def check(directory: Path, tables: Mapping[str, Table]) -> Iterator[str]:
    """Audio that cannot be used, differs from the rest in rate or channels, or from utt2dur in length."""
    from cosytune.audio.probe import Broken

    wavs, durations = tables["wav.scp"], tables["utt2dur"].lines
    paths = {utt: resolve(directory, line.value) for utt, line in wavs.lines.items()}
    headers = {utt: read_header(path) for utt, path in paths.items() if path.is_file()}
    forms = Counter(_form(header) for header in headers.values() if not isinstance(header, Broken))
    usual = forms.most_common(1)[0][0] if forms else ""
    for utt, header in headers.items():
        place = f"{wavs.path}:{wavs.lines[utt].number}: {wavs.lines[utt].value}"
        if isinstance(header, Broken):
            yield f"{place}: {header.reason}, or delete the id from every file"
        elif _form(header) != usual:
            yield f"{place}: {_form(header)}, the others have {usual}; convert it, or run stage 0 again"
        elif utt in durations and differs(durations[utt].value, header.duration_s):
            stated = durations[utt]
            yield f"{tables['utt2dur'].path}:{stated.number}: {_other_length(stated, header.duration_s)}"


def _form(header: Probe) -> str:
    return f"{header.rate_hz} Hz, {header.channels} channel{'s' * (header.channels > 1)}"


def _other_length(stated: Line, real_s: float) -> str:
    what = f"'{stated.key}' is said to last {stated.value} s, its audio lasts {real_s:.6f} s"
    if is_far(stated.value, real_s):
        return f"{what}: is it the right audio? replace it, or write its length here"
    return f"{what}; --repair writes the audio's"


def differs(stated: str, real_s: float) -> bool:
    """More than rounding apart, or no number."""
    try:
        return not abs(float(stated) - real_s) <= _TOLERANCE_S  # not a number is apart from all
    except ValueError:
        return True


def is_far(stated: str, real_s: float) -> bool:
    """More than half of a stated duration apart: other audio, or half of it, and no matter of rounding."""
    try:
        stated_s = float(stated)
    except ValueError:
        return False
    return 0 < stated_s < math.inf and abs(stated_s - real_s) > _FAR * stated_s
