"""A model with adapters and its settings -> precision, optimizer and schedule: what turns micro-batches into an update.

On a GPU nothing in an update waits for it: losses, gradient norm and whether all of it was finite stay on the device,
where a fused optimizer reads them, until `Outcome.read` fetches them; the trainer does so one update later.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from cosytune import files
from cosytune.schema import ModuleTrainConfig
from cosytune.training import adapters, optimizers, shortage
from cosytune.training.batches import Batch
from cosytune.training.distributed import Ranks
from cosytune.training.hardware import Setup
from cosytune.training.losses import Loss

if TYPE_CHECKING:
    from peft import PeftModel

STATE = "state.pt"
_STOP, _NO_ROOM = 1, 2
Objective = Callable[[nn.Module, Any], Loss]
ShouldStop = Callable[[], bool]


class OutOfMemory(Exception):  # noqa: N818 - answered by smaller micro-batches
    """There was no room for a micro-batch, on this rank or on another. Nothing was learned."""


class Interrupted(Exception):  # noqa: N818 - what was asked for
    """A rank was told to stop on its way. Nothing was learned."""


@dataclass(frozen=True)
class Values:
    """Of one update or one evaluation. total: the sum of the losses; correct: right tokens, None for the flow.

    is_sound: all of it was finite. An overflow that only the loss scaling caused counts as sound: it is scaled less.
    """

    total: float
    targets: int
    correct: int | None
    gradient_norm: float = math.nan
    is_sound: bool = True


@dataclass(frozen=True)
class Outcome:
    """An update whose figures may still be on their way from the GPU.

    figures: float64 [5] on the device: total, targets, correct (-1: none), gradient norm, 1 where it was sound.
    """

    figures: torch.Tensor

    def read(self) -> Values:
        total, targets, correct, norm, sound = self.figures.tolist()
        return Values(total, round(targets), None if correct < 0 else round(correct), norm, bool(sound))


class Machine(Protocol):
    """What the loop needs; `Plain` is one, ZeRO another."""

    device: torch.device
    ranks: Ranks
    is_asynchronous: bool

    def update(self, micro_batches: Sequence[Batch], should_stop: ShouldStop) -> Outcome:
        """One optimizer step, none where it is not sound; the schedule goes on. Raises OutOfMemory, Interrupted."""

    def evaluate(self, micro_batches: Sequence[Callable[[], Batch]], should_stop: ShouldStop) -> Values:
        """Losses over this rank's and all others' micro-batches, nothing dropped out, nothing learned."""

    @property
    def learning_rate(self) -> float: ...

    def contents(self, position: Mapping[str, Any]) -> dict[str, bytes]:
        """The files of a checkpoint: every rank has to ask. The same bytes for the same state."""

    def restore(self, checkpoint_dir: Path) -> dict[str, Any]:
        """Take a checkpoint's state on; returns its position."""


