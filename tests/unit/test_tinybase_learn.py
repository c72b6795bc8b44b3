"""The training loop of the tiny base's parts: a run that was stopped ends like one that was not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cosytune import files
from cosytune.errors import UserError
from cosytune.tinybase import learn
from cosytune.tinybase.learn import Plan

PLAN = Plan(steps=60, learning_rate=0.05, warmup=5, ema=0.9)


class StoppedError(Exception):
    """What a killed process feels like from within."""


def _lesson(module: nn.Linear, until: int = 10**9) -> Callable[[int], tuple[Tensor, dict[str, Tensor]]]:
    """Learn to add, from numbers that the step draws; die at step `until`."""

    def loss(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        if step == until:
            raise StoppedError
        numbers = torch.randn(16, 4, generator=learn.generator(7, step))
        error = ((module(numbers)[:, 0] - numbers.sum(dim=1)) ** 2).mean()
        return error, {"error": error.detach()}

    return loss


def _fresh() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 1)


def test_it_learns_and_the_weights_are_the_average(tmp_path: Path) -> None:
    module = _fresh()
    made = learn.fit("sum", module, _lesson(module), PLAN, tmp_path, "cpu")
    assert made is module and not module.training
    assert torch.allclose(module.weight, torch.ones(1, 4), atol=0.2)
    written = files.read_torch(tmp_path / learn.WEIGHTS)
    assert torch.equal(written["weight"], module.weight)


def test_a_stopped_run_goes_on_as_if_nothing_had_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _fresh()
    learn.fit("sum", whole, _lesson(whole), PLAN, tmp_path / "whole", "cpu")
    monkeypatch.setattr(learn, "_SAVE_EVERY_S", 0.0)
    stopped = _fresh()
    with pytest.raises(StoppedError):
        learn.fit("sum", stopped, _lesson(stopped, until=23), PLAN, tmp_path / "stopped", "cpu")
    again = _fresh()
    learn.fit("sum", again, _lesson(again), PLAN, tmp_path / "stopped", "cpu")
    assert torch.equal(again.weight, whole.weight)
    assert not (tmp_path / "stopped" / "state.pt").exists()


def test_what_is_made_is_not_made_again(tmp_path: Path) -> None:
    module = _fresh()
    learn.fit("sum", module, _lesson(module), PLAN, tmp_path, "cpu")
    other = nn.Linear(4, 1)
    learn.fit("sum", other, _lesson(other, until=0), PLAN, tmp_path, "cpu")
    assert torch.equal(other.weight, module.weight)


def test_a_loss_that_is_no_number_stops_the_part(tmp_path: Path) -> None:
    module = _fresh()

    def loss(_: int) -> tuple[Tensor, dict[str, Tensor]]:
        return module(torch.full((1, 4), float("nan"))).sum(), {}

    with pytest.raises(UserError, match=r"the loss is nan at step 50.*lower its learning rate"):
        learn.fit("sum", module, loss, PLAN, tmp_path, "cpu")
    assert not (tmp_path / learn.WEIGHTS).exists()


def test_a_part_that_was_not_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing; make this part first.*--only vocoder"):
        learn.plain_weights(tmp_path / "vocoder")
