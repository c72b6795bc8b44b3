"""The user's word on clips, made by ear in the review page <-> data/decisions.json, which stage 0 obeys.

{"version": 1, "clips": {"audio/talk.wav@12.34-19.87": {"utt": "s-talk-002", "decision": "drop", "text": null,
                                                       "at": "2026-01-31T12:00:00+00:00"}}}

A clip is named by its `source`, which stays when files are added; `utt` is its id at that time, for people to read.
`keep`: it stays, whatever the gates say. `drop`: it goes to the quarantine, reason `review`. `text`: the transcript
of a clip that is in the quarantine, in place of the one that it has or lacks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

from cosytune import files
from cosytune.errors import UserError
from cosytune.layout import Layout

VERSION = 1
Verdict = Literal["keep", "drop"]


@dataclass(frozen=True)
class Decision:
    """What the user said of one clip; with no verdict and no text: nothing. `at`: when, as ISO 8601."""

    utt: str = ""
    verdict: Verdict | None = None
    text: str | None = None
    at: str = ""

    @property
    def is_empty(self) -> bool:
        return self.verdict is None and self.text is None


@dataclass(frozen=True)
class Decisions:
    """Every decision by the clip's source."""

    clips: Mapping[str, Decision] = field(default_factory=dict)

    def of(self, source: str) -> Decision:
        """The decision on one clip; an empty one if there is none."""
        return self.clips.get(source, Decision())

    def put(self, source: str, utt: str, verdict: Verdict | None, text: str | None) -> Decisions:
        """The same with this decision, made now; with neither verdict nor text, without one."""
        others = {key: one for key, one in self.clips.items() if key != source}
        made = Decision(utt, verdict, text, datetime.now(UTC).isoformat(timespec="seconds"))
        return Decisions(others if made.is_empty else {**others, source: made})


def path(layout: Layout) -> Path:
    return layout.recipe / "data" / "decisions.json"


def load(layout: Layout) -> Decisions:
    """The decisions of a recipe; none if the file is not there. Raises a UserError with all that is wrong in it."""
    place = path(layout)
    try:
        content = json.loads(place.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        return Decisions()
    except ValueError as failure:  # also what is not UTF-8
        raise UserError(f"{place}: no JSON: {failure}; {_REMEDY}") from None
    if not isinstance(content, dict) or not isinstance(content.get("clips"), dict):
        raise UserError(f'{place}: has no "clips"; {_REMEDY}')
    if content.get("version") != VERSION:
        raise UserError(f"{place}: version {content.get('version')!r}, not {VERSION}; update CosyTune, or {_REMEDY}")
    if problems := [what for source, one in content["clips"].items() if (what := _problem(source, one))]:
        raise UserError(*(f"{place}: {what}" for what in problems))
    return Decisions({source: _decision(one) for source, one in content["clips"].items()})


def save(layout: Layout, decisions: Decisions) -> None:
    """Write decisions.json, atomically. The caller holds the recipe's lock, or two writers lose each other's word."""
    clips = {
        source: {"utt": one.utt, "decision": one.verdict, "text": one.text, "at": one.at}
        for source, one in sorted(decisions.clips.items())
    }
    files.write_json(path(layout), {"version": VERSION, "clips": clips})


_BREAKS = frozenset("\n\r\t\0")  # what a line of data/all/text cannot hold
_REMEDY = "mend it by hand, or move it away and decide again in the review page"


def _problem(source: str, one: Any) -> str | None:
    """What is wrong with one entry, and the remedy."""
    if not isinstance(one, dict):
        return f"'{source}': {one!r} is no decision; delete the entry"
    if one.get("decision") not in ("keep", "drop", None):
        return f'\'{source}\': decision {one["decision"]!r}; write "keep", "drop" or null'
    text = one.get("text")
    if text is not None and not (isinstance(text, str) and text.strip() and not _BREAKS & set(text)):
        return f"'{source}': text {text!r}; write one line of text, or null"
    if any(not isinstance(one.get(key, ""), str) for key in ("utt", "at")):
        return f"'{source}': utt and at are strings; delete the entry and decide again in the review page"
    return None


def _decision(one: Mapping[str, Any]) -> Decision:
    return Decision(one.get("utt", ""), cast(Verdict | None, one.get("decision")), one.get("text"), one.get("at", ""))
