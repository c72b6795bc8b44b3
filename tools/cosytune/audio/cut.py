"""What was heard in a recording, and the times of its words -> pieces of 3 to 10 s, cut at the longest pauses.

Of all ways to cut, the cheapest is taken (dynamic programming over the places where a cut is possible): a cut costs the
more the shorter its pause is, a piece the more the further its length lies from the middle of what is wanted.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cosytune.audio.listen import LEVEL_S, Heard
from cosytune.audio.span import Span, Word
from cosytune.audio.vad import FRAME_S
from cosytune.schema import SegmentConfig

_LONG_PAUSE_S = 1.0  # a clip carries no longer one if there is any other way to the minimum,
_LONGEST_PAUSE_S = 2.0  # and never one longer than this

# Costs: each is avoided at the price of several of those below it.
_OVERLONG = 1000.0  # a word that fills more than a clip
_DROPPED = 40.0  # speech that is lost
_TOO_SHORT = 10.0  # a clip below the minimum, and 1 more for each second
_CUT_IN_SPEECH = 6.0  # where it is quietest; twice that where it is loudest
_LONG_PAUSE = 4.0  # carried along, for each second of it
_CUT_AT_PAUSE = 2.0  # at one of 0 s, a factor e less for every 0.3 s
_PAUSE = 0.5  # carried along, for each second of it: from 0.6 s up it is better to cut, as far as lengths allow
_LENGTH = 0.2  # at the minimum and at the maximum

_ROUNDING_S = 1e-9
_SHORTEST_WORD_S = 0.01  # an aligner may give a word no length
_EXITS = 20  # moments to choose from in the time of the longest clip, where speech has no pause
_RANGE_DB = 30.0  # from the loud to the softest sounds of speech
_SMOOTHED_LEVELS = 5  # 50 ms: the closure of a "t", not the gap between two beats of the voice


@dataclass(frozen=True)
class Piece:
    """A clip: its span with the margins, the spans of speech in it, its words; all in the recording's time."""

    span: Span
    speech: tuple[Span, ...]
    words: tuple[Word, ...]


@dataclass(frozen=True)
class Cuts:
    """Pieces in order, and the speech that makes none: too little of it, or one word that fills more than a clip."""

    pieces: list[Piece]
    too_short: list[Span]
    too_long: list[Span]


def cut(heard: Heard, settings: SegmentConfig, shortest_s: float, words: Sequence[Word] | None = None) -> Cuts:
    """Pieces of `settings.min_s` to `max_s`, margins included; shorter ones down to `shortest_s` where no neighbour is
    near enough to be joined.

    Words are speech whatever the detector says, and never cut. Every span of speech and every word is in exactly one
    piece, or in what was too short or too long. Clips do not overlap: a pause shorter than two margins is shared.
    """
    timed = sorted(((_extent(word, heard.duration_s), word) for word in words or ()), key=lambda pair: pair[0])
    starts_s = [extent.start_s for extent, _ in timed]
    extents = _merged(extent for extent, _ in timed)
    speech = _merged([*heard.speech(settings.speech_threshold), *extents])
    cuts = Cuts([], [], [])
    if not speech:
        return cuts
    places = _places(heard, speech, extents, settings)
    for before, after in _cheapest(places, settings, shortest_s):
        said, clip = Span(before.end_s, after.start_s), _clip(before, after)
        if clip.duration_s > settings.max_s + _ROUNDING_S:
            cuts.too_long.append(said)
        elif clip.duration_s < shortest_s - _ROUNDING_S:
            cuts.too_short.append(said)
        else:
            inside = timed[bisect_left(starts_s, said.start_s) : bisect_left(starts_s, said.end_s)]
            cuts.pieces.append(Piece(clip, _within(speech, said), tuple(word for _, word in inside)))
    return cuts


@dataclass(frozen=True)
class _Place:
    """Where a cut is possible: nothing is said from `start_s` to `end_s`; `margin_s` of it goes to either side."""

    start_s: float
    end_s: float
    margin_s: float
    cost: float

    @property
    def pause_s(self) -> float:
        return self.end_s - self.start_s


def _clip(before: _Place, after: _Place) -> Span:
    return Span(before.end_s - before.margin_s, after.start_s + after.margin_s)


def _places(heard: Heard, speech: list[Span], words: list[Span], settings: SegmentConfig) -> list[_Place]:
    """In order, the recording's beginning and end included; what is said between two of them fits into a clip."""
    lead_s, tail_s = speech[0].start_s, heard.duration_s - speech[-1].end_s
    found = [_Place(0.0, lead_s, min(settings.margin_s, lead_s), 0.0)]
    pauses = [_pause(before.end_s, after.start_s, settings.margin_s) for before, after in pairwise(speech)]
    pauses.append(_Place(speech[-1].end_s, heard.duration_s, min(settings.margin_s, tail_s), 0.0))
    flow: list[Span] = []
    for span, after in zip(speech, pauses, strict=True):
        flow.append(span)
        if after.pause_s >= settings.min_pause_s or after is pauses[-1]:
            if _clip(found[-1], after).duration_s > settings.max_s + _ROUNDING_S:
                found.extend(_emergency_exits(heard, flow, words, settings))
            found.append(after)
            flow = []
    return found


def _pause(start_s: float, end_s: float, margin_s: float) -> _Place:
    pause_s = end_s - start_s
    return _Place(start_s, end_s, min(margin_s, pause_s / 2), _CUT_AT_PAUSE * math.exp(-pause_s / 0.3))


