"""report.json, data/all/text and decisions.json -> every clip as the page shows it, with what the user said of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from cosytune import decisions, files, kaldi
from cosytune.decisions import Decision, Decisions
from cosytune.errors import UserError
from cosytune.layout import Layout
from cosytune.record import Record
from cosytune.stages import STAGES
from cosytune.stages.runner import need

_SHOWN = ("speaker", "recording", "start_s", "end_s", "duration_s", "written", "asr_text", "cer")


@dataclass(frozen=True)
class Clip:
    """A clip of the last run of stage 0. `entry`: its own in report.json. `utt`: "" where nothing could be cut.

    `waiting`: of a clip in quarantine, the entry of a line corrected by hand that went there with it.
    """

    source: str
    utt: str
    is_kept: bool
    wav: Path
    entry: Mapping[str, Any]
    waiting: Mapping[str, str]

    @property
    def text(self) -> str:
        """The transcript as stage 0 wrote it; "" if there was none."""
        return self.entry.get("text") or ""

    @property
    def found(self) -> str:
        """What it says as long as nothing is typed: a line that waits, else what stage 0 wrote."""
        return self.waiting.get("line") or self.text

    @property
    def language(self) -> str | None:
        return self.entry.get("language")

    @property
    def reasons(self) -> list[dict[str, Any]]:
        """Why it is in quarantine, or what the gates have against it though the user keeps it."""
        return list(self.entry.get("reasons") or self.entry.get("overruled") or ())


Clips = Mapping[str, Clip]


def report_path(layout: Layout) -> Path:
    return layout.data_all / "report.json"


def text_path(layout: Layout) -> Path:
    return layout.data_all / "text"


def read_clips(layout: Layout) -> Clips:
    """Source -> clip, kept ones first. The same object as before while report.json does not change."""
    stat = need(report_path(layout), "prepare").stat()
    return _read(layout, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=2)
def _read(layout: Layout, _mtime_ns: int, _size: int) -> Clips:
    path = report_path(layout)
    try:
        report = files.read_json(path)
        waiting = {one["source"]: one for one in report.get("set_aside_corrections", ())}
        kept = [_clip(entry, True, layout.data_all / "wav", {}) for entry in report["clips"]]
        dropped = [
            _clip(entry, False, layout.quarantine, waiting.get(entry["source"], {})) for entry in report["drops"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: damaged, or of another version; run stage 0 again: --stage 0") from None
    return {clip.source: clip for clip in (*kept, *dropped)}


def _clip(entry: Mapping[str, Any], is_kept: bool, wavs: Path, waiting: Mapping[str, str]) -> Clip:
    utt = str(entry["utt"] or "")
    if Path(utt).name != utt:  # an id is a file's name: nothing outside `wavs` is ever served
        raise ValueError(utt)
    return Clip(str(entry["source"]), utt, is_kept, wavs / f"{utt}.wav", entry, waiting)


def read_lines(layout: Layout) -> dict[str, str]:
    """Utterance -> transcript, as data/all/text says it now; raises a UserError for what is wrong in it."""
    table = kaldi.read_table(text_path(layout), strict=False)
    problems = [*table.problems]
    for utt, line in table.lines.items():
        if not line.value:
            problems.append(f"{table.path}:{line.number}: '{utt}' says nothing; write what is said, or delete the line")
    if problems:
        raise UserError(*problems)
    return {utt: line.value for utt, line in table.lines.items()}


def current_text(clip: Clip, lines: Mapping[str, str], said: Decision) -> str:
    """What the clip says now: the line in data/all/text if it is kept, what the user wrote for it last if not."""
    if clip.is_kept:
        return lines.get(clip.utt, clip.text)
    is_older = said.text == clip.waiting.get("typed")  # than the line that waits
    return clip.found if said.text is None or is_older else said.text


def view(layout: Layout) -> list[dict[str, Any]]:
    """Every clip for the page."""
    clips, lines, said = read_clips(layout), read_lines(layout), decisions.load(layout)
    packed = _is_packed(layout)
    return [_view(clip, lines, said, packed) for clip in clips.values()]


def view_one(layout: Layout, source: str) -> dict[str, Any]:
    return _view(read_clips(layout)[source], read_lines(layout), decisions.load(layout), _is_packed(layout))


def _view(clip: Clip, lines: Mapping[str, str], decided: Decisions, is_packed: bool) -> dict[str, Any]:
    said = decided.of(clip.source)
    text = current_text(clip, lines, said)
    found = clip.entry.get("source_text")
    return {
        "source": clip.source,
        "utt": clip.utt,
        "kept": clip.is_kept,
        "text": text,
        "edited": text != (clip.text if found is None else found),
        "verdict": said.verdict,
        "pending": _is_pending(clip, text, said, is_packed),
        "playable": clip.wav.is_file(),
        "quality": clip.entry.get("quality") or {},
        "reasons": clip.reasons,
        **{key: clip.entry.get(key) for key in _SHOWN},
    }


def _is_pending(clip: Clip, text: str, said: Decision, is_packed: bool) -> bool:
    """Whether a run would bring about something that the user asked for."""
    if clip.is_kept:
        return said.verdict == "drop" or (text != clip.text and not is_packed)
    was_dropped = any(reason.get("reason") == "review" for reason in clip.reasons)
    return said.verdict == "keep" or text != clip.text or (was_dropped and said.verdict != "drop")


def _is_packed(layout: Layout) -> bool:
    """Whether stage 3 has read data/all/text as it is now: its changed lines are in the training data already."""
    path = text_path(layout)
    pack = Record.read(layout, next(stage for stage in STAGES if stage.name == "pack"))
    if pack is None or not path.is_file():
        return False
    return files.sha256(path) in {state.sha256 for name, state in pack.inputs.items() if Path(name).name == "text"}
