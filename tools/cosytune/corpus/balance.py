"""What came of all recordings -> report.json, quarantine.tsv and the lines on the screen: input = kept + dropped."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cosytune.audio.folder import printable
from cosytune.audio.sources import Found, Source
from cosytune.audio.span import Span
from cosytune.corpus.drop import Drop
from cosytune.corpus.takes import Take
from cosytune.corpus.texts import Texts
from cosytune.corpus.verdicts import Verdict
from cosytune.decisions import Decisions
from cosytune.quality.gates import Reason
from cosytune.text import NORMALIZER

_SHOWN = 10  # names of one kind on the screen; the rest are counted
_WORTH_SAYING_S = 3.0
_ROUNDING_S = 0.1


@dataclass(frozen=True)
class Balance:
    """Everything that came in and where it went. `drops`: what no clip was made of."""

    found: Found
    takes: Sequence[Take]
    verdicts: Sequence[Verdict]
    drops: Sequence[Drop]
    texts: Texts
    decisions: Decisions
    models: dict[str, str]

    @property
    def kept(self) -> list[Verdict]:
        return [one for one in self.verdicts if one.is_kept]

    @property
    def quarantined(self) -> list[Verdict]:
        return [one for one in self.verdicts if not one.is_kept]

    @property
    def waiting_decisions(self) -> list[str]:
        """The user's word on clips that are not there this time, by their names."""
        return sorted(self.decisions.clips.keys() - {one.clip.draft.name for one in self.verdicts})

    def report(self) -> dict[str, Any]:
        """The whole of report.json."""
        return {
            "recordings": len(self.found.sources),
            "input": len(self.verdicts) + len(self.drops),
            "kept": len(self.kept),
            "dropped": self._counts(),
            "seconds": self._seconds(),
            "normalizer": NORMALIZER,
            "transcribed_with": self.models,
            "text_encodings": dict(sorted(self.found.encodings.items())),
            "text_changes": dict(sorted(self.found.changes.items())),
            "corrected_by_hand": len(self.texts.corrected),
            "clips": [_clip(one) for one in sorted(self.kept, key=lambda one: one.clip.draft.utt)],
            "drops": [
                *(
                    _clip(one) | {"reasons": [_reason(r) for r in one.reasons]}
                    for one in sorted(self.quarantined, key=lambda one: one.clip.draft.utt)
                ),
                *(_drop(one) for one in sorted(self.drops, key=lambda one: one.name)),
            ],
            "set_aside_corrections": [vars(one) for one in self.texts.set_aside],
            "waiting_decisions": self.waiting_decisions,
            "unused_files": self.found.unused,
        }

    def quarantine_rows(self) -> Iterator[tuple[str, ...]]:
        """`id, reason, value, threshold, source, text` of everything that is not kept, a row for each reason."""
        yield ("id", "reason", "value", "threshold", "source", "text")
        for one in sorted(self.quarantined, key=lambda one: one.clip.draft.utt):
            draft = one.clip.draft
            for reason in one.reasons:
                yield (draft.utt, *_cells(reason), printable(draft.name), one.text)
        for drop in sorted(self.drops, key=lambda one: one.name):
            for reason in drop.reasons:
                yield ("", *_cells(reason), printable(drop.name), "")  # no clip, so no id that could be kept

    def lines(self) -> Iterator[str]:
        """What the screen shows."""
        seconds = self._seconds()
        cut = [one for one in self.verdicts if not one.clip.draft.is_whole]
        yield f"  {len(self.found.sources):6d} recordings ({seconds['recordings'] / 60:.1f} min)"
        if cut:
            long = len({one.clip.draft.source.name for one in cut})
            yield f"  {len(cut):6d} clips cut from {long} of them"
        if seconds["between_clips"] >= _WORTH_SAYING_S:
            yield f"  {seconds['between_clips'] / 60:.1f} min of pauses lie before, between and after the clips"
        yield f"= {len(self.kept):6d} kept ({seconds['kept'] / 60:.1f} min)"
        yield from self._dropped_lines()
        changed = "; ".join(f"{count} {what}" for what, count in sorted(self.found.changes.items()))
        if changed:
            yield f"transcripts cleaned: {changed}"
        for encoding, count in sorted(self.found.encodings.items()):
            yield f"{count} text file(s) converted from {encoding}"
        if self.texts.corrected:
            yield f"{len(self.texts.corrected)} transcript(s) corrected by hand in data/all/text: kept"
        if self.texts.overtaken:
            shown = ", ".join(self.texts.overtaken[:_SHOWN])
            count = len(self.texts.overtaken)
            yield f"{count} of them have a new source transcript, too; the corrected line stays: {shown}"
        if self.texts.set_aside:
            yield f"{len(self.texts.set_aside)} corrected transcript(s) wait for clips that are not kept this time"
        if self.waiting_decisions:
            names = ", ".join(printable(name) for name in self.waiting_decisions[:_SHOWN])
            yield f"{len(self.waiting_decisions)} decision(s) of the review wait for clips that are not there: {names}"
        if self.found.unused:
            shown = ", ".join(printable(name) for name in self.found.unused[:_SHOWN])
            yield f"{len(self.found.unused)} file(s) are neither audio nor a transcript of any: {shown}"

    def _dropped_lines(self) -> Iterator[str]:
        """A line for each reason; clips that can still be heard and brought back are in quarantine, others dropped."""
        aside, dropped = [one.reasons[0] for one in self.quarantined], [one.reasons[0] for one in self.drops]
        for word, first in (("in quarantine", aside), ("dropped", dropped)):
            for reason, count in sorted(Counter(one.reason for one in first).items()):
                meanings = {one.meaning for one in first if one.reason == reason}
                meaning = f" ({meanings.pop()})" if len(meanings) == 1 else ""
                yield f"+ {count:6d} {word}: {reason}{meaning}"

    def _counts(self) -> dict[str, int]:
        """By the first reason of each: the sum is what is not kept."""
        first = [one.reasons[0] for one in self.quarantined] + [one.reasons[0] for one in self.drops]
        return dict(sorted(Counter(one.reason for one in first).items()))

    def _seconds(self) -> dict[str, Any]:
        """Of the recordings: kept + between_clips + all dropped."""
        dropped: dict[str, float] = defaultdict(float)
        for one in self.quarantined:
            dropped[one.reasons[0].reason] += one.clip.draft.span.duration_s
        for drop in self.drops:
            dropped[drop.reasons[0].reason] += drop.span.duration_s
        silent_s = sum(drop.span.duration_s for drop in self.drops if drop.reasons[0].reason == "silent")
        total_s = sum(take.track.duration_s for take in self.takes) + silent_s
        kept_s = sum(one.clip.draft.span.duration_s for one in self.kept)
        between_s = sum(self._gaps_s())
        if abs(total_s - kept_s - between_s - sum(dropped.values())) > _ROUNDING_S:
            raise RuntimeError(f"{total_s} s came in, {kept_s} + {between_s} + {dropped} s are accounted for")
        return {
            "recordings": round(total_s, 3),
            "kept": round(kept_s, 3),
            "between_clips": round(between_s, 3),
            "dropped": {reason: round(seconds, 3) for reason, seconds in sorted(dropped.items())},
        }

    def _gaps_s(self) -> Iterator[float]:
        """Of every take, what lies before, between and after its clips and drops; a clip that overlaps adds nothing."""
        spans: dict[str, list[Span]] = defaultdict(list)
        for one in self.verdicts:
            spans[one.clip.draft.source.name].append(one.clip.draft.span)
        for drop in self.drops:
            spans[drop.source.name].append(drop.span)
        for take in self.takes:
            position_s = 0.0
            for span in sorted(spans[take.source.name]):
                yield max(0.0, span.start_s - position_s)
                position_s = max(position_s, span.end_s)
            yield max(0.0, take.track.duration_s - position_s)


