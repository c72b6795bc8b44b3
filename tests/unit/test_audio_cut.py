"""The cutter on speech that was made up: what must hold for every recording, and single cases with one right answer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from cosytune.audio.cut import Cuts, Piece, cut
from cosytune.audio.listen import Heard
from cosytune.audio.span import Span, Word
from cosytune.audio.vad import FRAME_S
from cosytune.schema import SegmentConfig

SETTINGS = SegmentConfig()
SHORTEST_S = 1.0
CLOSE = 1e-6


def heard(spans: Sequence[tuple[float, float]], duration_s: float, dips_s: Sequence[float] = ()) -> Heard:
    """Speech at -20 dBFS in `spans`, -70 elsewhere; at the dips -40."""
    frames = (np.arange(int(np.ceil(duration_s / FRAME_S))) + 0.5) * FRAME_S
    bins = (np.arange(int(np.ceil(duration_s * 100))) + 0.5) / 100
    spoken = lambda times: np.any([(start <= times) & (times < end) for start, end in spans], axis=0)
    levels = np.where(spoken(bins), -20.0, -70.0)
    for dip_s in dips_s:
        levels[np.abs(bins - dip_s) < 0.04] = -40.0
    return Heard(spoken(frames).astype(np.float32), levels.astype(np.float32), duration_s)


def drawn(seed: int) -> tuple[Heard, list[Word]]:
    """A recording of a few minutes: speech of 0.1 to 15 s, pauses of 0.07 to 5 s; words, not all where speech is."""
    draw = np.random.default_rng(seed)
    spans, position_s = [], draw.choice([0.0, 0.1, 1.0])
    for _ in range(draw.integers(1, 40)):
        length_s = draw.choice([draw.uniform(0.1, 1), draw.uniform(1, 5), draw.uniform(5, 15)])
        spans.append((position_s, position_s + length_s))
        position_s += length_s + draw.choice([draw.uniform(0.07, 0.3), draw.uniform(0.3, 1), draw.uniform(1, 5)])
    duration_s = float(spans[-1][1] + draw.choice([0.0, 0.1, 1.0]))
    words, start_s = [], 0.0
    while start_s < duration_s:
        end_s = min(duration_s, start_s + draw.choice([0.0, draw.uniform(0.05, 0.8)], p=[0.05, 0.95]))
        words.append(Word(str(len(words)), Span(float(start_s), float(end_s))))
        start_s = end_s + draw.choice([0.0, draw.uniform(0, 0.3), draw.uniform(0, 6)], p=[0.4, 0.5, 0.1])
    dips_s = draw.uniform(0, duration_s, 30)
    return heard(spans, duration_s, dips_s), words


def said(piece: Piece) -> Span:
    return Span(piece.speech[0].start_s, piece.speech[-1].end_s)


def all_said(cuts: Cuts) -> list[Span]:
    return sorted([*map(said, cuts.pieces), *cuts.too_short, *cuts.too_long])


def covered_s(span: Span, others: Sequence[Span]) -> float:
    return sum(span.overlap_s(other) for other in others)


@pytest.mark.parametrize("with_words", [False, True])
@pytest.mark.parametrize("seed", range(60))
def test_what_always_holds(seed: int, with_words: bool) -> None:
    recording, words = drawn(seed)
    words = words if with_words else []
    cuts = cut(recording, SETTINGS, SHORTEST_S, words)
    clips = [piece.span for piece in cuts.pieces]
    everything = all_said(cuts)
    for before, after in pairwise(everything):
        assert before.end_s <= after.start_s
    for before, after in pairwise(clips):
        assert before.end_s <= after.start_s + CLOSE
    for span in clips:
        assert span.start_s >= -CLOSE
        assert span.end_s <= recording.duration_s + CLOSE
        assert SHORTEST_S - CLOSE <= span.duration_s <= SETTINGS.max_s + CLOSE
    assert cuts.too_long == []
    in_pieces = [span for piece in cuts.pieces for span in piece.speech]
    for span in recording.speech(SETTINGS.speech_threshold):
        kept_s, lost_s = covered_s(span, in_pieces), covered_s(span, cuts.too_short)
        assert kept_s + lost_s == pytest.approx(span.duration_s, abs=CLOSE)
    assert_margins(cuts, recording.duration_s)
    assert_pauses(cuts)
    assert_words(cuts, words)
    assert cut(recording, SETTINGS, SHORTEST_S, words) == cuts


def assert_margins(cuts: Cuts, duration_s: float) -> None:
    """0.2 s on both sides, or half of the pause, or what there is at the recording's ends."""
    everything = all_said(cuts)
    before = dict(zip(everything, [None, *everything], strict=False))
    after = dict(zip(everything, [*everything[1:], None], strict=False))
    for piece in cuts.pieces:
        own = said(piece)
        left, right = before[own], after[own]
        lead_s = own.start_s if left is None else (own.start_s - left.end_s) / 2
        tail_s = duration_s - own.end_s if right is None else (right.start_s - own.end_s) / 2
        assert own.start_s - piece.span.start_s == pytest.approx(min(SETTINGS.margin_s, lead_s), abs=CLOSE)
        assert piece.span.end_s - own.end_s == pytest.approx(min(SETTINGS.margin_s, tail_s), abs=CLOSE)


