"""Clips -> kept or in quarantine, with every reason: what the gates say, and above it the user's own word."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from cosytune.audio.folder import printable
from cosytune.corpus.clips import Clip
from cosytune.decisions import Decisions
from cosytune.errors import UserError
from cosytune.quality import voices
from cosytune.quality.gates import Candidate, Reason, judge
from cosytune.schema import AudioConfig
from cosytune.text import spoken_length
from cosytune.transcribe import cer

_DROPPED_BY_EAR = Reason("review", None, None, "dropped in the review")
_NO_TRANSCRIPT = Reason("no_transcript", None, None, "nothing says what is said in it")


@dataclass(frozen=True)
class Verdict:
    """A clip, what it says, and the reasons against it; none: it is kept. `cer`: as `Candidate.cer`.

    `overruled`: what the gates have against a clip that the user keeps all the same.
    """

    clip: Clip
    text: str
    cer: float | None
    reasons: tuple[Reason, ...]
    overruled: tuple[Reason, ...] = ()

    @property
    def is_kept(self) -> bool:
        return not self.reasons


def decide(
    clips: Sequence[Clip],
    texts: Mapping[str, str],
    decisions: Decisions,
    settings: AudioConfig,
    uncut: Collection[str] = (),
) -> list[Verdict]:
    """`texts`: utterance -> what it says, "" if nobody knows. `uncut`: ids of recordings that no clip was made of.

    Raises a UserError for an id in audio.keep that is no clip's. What the user dropped, and what has no text, is put
    aside first: it must not be the clip that is kept of two.
    """
    _refuse_unknown(settings.keep, clips, uncut)
    errors = {clip.draft.utt: _cer(clip, texts[clip.draft.utt]) for clip in clips}
    out: dict[str, Reason] = {}
    for clip in clips:
        if decisions.of(clip.draft.name).verdict == "drop":
            out[clip.draft.utt] = _DROPPED_BY_EAR
        elif not texts[clip.draft.utt]:
            out[clip.draft.utt] = _NO_TRANSCRIPT
    candidates = [_candidate(clip, texts, errors) for clip in clips]
    limits = settings.gates, settings.min_duration_s, settings.max_duration_s
    judged = judge([one for one in candidates if one.utt not in out], *limits)
    aside = judge(candidates, *limits) if out else {}  # what would be said of them with a text
    verdicts = []
    for clip in clips:
        utt = clip.draft.utt
        found = (out[utt], *aside[utt]) if utt in out else tuple(judged[utt])
        wanted = utt in settings.keep or decisions.of(clip.draft.name).verdict == "keep"
        stays = wanted and utt not in out and clip.written is not None
        reasons, overruled = ((), found) if stays else (found, ())
        verdicts.append(Verdict(clip, texts[utt], errors[utt], reasons, overruled))
    return verdicts


def _refuse_unknown(keep: Sequence[str], clips: Sequence[Clip], uncut: Collection[str]) -> None:
    known = {clip.draft.utt for clip in clips}
    nowhere = [printable(utt) for utt in keep if utt not in known and utt not in uncut]
    empty = [printable(utt) for utt in keep if utt not in known and utt in uncut]
    problems = []
    if nowhere:
        problems.append(f"audio.keep: {', '.join(nowhere)}: no such clip; the ids stand in data/quarantine.tsv")
    if empty:
        problems.append(f"audio.keep: {', '.join(empty)}: no clip could be made of it; data/quarantine.tsv says why")
    if problems:
        raise UserError(*problems)


def _cer(clip: Clip, text: str) -> float | None:
    """Of a transcript that somebody wrote, not of one that Whisper wrote itself."""
    heard = clip.draft.heard
    return None if heard is None or not text else cer(text, heard, clip.draft.language)


def _candidate(clip: Clip, texts: Mapping[str, str], errors: Mapping[str, float | None]) -> Candidate:
    draft = clip.draft
    is_whispers = texts[draft.utt] == draft.text  # not when the user has set it right
    return Candidate(
        utt=draft.utt,
        speaker=draft.source.speaker,
        language=draft.language,
        measured=clip.measured,
        digest=clip.written.digest if clip.written else "",
        fingerprint=clip.fingerprint,
        voice=clip.voice,
        letters=spoken_length(texts[draft.utt], draft.language) or None,
        cer=errors[draft.utt],
        logprob=draft.logprob if is_whispers else None,
        repetition=draft.repetition if is_whispers else None,
    )


def unheeded(keep: Sequence[str], verdicts: Sequence[Verdict]) -> list[str]:
    """A line if clips of audio.keep are not kept all the same, for want of a text or by the user's own word."""
    waiting = [one.clip.draft.utt for one in verdicts if one.clip.draft.utt in keep and not one.is_kept]
    return [f"audio.keep: not kept, see below: {', '.join(waiting)}"] if waiting else []


def two_voices(verdicts: Sequence[Verdict]) -> list[str]:
    """A line for each speaker whose clips sound like two people's, in groups of comparable size."""
    lines = []
    for speaker in sorted({one.clip.draft.source.speaker for one in verdicts}):
        mine = [(one.clip.draft.utt, one.clip.voice) for one in verdicts if one.clip.draft.source.speaker == speaker]
        heard = [(utt, voice) for utt, voice in mine if voice is not None]
        found = voices.two_voices([voice for _, voice in heard])
        if found:
            larger, smaller = ([heard[i][0] for i in group] for group in (found.larger, found.smaller))
            lines.append(
                f"'{speaker}' sounds like two people (similarity {found.similarity:.2f}): {len(larger)} clips such as "
                f"{', '.join(larger[:3])}, and {len(smaller)} such as {', '.join(smaller[:3])}; move one person's "
                "recordings out of audio/, or set audio.speakers=by_folder"
            )
    return lines