def _place(source: Source, span: Span) -> dict[str, Any]:
    return {
        "speaker": source.speaker,
        "recording": source.utt,
        "start_s": round(span.start_s, 3),
        "end_s": round(span.end_s, 3),
        "duration_s": round(span.duration_s, 6),
    }


def _clip(one: Verdict) -> dict[str, Any]:
    draft, written = one.clip.draft, one.clip.written
    return {
        "utt": draft.utt,
        "source": draft.name,
        **_place(draft.source, draft.span),
        "language": draft.language,
        "text": one.text,
        "source_text": draft.text or "",
        "written": draft.written,
        "asr_text": draft.heard,
        "cer": one.cer and round(one.cer, 4),
        "asr_logprob": draft.logprob and round(draft.logprob, 3),
        "asr_repetition": draft.repetition and round(draft.repetition, 2),
        "loudness_lufs": written and written.loudness_lufs,
        "source_loudness_lufs": written and written.source_lufs,
        "gain_db": written and written.gain_db,
        "true_peak_dbfs": written and written.true_peak_dbfs,
        "channels": draft.take.track.channels,
        "channels_used": draft.take.track.channels_used,
        "quality": one.clip.measured.as_dict(),
        "overruled": [_reason(reason) for reason in one.overruled],
    }


def _drop(one: Drop) -> dict[str, Any]:
    return {
        "utt": None,
        "source": one.name,
        **_place(one.source, one.span),
        "reasons": [_reason(reason) for reason in one.reasons],
    }


def _reason(reason: Reason) -> dict[str, Any]:
    return {"reason": reason.reason, "value": reason.value, "threshold": reason.threshold, "meaning": reason.meaning}


def _cells(reason: Reason) -> tuple[str, str, str]:
    return reason.reason, _cell(reason.value), _cell(reason.threshold)


def _cell(value: float | str | None) -> str:
    return "" if value is None else str(value) if isinstance(value, str) else f"{value:g}"
