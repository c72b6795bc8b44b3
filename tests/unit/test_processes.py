"""Which modules share a GPU: where both have room for good batches beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cosytune import config as configs
from cosytune.errors import UserError
from cosytune.schema import Config
from cosytune.training import preflight, processes
from cosytune.training.hardware import Card


@pytest.fixture
def real_sizes(tmp_path: Path) -> Path:
    """A model directory whose files are as large as the published ones, and empty."""
    for name, size in {"llm.pt": 2_023_316_821, "flow.pt": 450_575_567}.items():
        with (tmp_path / name).open("wb") as stream:
            stream.truncate(size)
    return tmp_path


def config(model_dir: Path, **train: Any) -> Config:
    return configs.parse({"model_dir": str(model_dir), "train": train}, "test")


@pytest.mark.parametrize(
    ("memory_gb", "capability", "share", "has_room"),
    [
        (80, (9, 0), 0.5, True),
        (40, (8, 0), 0.5, True),
        (24, (8, 9), 0.45, False),
        (12, (8, 6), 0.5, False),
        (80, (9, 0), 0.05, False),
    ],
)
def test_where_both_have_room(
    memory_gb: float, capability: tuple[int, int], share: float, has_room: bool, real_sizes: Path
) -> None:
    card = Card("a card", memory_gb, capability)
    assert processes._have_room(config(real_sizes), card, share) == has_room


def test_small_batches_that_were_asked_for_have_room_on_a_smaller_card(real_sizes: Path) -> None:
    small: dict[str, Any] = {"max_tokens_per_batch": 1000, "gradient_checkpointing": True}
    wanted = config(real_sizes, llm=small, flow=small)
    assert processes._have_room(wanted, Card("a card", 12, (8, 6)), 0.5)


def test_on_a_cpu_one_after_the_other_unless_asked_for(real_sizes: Path) -> None:
    for train, share in (({}, 1.0), ({"side_by_side": True}, 0.5), ({"side_by_side": True, "mode": "llm_only"}, 1.0)):
        settings = configs.parse({"model_dir": str(real_sizes), "device": "cpu", "train": train}, "test")
        assert processes._share(settings) == share


def test_blocks_are_not_compiled_by_several_processes(real_sizes: Path) -> None:
    settings: dict[str, Any] = {"torch_compile": True}
    alone = config(real_sizes, num_processes=1, llm=settings)
    preflight._compiling(alone, "llm")
    with pytest.raises(UserError, match=r"train\.llm\.torch_compile = true: not with several processes"):
        preflight._compiling(config(real_sizes, num_processes=2, llm=settings), "llm")
