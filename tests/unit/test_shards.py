"""Shards: every item once, a file that is right or not believed, a fingerprint that knows what the rows depend on."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from cosytune import config as configs
from cosytune import environment
from cosytune.layout import ROOT, Layout
from cosytune.schema import Config, ShardsConfig
from cosytune.shards import cutting, plan, results, steps
from cosytune.shards.step import Item, Step, no_files

STEP = Step(
    name="embed",
    columns=pa.schema([("utt", pa.string()), ("value", pa.list_(pa.float64())), ("failure", pa.string())]),
    maker=lambda config: {"provider": config.features.provider},
    work=lambda _: (),
    cores=lambda config: config.features.threads,
    on_gpu=True,
    files=no_files,
)
ROWS = [
    {"utt": "a-1", "value": [0.1, -1e-30], "failure": None},
    {"utt": "話者", "value": None, "failure": "is silent: every sample is 0"},
    {"utt": "c", "value": [], "failure": None},
]
ITEMS = [Item(seconds, {"utt": f"u{number}"}) for number, seconds in enumerate([3.0, 1.0, 8.0, 2.0, 2.0])]


def test_every_item_is_in_one_shard_in_order_and_none_is_empty() -> None:
    draw = random.Random(0)
    for _ in range(500):
        seconds = [draw.choice([0.0, draw.uniform(0, 10), 1000.0]) for _ in range(draw.randint(1, 40))]
        nj = draw.randint(1, len(seconds))
        ranges = plan.cut(seconds, nj)
        assert len(ranges) == nj and all(ranges)
        assert [at for some in ranges for at in some] == list(range(len(seconds)))


def test_shards_are_of_about_equal_duration() -> None:
    seconds = [random.Random(1).uniform(1, 10) for _ in range(1000)]
    sums = [sum(seconds[at] for at in some) for some in plan.cut(seconds, 7)]
    assert max(sums) - min(sums) < 2 * 10


@pytest.mark.parametrize(
    ("settings", "hours", "items", "expected"),
    [
        ({}, 1.0, 1000, 1),
        ({}, 25.0, 1000, 2),
        ({"nj": 4}, 0.1, 1000, 4),
        ({"nj": 4}, 0.1, 3, 3),
        ({"launcher": "slurm"}, 25.0, 10000, 25),
        ({"launcher": "ray"}, 10000.0, 100000, 1000),
    ],
)
def test_how_many(settings: dict[str, object], hours: float, items: int, expected: int) -> None:
    config = ShardsConfig.model_validate(settings)
    seconds = [hours * 3600.001 / items] * items
    assert cutting.count(config, seconds) == expected
    assert cutting.is_wanted(config, seconds) == (expected > 1 or config.launcher != "pool")


def test_a_shard_with_any_bit_flipped_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "1-of-1.parquet"
    table = results.write(path, STEP, ROWS, "f" * 64)
    assert table.to_pylist() == ROWS
    whole = path.read_bytes()
    draw = random.Random(2)
    refused = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << draw.randrange(8))]) + whole[place + 1 :])
        found = results.read(path, STEP, "f" * 64, tmp_path)
        assert found is None or found.to_pylist() == ROWS, f"byte {place}"
        refused += found is None
    assert refused > len(whole) / 4, "what is left are statistics and names of writers, which no row depends on"
    for content in (whole[: len(whole) // 2], whole[:-1], b"", b"<html>", whole + b"x"):
        path.write_bytes(content)
        assert results.read(path, STEP, "f" * 64, tmp_path) is None


def test_a_foreign_shard_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "1-of-1.parquet"
    results.write(path, STEP, ROWS, "f" * 64)
    assert results.read(path, STEP, "f" * 64, tmp_path) is not None
    assert results.read(path, STEP, "0" * 64, tmp_path) is None
    assert results.read(path, steps.get("hear"), "f" * 64, tmp_path) is None
    assert results.read(tmp_path / "2-of-2.parquet", STEP, "f" * 64, tmp_path) is None


def test_a_fingerprint_knows_items_settings_and_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config()
    first = plan.make(STEP, config, ITEMS, 3, tmp_path)
    state = (tmp_path / "plan.parquet").stat()
    assert plan.make(STEP, config, ITEMS, 3, tmp_path) == first == plan.read(tmp_path)
    assert (tmp_path / "plan.parquet").stat().st_mtime_ns == state.st_mtime_ns, "the same plan is left alone"
    given = [value for number in (1, 2, 3) for value in plan.items(tmp_path, first, number)]
    assert given == [item.value for item in ITEMS]
    changed = [*ITEMS[:-1], Item(2.0, {"utt": "another"})]
    other = plan.make(STEP, config, changed, 3, tmp_path)
    assert other.shards[:2] == first.shards[:2] and other.shards[2] != first.shards[2]
    cpu = Config.model_validate({"features": {"provider": "cpu"}})
    assert not set(plan.make(STEP, cpu, ITEMS, 3, tmp_path).shards) & set(first.shards)
    monkeypatch.setattr(plan, "_code", lambda: "of tomorrow")
    assert not set(plan.make(STEP, config, ITEMS, 3, tmp_path).shards) & set(first.shards)


@pytest.fixture
def frozen(tmp_path: Path) -> Path:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "conf.yaml").write_text("base: random\n")
    return configs.freeze(tmp_path / "mine", "default", [], -1, 7)


def test_a_shard_that_is_not_there_is_a_usage_error(frozen: Path) -> None:
    layout = Layout(frozen.parents[2])
    assert run(frozen, "sing", "1") == (2, "error: 'sing': no such step; there are hear, clips, embed, tokenize\n")
    status, said = run(frozen, "clips", "1")
    assert status == 2 and "data/shards/clips/plan.parquet: no such plan; the stage writes it" in said
    config, _ = configs.load(frozen)
    directory = layout.shards / "hear"
    directory.mkdir(parents=True)
    plan.make(steps.get("hear"), config, ITEMS, 2, directory)
    for number in ("0", "3"):
        status, said = run(frozen, "hear", number)
        assert status == 2 and f"shard {number}: there are 1 to 2" in said
    path = directory / "plan.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    status, said = run(frozen, "hear", "1")
    assert status == 2 and "damaged, or of another version" in said


def test_a_plan_of_other_settings_is_not_carried_out(frozen: Path) -> None:
    layout = Layout(frozen.parents[2])
    directory = layout.shards / "clips"
    directory.mkdir(parents=True)
    other = Config.model_validate({"audio": {"loudness_lufs": -20.0}})
    plan.make(steps.get("clips"), other, ITEMS, 1, directory)
    status, said = run(frozen, "clips", "1")
    assert status == 1 and "planned with other settings, models or code than this machine has" in said


def run(frozen: Path, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "cosytune.shards", str(frozen), *arguments]
    done = subprocess.run(command, env=environment_of_shards(), capture_output=True, text=True)
    return done.returncode, done.stderr


def environment_of_shards() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "tools")}


def test_the_extra_for_ray_agrees_with_the_environment() -> None:
    extra, whole = environment.locked(ROOT / "requirements.cluster.lock"), environment.locked()
    assert "ray" in extra and "ray" not in whole
    assert {name: version for name, version in extra.items() if name in whole and whole[name] != version} == {}
