"""What is kept of former runs: trusted where it is whole and of the same maker, forgotten with its clip."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosytune.features.store import Store

VALUES = {"a" * 64: [1, 2, 3], "b" * 64: [0.1, -1e-30], "c" * 64: []}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "features" / "tokens.txt"


def filled(path: Path, maker: str = "model 1") -> Store:
    store = Store(path, maker)
    for clip, value in VALUES.items():
        store.add(clip, value)
    return store


def known(path: Path, maker: str = "model 1") -> dict[str, list[float]]:
    store = Store(path, maker)
    return {clip: store[clip] for clip in VALUES if clip in store}


def test_values_come_back_exactly_and_only_of_clips_that_are_there(path: Path) -> None:
    filled(path).close(VALUES)
    assert known(path) == VALUES
    Store(path, "model 1").close(["b" * 64, "d" * 64])
    assert known(path) == {"b" * 64: [0.1, -1e-30]}


def test_a_run_that_was_killed_leaves_what_it_had(path: Path) -> None:
    filled(path)  # never closed
    assert known(path) == VALUES
    cut = path.read_bytes()[:-5]
    path.write_bytes(cut)
    assert list(known(path)) == ["a" * 64, "b" * 64]
    store = Store(path, "model 1")
    store.add("c" * 64, [])
    assert known(path) == VALUES, "the half line does not spoil the next one"


def test_another_maker_or_a_flipped_bit_is_no_answer(path: Path) -> None:
    filled(path).close(VALUES)
    assert known(path, "model 2") == {}
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        left = known(path)
        assert all(VALUES[clip] == value for clip, value in left.items())
        assert len(left) in (1, 2), f"byte {place}: the line it is in, or the two that it joins, are not trusted"


def test_again_starts_with_nothing(path: Path) -> None:
    filled(path).close(VALUES)
    store = Store(path, "model 1", again=True)
    assert not any(clip in store for clip in VALUES)
    assert known(path) == {}, "nor does a run that is killed right away bring the old values back"


def test_two_clips_of_one_content_share_no_list(path: Path) -> None:
    store = filled(path)
    assert store["a" * 64] == store["a" * 64]
    assert store["a" * 64] is not store["a" * 64]
