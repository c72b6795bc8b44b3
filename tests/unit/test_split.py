"""The train, cv and test sets: whole takes, equal sounds together, the same sets for the same seed."""

from __future__ import annotations

import hashlib

import pytest

from cosytune.errors import UserError
from cosytune.features.split import Clip, Split, assign
from cosytune.schema import SplitConfig


def take(name: str, count: int, first_digest: str = "") -> list[Clip]:
    """The clips of one recording, 6 s apart; ids do not follow the time."""
    return [
        Clip(f"{name}-{(7 * n) % 1009:04d}", first_digest if not n and first_digest else f"{name}{n}", name, 6.0 * n)
        for n in range(count)
    ]


def singles(count: int, sounds: int | None = None) -> list[Clip]:
    return [Clip(f"utt{n:03d}", f"hash{n % (sounds or count)}", f"utt{n:03d}") for n in range(count)]


def checked(clips: list[Clip], settings: SplitConfig | None = None, seed: int = 1) -> Split:
    """The split, after what holds for every split has been looked at."""
    settings = settings or SplitConfig()
    split = assign(clips, settings, seed)
    assert split == assign(list(reversed(clips)), settings, seed), "order plays no part"
    together = [utt for utts in split.sets.values() for utt in utts]
    assert sorted(together) == sorted(one.utt for one in clips)
    assert split.sets["train"]
    assert split.sets["cv"]
    sets_of: dict[str, set[str]] = {}
    for one in clips:
        sets_of.setdefault(one.digest, set()).update(name for name, utts in split.sets.items() if one.utt in utts)
    assert all(len(names) == 1 for names in sets_of.values())
    return split


def sets_of_takes(clips: list[Clip], split: Split) -> dict[str, set[str]]:
    where: dict[str, set[str]] = {}
    for one in clips:
        where.setdefault(one.recording, set()).update(name for name, utts in split.sets.items() if one.utt in utts)
    return where


@pytest.mark.parametrize("count", [2, 3, 9, 10, 11, 40, 298, 501])
def test_single_clips(count: int) -> None:
    split = checked(singles(count))
    assert bool(split.sets["test"]) == (count >= 10)
    assert split.by == "clip"
    if count > 9:
        assert split != assign(singles(count), SplitConfig(), seed=2)


def test_single_clips_stay_in_the_sets_that_they_had() -> None:
    """Draws of sha256 in order: test first, then cv. A change here would mix the sets of every recipe in use."""
    drawn = sorted((one.utt for one in singles(40)), key=lambda utt: hashlib.sha256(f"5 {utt}".encode()).hexdigest())
    sets = assign(singles(40), SplitConfig(), 5).sets
    assert sets == {"test": sorted(drawn[:2]), "cv": sorted(drawn[2:6]), "train": sorted(drawn[6:])}


@pytest.mark.parametrize("count", [2, 9, 10, 11, 501, 600])
def test_one_long_take_is_cut_in_time(count: int) -> None:
    clips = take("talk", count)
    split = checked(clips)
    in_time = [next(name for name, utts in split.sets.items() if one.utt in utts) for one in clips]
    blocks = [name for n, name in enumerate(in_time) if not n or in_time[n - 1] != name]
    assert blocks == (["train", "cv", "test"] if count >= 10 else ["train", "cv"])
    assert len(split.sets["cv"]) == max(1, round(count * 0.1))
    assert split.by == "blocks of a recording"


def test_twenty_takes_stay_whole() -> None:
    clips = [one for n in range(20) for one in take(f"take{n:02d}", 3 + 2 * n)]
    for seed in range(10):
        split = checked(clips, seed=seed)
        assert split.by == "recording"
        assert all(len(names) == 1 for names in sets_of_takes(clips, split).values())
        assert 0.5 <= len(split.sets["cv"]) / (0.1 * len(clips)) <= 1.0
        assert 0.5 <= len(split.sets["test"]) / (0.05 * len(clips)) <= 1.0
    assert len({tuple(checked(clips, seed=seed).sets["cv"]) for seed in range(5)}) > 1


def test_three_large_takes_only_one_of_them_is_cut() -> None:
    clips = take("a", 50) + take("b", 80) + take("c", 60)
    split = checked(clips)
    assert sets_of_takes(clips, split) == {"a": {"train"}, "b": {"train", "cv", "test"}, "c": {"train"}}


def test_a_few_small_takes_beside_a_large_one_spare_the_large_one() -> None:
    clips = take("talk", 80) + singles(20)
    split = checked(clips)
    assert split.by == "recording"
    assert sets_of_takes(clips, split)["talk"] == {"train"}


def test_takes_that_share_a_sound_go_together() -> None:
    clips = [one for n in range(30) for one in take(f"take{n:02d}", 2, "jingle" if n < 3 else "")]
    for seed in range(10):
        split = checked(clips, seed=seed)
        where = sets_of_takes(clips, split)
        assert where["take00"] == where["take01"] == where["take02"]


def test_a_sound_that_comes_back_goes_with_its_first_time() -> None:
    clips = take("talk", 100)
    clips[99] = Clip(clips[99].utt, clips[3].digest, "talk", clips[99].start_s)
    assert clips[99].utt in checked(clips).sets["train"]


@pytest.mark.parametrize("settings", [SplitConfig(), SplitConfig(cv_fraction=0.9, test_fraction=0.9)])
@pytest.mark.parametrize("sounds", [2, 3, 7])
def test_no_set_that_training_needs_is_empty(sounds: int, settings: SplitConfig) -> None:
    for seed in range(5):
        assert bool(checked(singles(14, sounds), settings, seed).sets["test"]) == (sounds > 2)


@pytest.mark.parametrize("count", [2, 10, 40])
def test_a_take_leaves_something_to_train_on_whatever_the_fractions_say(count: int) -> None:
    checked(take("talk", count), SplitConfig(cv_fraction=0.9, test_fraction=0.9))
    checked(take("a", count) + take("b", count), SplitConfig(cv_fraction=0.9, test_fraction=0.9))


def test_one_sound_cannot_be_split() -> None:
    with pytest.raises(UserError, match="2 or more"):
        assign(singles(2, 1), SplitConfig(), 1)
