"""When a finished stage must run again, and why."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cosytune import files
from cosytune.layout import ROOT, Layout
from cosytune.record import Record, capture, flatten, path_of
from cosytune.schema import Config
from cosytune.stages import STAGES

TRAIN = next(stage for stage in STAGES if stage.name == "train")
PACK = next(stage for stage in STAGES if stage.name == "pack")
SETTINGS = {"seed": 1986, "train.llm.learning_rate": 1e-4}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    for name in ("audio/a b.wav", "audio/花子.wav", "parquet/out.tar"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
    return Layout(tmp_path)


def inputs(layout: Layout) -> list[Path]:
    return sorted(layout.audio.glob("*.wav"))


@pytest.fixture
def record(layout: Layout) -> Record:
    return Record(SETTINGS, capture(layout, inputs(layout)), capture(layout, [layout.parquet / "out.tar"]))


def test_nothing_changed(layout: Layout, record: Record) -> None:
    record.write(layout, TRAIN)
    again = Record.read(layout, TRAIN)
    assert again == record
    assert again.stale_reason(layout, SETTINGS, inputs(layout)) is None


def test_a_touched_file_is_not_a_changed_file(layout: Layout, record: Record) -> None:
    os.utime(layout.audio / "a b.wav", (0, 0))
    assert record.stale_reason(layout, SETTINGS, inputs(layout)) is None


def test_a_moved_recipe_has_nothing_to_do(layout: Layout, record: Record) -> None:
    record.write(layout, TRAIN)
    moved = Layout(layout.recipe.rename(layout.recipe.with_name("moved")))
    again = Record.read(moved, TRAIN)
    assert again is not None
    assert again.stale_reason(moved, SETTINGS, inputs(moved)) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda layout: (layout.audio / "花子.wav").write_bytes(b"other"), "audio/花子.wav has changed"),
        (lambda layout: (layout.audio / "花子.wav").unlink(), "audio/花子.wav is gone"),
        (lambda layout: (layout.audio / "new.wav").write_bytes(b""), "audio/new.wav is new"),
        (lambda layout: (layout.parquet / "out.tar").unlink(), "parquet/out.tar is gone"),
        (lambda layout: (layout.parquet / "out.tar").write_bytes(b"parquet/OUT.tar"), "parquet/out.tar has changed"),
    ],
)
def test_a_change_is_the_reason(
    layout: Layout, record: Record, change: Callable[[Layout], object], reason: str
) -> None:
    change(layout)
    os.utime(layout.parquet)  # the clock may be too coarse to tell two writes apart; the content decides
    assert record.stale_reason(layout, SETTINGS, inputs(layout)) == reason


def test_a_changed_setting_is_the_reason(layout: Layout, record: Record) -> None:
    assert record.stale_reason(layout, {**SETTINGS, "seed": 7}, inputs(layout)) == "seed was 1986, is 7"
    assert record.stale_reason(layout, {"seed": 1986}, inputs(layout)) == "train.llm.learning_rate was 0.0001, is None"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"settings": {}}', '{"settings": {}, "inputs": {"a": {"x": 1}}, "outputs": {}}']
)
def test_a_damaged_record_is_none(layout: Layout, record: Record, text: str) -> None:
    record.write(layout, TRAIN)
    Record.path(layout, TRAIN).write_text(text)
    assert Record.read(layout, TRAIN) is None


def test_experiments_share_the_data_and_nothing_else(tmp_path: Path) -> None:
    one, two = Layout(tmp_path, "one"), Layout(tmp_path, "two")
    assert Record.path(one, PACK) == Record.path(two, PACK)
    assert Record.path(one, TRAIN) != Record.path(two, TRAIN)


def test_files_of_the_repository_are_recorded_relative_to_it(layout: Layout) -> None:
    (name,) = capture(layout, [ROOT / "requirements.lock"])
    assert name == "requirements.lock"
    assert path_of(layout, name) == ROOT / "requirements.lock"
    assert path_of(layout, "audio/花子.wav") == layout.audio / "花子.wav"


def test_a_known_state_spares_the_hashing(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    states = capture(layout, inputs(layout))
    hashed: list[Path] = []
    monkeypatch.setattr(files, "sha256", lambda path: hashed.append(path) or "")
    assert capture(layout, inputs(layout), states) == states
    assert hashed == []


def test_flatten_names_every_setting_below_a_section() -> None:
    flat = flatten(Config(), ("seed", "train.llm", "train.mode"))
    assert flat["seed"] == 1986
    assert flat["train.llm.learning_rate"] == Config().train.llm.learning_rate
    assert flat["train.mode"] == "joint"
    assert not [name for name in flat if name.startswith("train.flow")]
