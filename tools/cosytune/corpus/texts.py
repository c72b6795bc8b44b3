"""Drafts -> what each one says: the user's correction before the user's word in the review before the source."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosytune.corpus.drafts import Draft
from cosytune.decisions import Decisions
from cosytune.text import normalize
from cosytune.text.corrections import Written, keep_corrections, read_former


@dataclass(frozen=True)
class Texts:
    """`lines`: utterance -> what it says, "" if nobody knows. `corrected`: those whose line in data/all/text won,
    `overtaken`: among them, those whose source has changed since. `set_aside`: corrections of clips not kept.
    """

    lines: dict[str, str]
    corrected: list[str]
    overtaken: list[str]
    set_aside: list[Written]

    def after(self, kept: Sequence[str], drafts: Sequence[Draft], decisions: Decisions) -> Texts:
        """The same when it is known which clips are `kept`: a correction of another one waits until it comes back."""
        stays = set(kept)
        waiting = [
            Written(draft.utt, draft.name, draft.text or "", self.lines[draft.utt], decisions.of(draft.name).text or "")
            for draft in drafts
            if draft.utt in self.corrected and draft.utt not in stays
        ]
        return dataclasses.replace(
            self,
            corrected=[utt for utt in self.corrected if utt in stays],
            overtaken=[utt for utt in self.overtaken if utt in stays],
            set_aside=[*self.set_aside, *waiting],
        )


def settle(
    drafts: Sequence[Draft],
    text: Path,
    report: Mapping[str, Any],
    decisions: Decisions,
    language: str,
) -> Texts:
    """`text`: data/all/text as the user left it; `report`: the last run's, {} before the first.

    A line in `text` is the truth of a clip that was kept. Else what was typed in the review page counts, unless a
    correction was set aside that is newer.
    """
    wanted = [Written(draft.utt, draft.name, draft.text or "") for draft in drafts]
    former = read_former(text, report, wanted, language)
    found = keep_corrections(former, wanted)
    had_lines = {clip["source"] for clip in report["clips"]} if report else {draft.name for draft in drafts}
    lines = dict(found.texts)
    for draft in drafts:
        typed, before = decisions.of(draft.name).text, former.get(draft.name)
        if not typed or (draft.name in had_lines and before is not None and before.line):
            continue
        if draft.utt not in found.kept or before is None or before.typed != typed:
            lines[draft.utt] = normalize(typed, draft.language)
    corrected = [utt for utt in found.kept if lines[utt] == found.texts[utt]]
    return Texts(lines, corrected, [utt for utt in found.overtaken if utt in corrected], found.set_aside)
