"""One of two processes that train a small module, with DeepSpeed and without: python tests/zero_rank.py DIRECTORY

Each writes rank-<rank>.json: what came of every update, and what of the optimizer it holds. Between the updates that
go well are those that do not: a loss that is not a number, a rank without memory, a rank that was told to stop.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cosytune.errors import run_main
from cosytune.schema import LlmTrainConfig, LoraConfig
from cosytune.training import adapters, distributed, machine, zero
from cosytune.training.hardware import Setup
from cosytune.training.losses import Loss
from cosytune.training.machine import Interrupted, Machine, OutOfMemory

CPU = torch.device("cpu")
SETTINGS = LlmTrainConfig(learning_rate=0.03, max_grad_norm=0.5, weight_decay=0.01)
UPDATES = 12


@dataclass(frozen=True)
class Clips:
    """A micro-batch of vectors; `ailment`: what happens on the way."""

    values: torch.Tensor
    ailment: str = ""

    @property
    def targets(self) -> int:
        return len(self.values)

    def to(self, device: torch.device) -> Clips:
        return Clips(self.values.to(device), self.ailment)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = nn.Linear(5, 7), nn.Linear(7, 3)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.second(torch.tanh(self.first(values)))
        return out


def objective(net: nn.Module, clips: Clips) -> Loss:
    if clips.ailment == "memory":
        raise torch.OutOfMemoryError("CUDA out of memory")
    errors = (net(clips.values) - clips.values[:, :3] * 3).float().square().sum(1)
    return Loss(errors.sum() * (torch.nan if clips.ailment == "nan" else 1), (errors < 1).sum())


def micro_batches(update: int, rank: int) -> list[Clips]:
    """Two, one or none of a rank; both ranks' are the same clips over and over, in other company."""
    torch.manual_seed(100 * update + rank)
    counts = [[3, 2], [4]] if update % 3 else [[2, 1, 5], []]
    return [Clips(torch.randn(count, 5)) for count in counts[(update + rank) % 2]]


def ailing(update: int, rank: int, ailment: str, on_rank: int) -> list[Clips]:
    """One rank's last micro-batch ails, after gradients of others are there."""
    sound = [Clips(torch.randn(2, 5)), Clips(torch.randn(2, 5))]
    return [*sound, Clips(torch.ones(2, 5), ailment)] if rank == on_rank else sound


def attempt(tools: Machine, batches: list[Clips], should_stop: Callable[[], bool] = lambda: False) -> Any:
    try:
        values = tools.update(batches, should_stop)  # type: ignore[arg-type]
        outcome = values.read()
        return [outcome.total, outcome.targets, outcome.correct, outcome.gradient_norm, outcome.is_sound]
    except (OutOfMemory, Interrupted) as failure:
        return type(failure).__name__


def train(tools: Machine, first: int, last: int) -> list[Any]:
    """The updates, and the failed ones between."""
    rank, found = tools.ranks.rank, []
    for update in range(first, last):
        if update == 2:
            found.append(attempt(tools, ailing(update, rank, "nan", on_rank=1)))
        if update == 4:
            found.append(attempt(tools, ailing(update, rank, "memory", on_rank=0)))
        if update == 5:
            found.append(attempt(tools, ailing(update, rank, "", on_rank=0), lambda: rank == 1))
        found.append(attempt(tools, micro_batches(update, rank)))
    found.append(tools.evaluate([lambda: Clips(torch.ones(2, 5))] * (rank + 1), lambda: False).total)  # type: ignore[list-item]
    return found


def save(tools: Machine, directory: Path) -> dict[str, bytes]:
    contents = tools.contents({"update": 1})
    if tools.ranks.is_first:
        directory.mkdir()
        for name, data in contents.items():
            (directory / name).write_bytes(data)
    tools.ranks.wait()
    return contents


def main() -> int:
    directory = Path(sys.argv[1])
    torch.set_num_threads(1)
    ranks = distributed.join(CPU)
    report: dict[str, Any] = {}

    def assembled(module: Any, precision: Any = "fp32") -> Any:
        lora = LoraConfig(r=2, lora_dropout=0.0, targets=["all"])
        model = adapters.attach(Net(), lora, {"all": "first|second"}, seed=3)
        return module.assemble(model, objective, SETTINGS, Setup(precision=precision), UPDATES, CPU, ranks)

    for precision in ("fp32", "bf16", "fp16"):
        plain, shared = assembled(machine, precision), assembled(zero, precision)
        report[precision] = {"plain": train(plain, 0, UPDATES), "zero": train(shared, 0, UPDATES)}
        report[precision]["scales"] = [tools.scaler.get_scale() for tools in (plain, shared) if tools.scaler]
        if precision == "fp32":
            report["held"] = sum(value.numel() for value in shared.optimizer.state[shared._part].values())
            report["trained"] = sum(parameter.numel() for parameter in shared.parameters)

    whole, halved, without = assembled(zero), assembled(zero), assembled(machine)
    train(whole, 0, 6)
    save(whole, directory / "half-way")
    tails = [train(whole, 6, UPDATES)]
    for tools in (halved, without):
        tools.restore(directory / "half-way")
        tails.append(train(tools, 6, UPDATES))
    report["tails"] = tails
    report["same bytes"] = save(whole, directory / "end") == save(halved, directory / "end again")
    (directory / f"rank-{ranks.rank}.json").write_text(json.dumps(report))
    return 0


if __name__ == "__main__":
    run_main(main)