@dataclass
class Plain:
    """PyTorch alone: autocast, loss scaling for fp16, one exchange of gradients an update between ranks.

    The gradients are exchanged by hand and not by DistributedDataParallel: ranks have unequal numbers of micro-batches,
    and one that ran out of memory or was told to stop says so before anything is exchanged, so that nobody hangs.
    """

    model: PeftModel
    objective: Objective
    settings: ModuleTrainConfig
    setup: Setup
    device: torch.device
    ranks: Ranks
    optimizer: torch.optim.Optimizer
    scheduler: Any
    scaler: torch.amp.grad_scaler.GradScaler | None
    parameters: list[nn.Parameter]
    is_asynchronous: bool = field(init=False)

    def __post_init__(self) -> None:
        # Other ranks' troubles have to be known before the next update, an optimizer that is not fused has to be told.
        self.is_asynchronous = self.device.type == "cuda" and self.ranks.size == 1 and self._is_fused

    def update(self, micro_batches: Sequence[Batch], should_stop: ShouldStop) -> Outcome:
        self.model.train()
        targets = self.ranks.sum(self._count(sum(batch.targets for batch in micro_batches)))
        figures = torch.zeros(3, dtype=torch.float64, device=self.device)  # total, right, and whether they are counted
        self._accumulate(micro_batches, targets, figures, should_stop)
        self.ranks.sum_gradients(self.parameters)
        self.ranks.sum(figures)
        norm = self._clipped_norm()
        is_sound = torch.isfinite(figures[0])
        if self.scaler is None:  # it skips overflows of its own making itself, and scales less from then on
            is_sound = is_sound & torch.isfinite(norm)
        self._step(is_sound)
        self.optimizer.zero_grad()
        self.scheduler.step()
        correct = torch.where(figures[2] > 0, figures[1], -1.0)
        return Outcome(torch.stack([figures[0], targets.double(), correct, norm.double(), is_sound.double()]))

    def evaluate(self, micro_batches: Sequence[Callable[[], Batch]], should_stop: ShouldStop) -> Values:
        self.model.eval()
        figures = torch.zeros(4, dtype=torch.float64, device=self.device)
        trouble = 0
        with torch.no_grad():
            for number in range(self.ranks.most(len(micro_batches), self.device)):
                self._agree(trouble or int(should_stop()))
                try:
                    if number < len(micro_batches):
                        batch = micro_batches[number]()
                        _add(figures, self._forward(batch))
                        figures[3] += batch.targets
                except (RuntimeError, MemoryError) as failure:
                    trouble = memory_trouble(failure)
        self._agree(trouble)
        self.ranks.wait()
        total, correct, counted, targets = self.ranks.sum(figures).tolist()
        return Values(total, round(targets), round(correct) if counted else None)

    @property
    def learning_rate(self) -> float:
        return float(self.scheduler.get_last_lr()[0])

    def contents(self, position: Mapping[str, Any]) -> dict[str, bytes]:
        state = {
            "optimizer": self._optimizer_state(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
            "rng": torch.get_rng_state(),
            "position": dict(position),
        }
        stream = io.BytesIO()
        torch.save(state, stream)
        return {**adapters.contents(self.model), STATE: stream.getvalue()}

    def restore(self, checkpoint_dir: Path) -> dict[str, Any]:
        adapters.restore(self.model, checkpoint_dir)
        state = files.read_torch(checkpoint_dir / STATE)
        for group in state["optimizer"]["param_groups"]:
            if "fused" in group:  # which kernel steps belongs to this machine, not to the one that wrote it
                group["fused"] = self._is_fused
        self._take_optimizer_state(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if self.scaler is not None and state["scaler"] is not None:
            self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"])
        found: dict[str, Any] = state["position"]
        return found

    @property
    def _is_fused(self) -> bool:
        return bool(self.optimizer.defaults.get("fused"))

    def _optimizer_state(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def _take_optimizer_state(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state)

    def _accumulate(
        self, micro_batches: Sequence[Batch], targets: torch.Tensor, figures: torch.Tensor, should_stop: ShouldStop
    ) -> None:
        """Add up gradients and figures of this rank's micro-batches. Raises OutOfMemory, Interrupted: on every rank."""
        trouble = 0
        try:
            for batch in micro_batches:
                if should_stop():
                    trouble = _STOP
                    break
                loss = self._forward(batch)
                self._backward(loss.total * self.settings.loss_weight / targets)
                _add(figures, loss)
        except (RuntimeError, MemoryError) as failure:
            trouble = memory_trouble(failure)
        self._agree(trouble)

    def _forward(self, batch: Batch) -> Loss:
        with autocast(self.device, self.setup.precision):
            return self.objective(self.model.get_base_model(), batch.to(self.device))

    def _backward(self, loss: torch.Tensor) -> None:
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def _clipped_norm(self) -> torch.Tensor:
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        norm: torch.Tensor = nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)
        return norm

    def _step(self, is_sound: torch.Tensor) -> None:
        """Step unless it is not sound; a fused optimizer looks by itself, and nobody waits for the GPU."""
        if self.scaler is not None:
            self.scaler.step(self.optimizer)  # it knows its own overflows
            self.scaler.update()
        elif self.device.type == "cuda" and self._is_fused:
            # As torch's GradScaler does it: the kernel leaves weights and state alone where found_inf is 1.
            self.optimizer.found_inf = (~is_sound).float()  # type: ignore[attr-defined]
            self.optimizer.step()
            del self.optimizer.found_inf  # type: ignore[attr-defined]
        elif bool(is_sound):
            self.optimizer.step()

    def _agree(self, trouble: int) -> None:
        """What happened to one rank happened to all."""
        worst = self.ranks.most(trouble, self.device)
        if worst:
            self.optimizer.zero_grad()
            raise OutOfMemory if worst == _NO_ROOM else Interrupted

    def _count(self, number: int) -> torch.Tensor:
        return torch.tensor(float(number), device=self.device)


def assemble(
    model: PeftModel,
    objective: Objective,
    settings: ModuleTrainConfig,
    setup: Setup,
    total_updates: int,
    device: torch.device,
    ranks: Ranks,
) -> Plain:
    """Put a module on its device, with optimizer and schedule."""
    model.to(device)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = optimizers.make(parameters, settings, setup.optim)
    scaler = torch.amp.grad_scaler.GradScaler(device.type) if setup.precision == "fp16" else None
    if scaler is not None:
        scaler.scale(torch.zeros((), device=device))  # it begins with its first use; a rank may have no clip at first
    scheduler = optimizers.schedule(optimizer, settings, total_updates)
    return Plain(model, objective, settings, setup, device, ranks, optimizer, scheduler, scaler, parameters)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """What a forward pass runs in; fp32: as it is."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")


def position(checkpoint_dir: Path) -> dict[str, Any]:
    """How far the run of a checkpoint was, without taking its state on."""
    found: dict[str, Any] = files.read_torch(checkpoint_dir / STATE)["position"]
    return found


def memory_trouble(failure: Exception) -> int:
    """What `_agree` calls a lack of memory; any other failure is raised again."""
    if shortage.is_one(failure):
        return _NO_ROOM
    raise failure


def _add(figures: torch.Tensor, loss: Loss) -> None:
    figures[0] += loss.total.detach()
    if loss.correct is not None:
        figures[1] += loss.correct
        figures[2] += 1
