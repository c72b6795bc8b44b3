"""A word of the user on one clip -> a line of data/all/text or an entry of decisions.json; every other one stays.

What a kept clip says is its line; a text that was typed before it was kept is then done with, and leaves its decision.
Each write reads the files anew while it holds the recipe's lock, the one that stages 0 to 3 hold while they run.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cosytune import decisions, kaldi, locks
from cosytune.decisions import Verdict
from cosytune.layout import Layout
from cosytune.record import Record
from cosytune.review.clips import Clip, current_text, read_clips, read_lines, text_path
from cosytune.stages import STAGES
from cosytune.text import is_speakable, normalize

_PREPARE = next(stage for stage in STAGES if stage.name == "prepare")
_PATIENCE_S = 0.5  # another review page holds the lock for milliseconds, a stage for minutes
_one_writer = threading.Lock()  # this process's own threads wait for each other


class RefusedError(Exception):
    """An edit that cannot be done. `code`: the page has the words for it; `status`: of HTTP."""

    def __init__(self, code: str, status: int) -> None:
        super().__init__(code)
        self.code = code
        self.status = status


def set_verdict(layout: Layout, source: str, verdict: Verdict | None) -> None:
    """Keep, drop, or neither. A clip without audio or transcript cannot be kept."""
    with _alone(layout):
        clip = _find(layout, source)
        said = decisions.load(layout)
        text = None if clip.is_kept else said.of(source).text
        if verdict == "keep" and not clip.is_kept:
            if not clip.wav.is_file():
                raise RefusedError("no_audio", 422)
            if not (text or clip.found):
                raise RefusedError("no_text", 422)
        decisions.save(layout, said.put(source, clip.utt, verdict, text))


def set_text(layout: Layout, language: str, source: str, text: str | None, was: str) -> None:
    """What is said in the clip; None: what stage 0 found. `was`: the text that the user saw and changed.

    Raises RefusedError for a text with nothing to say, and when somebody else has changed the line meanwhile.
    """
    with _alone(layout):
        clip = _find(layout, source)
        said = decisions.load(layout)
        lines = read_lines(layout)
        if current_text(clip, lines, said.of(source)) != was:
            raise RefusedError("changed_meanwhile", 409)
        wanted = clip.found if text is None else _checked(text, clip.language or language)
        if clip.is_kept:
            kaldi.write_table(text_path(layout), {**lines, clip.utt: wanted})
        own = None if clip.is_kept or wanted == clip.found else wanted
        if own != said.of(source).text:
            decisions.save(layout, said.put(source, clip.utt, said.of(source).verdict, own))


def _checked(text: str, language: str) -> str:
    if not text.strip():
        raise RefusedError("empty_text", 422)
    normal = normalize(text, language)
    if not is_speakable(normal):
        raise RefusedError("unspeakable", 422)
    return normal


def _find(layout: Layout, source: str) -> Clip:
    clip = read_clips(layout).get(source)
    if clip is None:  # stage 0 has run since the page was loaded
        raise RefusedError("gone", 409)
    return clip


@contextmanager
def _alone(layout: Layout) -> Iterator[None]:
    try:
        with _one_writer, locks.alone(Record.path(layout, _PREPARE).parent, _PATIENCE_S):
            yield
    except BlockingIOError:
        raise RefusedError("busy", 409) from None