def assert_pauses(cuts: Cuts) -> None:
    """No pause over 2 s in a clip; one over 1 s only where one of its sides alone would be too short."""
    for piece in cuts.pieces:
        for before, after in pairwise(piece.speech):
            assert after.start_s - before.end_s <= 2.0 + CLOSE
            if after.start_s - before.end_s > 1.0 + CLOSE:
                sides = before.end_s - piece.span.start_s, piece.span.end_s - after.start_s
                assert min(sides) + SETTINGS.margin_s < SETTINGS.min_s


def assert_words(cuts: Cuts, words: Sequence[Word]) -> None:
    lost = [*cuts.too_short, *cuts.too_long]
    placed = [word for piece in cuts.pieces for word in piece.words]
    for piece in cuts.pieces:
        for word in piece.words:
            assert said(piece).start_s - CLOSE <= word.span.start_s
            assert word.span.end_s <= said(piece).end_s + CLOSE
    for word in words:
        gone = any(span.start_s <= word.span.start_s and word.span.end_s <= span.end_s for span in lost)
        assert placed.count(word) + gone == 1


def test_nothing_said_makes_nothing() -> None:
    assert cut(heard([(0, 0)], 20.0), SETTINGS, SHORTEST_S) == Cuts([], [], [])


def test_a_cut_goes_to_the_longest_pause() -> None:
    """Cut at the first pause, both clips would be of middle length; the second is a better pause."""
    cuts = cut(heard([(1.0, 6.0), (6.16, 10.0), (10.4, 13.3)], 14.0), SETTINGS, SHORTEST_S)
    assert len(cuts.pieces) == 2
    assert cuts.pieces[0].span.end_s == pytest.approx(10.2, abs=FRAME_S)
    assert cuts.pieces[1].span.start_s == pytest.approx(10.2, abs=FRAME_S)


def test_of_equal_pauses_the_one_in_the_middle_is_taken() -> None:
    spans = [(1.0 + 3.1 * index, 3.8 + 3.1 * index) for index in range(4)]
    cuts = cut(heard(spans, 14.0), SETTINGS, SHORTEST_S)
    assert [len(piece.speech) for piece in cuts.pieces] == [2, 2]


def test_a_poor_pause_is_used_only_if_it_must_be() -> None:
    """Three clips at poor pauses would be of middle length; two are enough."""
    spans = [(1.3, 7.5), (7.7, 10.75), (10.95, 14.0), (14.2, 20.4)]
    cuts = cut(heard(spans, 22.0), SegmentConfig(min_pause_s=0.3), SHORTEST_S)
    assert [piece.span.end_s for piece in cuts.pieces[:-1]] == [pytest.approx(10.85, abs=FRAME_S)]


def test_speech_is_not_dropped_to_please_its_neighbours() -> None:
    cuts = cut(heard([(1.0, 6.0), (6.9, 7.3), (8.2, 13.2)], 14.0), SETTINGS, SHORTEST_S)
    assert cuts.too_short == []
    assert sorted(len(piece.speech) for piece in cuts.pieces) == [1, 2]


