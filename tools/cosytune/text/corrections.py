"""The transcripts that the user corrected by hand in data/all/text, which no later run may overwrite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosytune import kaldi
from cosytune.errors import UserError
from cosytune.text.clean import clean
from cosytune.text.normal import is_speakable, normalize


@dataclass(frozen=True)
class Written:
    """An utterance as its source says it; `line`: what stands for it in data/all/text, "" if nothing.

    `typed`: of a correction that was set aside, what had been typed for the clip in the review page by then.
    """

    utt: str
    source: str
    source_text: str
    line: str = ""
    typed: str = ""

    @property
    def is_corrected(self) -> bool:
        return bool(self.line) and self.line != self.source_text


@dataclass(frozen=True)
class Corrected:
    """`texts`: utterance -> what it says. `kept`: utterances whose line, corrected by hand, won. `overtaken`: those
    among them whose source has changed since, too. `set_aside`: corrections of clips that are not here this time.
    """

    texts: dict[str, str]
    kept: list[str]
    overtaken: list[str]
    set_aside: list[Written]


def keep_corrections(former: Mapping[str, Written], wanted: Iterable[Written]) -> Corrected:
    """`former`: by source, as the last run and the user left it. `wanted`: what the sources say now."""
    result = Corrected({}, [], [], [])
    now = {one.source: one for one in wanted}
    for source, one in now.items():
        before = former.get(source)
        result.texts[one.utt] = one.source_text
        if before is None or not before.is_corrected or before.line == one.source_text:
            continue
        result.texts[one.utt] = before.line
        result.kept.append(one.utt)
        if before.source_text != one.source_text:
            result.overtaken.append(one.utt)
    result.set_aside.extend(one for source, one in former.items() if source not in now and one.is_corrected)
    return result


def read_former(text: Path, report: Mapping[str, Any], wanted: Iterable[Written], language: str) -> dict[str, Written]:
    """What the last run wrote (its `report`) and the user made of it (`text`, data/all/text), by source.

    Clips are known by their source, since ids may change when files are added. Without a report, a line that differs
    from its source's transcript counts as corrected. All is normalised as today, so that a new normaliser is no
    correction.
    """

    def as_today(utt: str, source: str, source_text: str, line: str, typed: str = "") -> Written:
        return Written(utt, source, normalize(source_text, language), normalize(line, language), typed)

    known = {clip["utt"] for part in ("clips", "drops") for clip in report.get(part, []) if clip["utt"]}
    lines = _read_lines(text, known, language)
    if not report:
        return {one.source: as_today(one.utt, one.source, one.source_text, lines.get(one.utt, "")) for one in wanted}
    former = {one["source"]: as_today(**one) for one in report["set_aside_corrections"]}
    for clip in report["clips"]:
        # A run that was stopped had written its report, and perhaps not yet its lines.
        line = lines.get(clip["utt"], "" if report.get("complete", True) else clip["text"])
        former[clip["source"]] = as_today(clip["utt"], clip["source"], clip["source_text"], line)
    return former


def _read_lines(path: Path, known: set[str], language: str) -> dict[str, str]:
    """Utterance -> line. A line that could not be kept is an error: the user has written it."""
    if not path.is_file():
        return {}
    table = kaldi.read_table(path, strict=False)
    problems = list(table.problems)
    for utt, line in table.lines.items():
        place = f"{path}:{line.number}"
        if known and utt not in known:
            problems.append(f"{place}: '{utt}' is no clip of this speaker; correct the id or delete the line")
        elif not is_speakable(clean(line.value).text):
            problems.append(f"{place}: '{utt}' says nothing; write what is said, or delete the line")
    if problems:
        raise UserError(*problems)
    return {utt: line.value for utt, line in table.lines.items()}
