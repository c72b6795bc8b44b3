"""The measures against cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from cosytune.voice import scoring


def slow_dtw(a: np.ndarray, b: np.ndarray) -> float:
    """The same distance, cell by cell, as a textbook has it."""
    cost = np.abs(a[:, None] - b[None]).mean(axis=2)
    total, steps = np.full((len(a), len(b)), np.inf), np.zeros((len(a), len(b)))
    for i in range(len(a)):
        for j in range(len(b)):
            before = [(total[x, y], steps[x, y]) for x, y in ((i - 1, j - 1), (i - 1, j), (i, j - 1)) if min(x, y) >= 0]
            cheapest = min(before, key=lambda one: one[0]) if before else (0.0, 0)
            total[i, j], steps[i, j] = cheapest[0] + cost[i, j], cheapest[1] + 1
    return float(total[-1, -1] / steps[-1, -1])


def test_a_clip_has_no_distance_to_itself_nor_to_itself_spoken_slowly() -> None:
    mel = np.random.default_rng(0).normal(size=(40, 80)).astype(np.float32)
    assert scoring.mel_distance(mel, mel) == 0
    assert scoring.mel_distance(np.repeat(mel, 2, axis=0), mel) == pytest.approx(0, abs=1e-7)


def test_a_constant_offset_is_the_distance() -> None:
    mel = np.random.default_rng(0).normal(size=(40, 80)).astype(np.float32) * 10
    assert scoring.mel_distance(mel + 0.25, mel) == pytest.approx(0.25, rel=1e-4)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 7), (9, 1), (13, 8), (20, 31)])
def test_the_distance_is_the_textbooks(rows: int, columns: int) -> None:
    draw = np.random.default_rng(rows * columns)
    a, b = (draw.normal(size=(length, 80)).astype(np.float32) for length in (rows, columns))
    assert scoring.mel_distance(a, b) == pytest.approx(slow_dtw(a, b), rel=1e-5)


def test_similarity_is_the_cosine() -> None:
    assert scoring.similarity([1, 0], [5, 0]) == pytest.approx(1)
    assert scoring.similarity([1, 0], [0, 2]) == pytest.approx(0)
    assert scoring.similarity([1, 1], [-1, -1]) == pytest.approx(-1)


def test_means_leave_out_what_was_not_measured() -> None:
    takes = [{"duration_ratio": 1.0, "ran_on": None}, {"duration_ratio": 2.0}, {"ran_on": 0.5}]
    result = scoring.means(takes)
    assert (result["duration_ratio"], result["ran_on"], result["mel_distance"]) == (1.5, 0.5, None)