def _emergency_exits(heard: Heard, flow: list[Span], words: list[Span], settings: SegmentConfig) -> list[_Place]:
    """Where speech without a good pause can be cut: at its poor ones, and in its quietest moments."""
    exits = []
    for span, after in zip(flow, [*flow[1:], None], strict=True):
        exits.extend(_quiet_places(heard, span, words, settings.max_s / _EXITS))
        if after is not None:
            pause = _pause(span.end_s, after.start_s, settings.margin_s)
            exits.append(replace(pause, cost=_CUT_IN_SPEECH + pause.cost))
    return exits


def _quiet_places(heard: Heard, speech: Span, words: list[Span], every_s: float) -> list[_Place]:
    """The quietest moment of every stretch of `every_s`, none of them inside a word."""
    moments_s, loudness = _moments(heard, speech)
    inner = _within(words, speech)
    edges_s = [speech.start_s, *(edge for word in inner for edge in (word.start_s, word.end_s)), speech.end_s]
    found_s = []
    for start_s, end_s in zip(edges_s[::2], edges_s[1::2], strict=True):
        borders_s = np.linspace(start_s, end_s, max(1, math.ceil((end_s - start_s) / every_s)) + 1)
        for low_s, high_s in pairwise(borders_s):
            first, last = np.searchsorted(moments_s, [low_s, high_s])
            quietest_s = moments_s[first + loudness[first:last].argmin()] if last > first else (low_s + high_s) / 2
            found_s.append(float(quietest_s))
    costs = _CUT_IN_SPEECH * (1 + np.interp(found_s, moments_s, loudness))
    places = [_Place(found, found, 0.0, float(cost)) for found, cost in zip(found_s, costs, strict=True)]
    return [place for place in places if speech.start_s < place.start_s < speech.end_s]


def _moments(heard: Heard, speech: Span) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """-> (times [n], loudness [n] from 0, as good as a pause, to 1), float64, one for every 10 ms."""
    first, last = math.floor(speech.start_s / LEVEL_S), math.ceil(speech.end_s / LEVEL_S)
    levels = np.convolve(heard.levels_db[first:last], np.full(_SMOOTHED_LEVELS, 1 / _SMOOTHED_LEVELS), mode="same")
    times_s: NDArray[np.float64] = (first + 0.5 + np.arange(len(levels), dtype=np.float64)) * LEVEL_S
    frames = np.minimum((times_s / FRAME_S).astype(np.int64), len(heard.probabilities) - 1)
    level = np.clip(1 + (levels - np.percentile(levels, 95)) / _RANGE_DB, 0, 1)
    loudness: NDArray[np.float64] = (level + heard.probabilities[frames]) / 2
    return times_s, loudness


def _cheapest(places: list[_Place], settings: SegmentConfig, shortest_s: float) -> list[tuple[_Place, _Place]]:
    """The places before and after each piece, in order; what lies between two pieces is one place."""
    costs = [0.0]
    cut_before = [0]
    for last in range(1, len(places)):
        best, best_first, carried = math.inf, last - 1, 0.0
        for first in range(last - 1, -1, -1):
            length_s = _clip(places[first], places[last]).duration_s
            if carried == math.inf or (length_s > settings.max_s + _ROUNDING_S and first < last - 1):
                break
            cost = costs[first] + carried + _cost(length_s, settings, shortest_s)
            if cost < best:
                best, best_first = cost, first
            carried += _carrying(places[first].pause_s)
        costs.append(best + places[last].cost)
        cut_before.append(best_first)
    chosen = [len(places) - 1]
    while chosen[-1] > 0:
        chosen.append(cut_before[chosen[-1]])
    return list(pairwise(places[index] for index in reversed(chosen)))


def _cost(length_s: float, settings: SegmentConfig, shortest_s: float) -> float:
    if length_s > settings.max_s + _ROUNDING_S:
        return _OVERLONG
    if length_s < shortest_s - _ROUNDING_S:
        return _DROPPED + length_s
    if length_s < settings.min_s - _ROUNDING_S:
        return _TOO_SHORT + settings.min_s - length_s
    middle_s, reach_s = (settings.min_s + settings.max_s) / 2, (settings.max_s - settings.min_s) / 2
    return _LENGTH * ((length_s - middle_s) / max(reach_s, _ROUNDING_S)) ** 2


def _carrying(pause_s: float) -> float:
    if pause_s > _LONGEST_PAUSE_S:
        return math.inf
    return pause_s * (_LONG_PAUSE if pause_s > _LONG_PAUSE_S else _PAUSE)


def _extent(word: Word, duration_s: float) -> Span:
    """When the word sounds, inside the recording and of some length."""
    start_s = max(0.0, min(word.span.start_s, duration_s - _SHORTEST_WORD_S))
    return Span(start_s, max(min(word.span.end_s, duration_s), start_s + _SHORTEST_WORD_S))


def _merged(spans: Iterable[Span]) -> list[Span]:
    """Those that overlap made one, in order; those that only touch stay two."""
    found: list[Span] = []
    for span in sorted(spans):
        if found and span.start_s < found[-1].end_s:
            found[-1] = Span(found[-1].start_s, max(found[-1].end_s, span.end_s))
        else:
            found.append(span)
    return found


def _within(spans: list[Span], stretch: Span) -> tuple[Span, ...]:
    """Of spans in order that do not overlap, what lies in the stretch."""
    first = bisect_right(spans, stretch.start_s, key=lambda span: span.end_s)
    last = bisect_left(spans, stretch.end_s, key=lambda span: span.start_s)
    return tuple(Span(max(span.start_s, stretch.start_s), min(span.end_s, stretch.end_s)) for span in spans[first:last])