def test_the_whole_is_looked_at_not_the_next_cut() -> None:
    """Whoever fills the first clip to 10 s leaves 1.5 s at the end, alone."""
    spans = [(1.0, 5.0), (5.4, 10.4), (10.8, 12.0)]
    cuts = cut(heard(spans, 13.0), SETTINGS, SHORTEST_S)
    assert [len(piece.speech) for piece in cuts.pieces] == [1, 2]
    assert all(piece.span.duration_s >= SETTINGS.min_s for piece in cuts.pieces)


def test_a_long_pause_is_carried_only_to_reach_the_minimum() -> None:
    apart = cut(heard([(1, 5), (6.5, 10.5)], 12.0), SETTINGS, SHORTEST_S)
    assert len(apart.pieces) == 2
    together = cut(heard([(1, 2.5), (4.0, 6.0)], 12.0), SETTINGS, SHORTEST_S)
    assert len(together.pieces) == 1
    other_way = cut(heard([(1, 6), (7.2, 9.1), (9.7, 14.2), (14.42, 18.9)], 20.0), SETTINGS, SHORTEST_S)
    assert [len(piece.speech) for piece in other_way.pieces] == [1, 2, 1]


def test_short_speech_far_from_other_is_kept_from_the_shortest_up() -> None:
    cuts = cut(heard([(3, 4.5), (10, 10.4), (15, 20)], 25.0), SETTINGS, SHORTEST_S)
    assert [round(piece.span.duration_s, 1) for piece in cuts.pieces] == [1.9, 5.4]
    assert [round(span.start_s, 1) for span in cuts.too_short] == [10.0]


def test_speech_without_a_pause_is_cut_where_it_is_quietest() -> None:
    dips_s = (7.31, 14.62)
    cuts = cut(heard([(1.0, 21.0)], 22.0, dips_s), SETTINGS, SHORTEST_S)
    borders_s = [piece.span.end_s for piece in cuts.pieces[:-1]]
    assert borders_s == [pytest.approx(dip_s, abs=0.05) for dip_s in dips_s]
    assert [piece.span.start_s for piece in cuts.pieces[1:]] == borders_s


def test_words_are_not_cut_even_where_it_is_quiet() -> None:
    words = [Word(str(index), Span(1.0 + index, 1.9 + index)) for index in range(20)]
    cuts = cut(heard([(1.0, 21.0)], 22.0, dips_s=(7.5, 14.5)), SETTINGS, SHORTEST_S, words)
    assert_words(cuts, words)
    for piece in cuts.pieces[:-1]:
        assert piece.span.end_s % 1 >= 0.9 - CLOSE


def test_a_word_wins_over_a_pause() -> None:
    """The longest pause lies inside a word: the cut goes to the second one."""
    spans = [(1.0, 6.0), (6.6, 7.2), (7.5, 13.0)]
    word = Word("long", Span(5.5, 6.9))
    cuts = cut(heard(spans, 14.0), SETTINGS, SHORTEST_S, [word])
    assert len(cuts.pieces) == 2
    assert cuts.pieces[0].span.end_s == pytest.approx(7.35, abs=FRAME_S)
    assert cuts.pieces[0].words == (word,)


def test_a_word_that_the_detector_missed_is_speech() -> None:
    word = Word("quiet", Span(6.3, 6.8))
    piece = cut(heard([(1.0, 6.0)], 9.0), SETTINGS, SHORTEST_S, [word]).pieces[0]
    assert piece.words == (word,)
    assert piece.span.end_s == pytest.approx(7.0)


def test_a_word_longer_than_a_clip_is_named_and_costs_no_other() -> None:
    words = [Word("a", Span(1, 4)), Word("endless", Span(4.5, 16)), Word("b", Span(17, 21))]
    cuts = cut(heard([(1.0, 21.0)], 22.0), SETTINGS, SHORTEST_S, words)
    assert len(cuts.too_long) == 1
    assert cuts.too_long[0].overlap_s(words[1].span) == pytest.approx(11.5)
    assert [word.text for piece in cuts.pieces for word in piece.words] == ["a", "b"]
