"""A model with adapters and its settings -> Accelerate, optimizer and schedule: what turns a batch into an update."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from cosytune import files
from cosytune.errors import UserError
from cosytune.schema import ModuleTrainConfig
from cosytune.training import adapters
from cosytune.training.batches import Batch

if TYPE_CHECKING:
    from peft import PeftModel

STATE = "state.pt"


class Objective(nn.Module):
    """Adapters and loss as one module, so that whatever wraps it (autocast, later DDP) sees every forward pass."""

    def __init__(self, model: PeftModel, loss: Callable[[nn.Module, Any], torch.Tensor]) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, batch: Batch) -> torch.Tensor:
        return self._loss(self.model.get_base_model(), batch).total


@dataclass(frozen=True)
class Outcome:
    """Of one update: sum of the losses, target values, norm of the mean's gradient, whether all of it was finite."""

    total: float
    targets: int
    gradient_norm: float
    is_sound: bool


@dataclass(frozen=True)
class Machine:
    """What one module is trained with."""

    accelerator: Any
    objective: nn.Module
    model: PeftModel
    optimizer: Any
    scheduler: Any
    max_grad_norm: float

    def update(self, micro_batches: Sequence[Batch]) -> Outcome:
        """One optimizer step; the adapters stay as they are when the outcome is not sound, the schedule goes on."""
        self.objective.train()
        total = 0.0
        targets = sum(batch.targets for batch in micro_batches)
        for number, batch in enumerate(micro_batches, start=1):
            is_last = number == len(micro_batches)
            with contextlib.nullcontext() if is_last else self.accelerator.no_sync(self.objective):
                loss = self.objective(batch.to(self.accelerator.device))
                self.accelerator.backward(loss / targets)
            total += loss.item()
        norm = float(self.accelerator.clip_grad_norm_(self._trainable(), self.max_grad_norm))
        has_scaler = self.accelerator.scaler is not None  # it skips overflows itself, and scales less from then on
        is_sound = math.isfinite(total) and (math.isfinite(norm) or has_scaler)
        if is_sound or has_scaler:
            self.optimizer.step()
        self.optimizer.zero_grad()
        self.scheduler.step()
        return Outcome(total, targets, norm, is_sound)

    def loss(self, micro_batches: Sequence[Batch]) -> float:
        """The mean loss over all targets, nothing dropped out, nothing learnt."""
        self.objective.eval()
        with torch.no_grad():
            total = sum(float(self.objective(batch.to(self.accelerator.device))) for batch in micro_batches)
        return total / sum(batch.targets for batch in micro_batches)

    @property
    def learning_rate(self) -> float:
        return float(self.scheduler.get_last_lr()[0])

    def contents(self, position: Mapping[str, Any]) -> dict[str, bytes]:
        """The files of a checkpoint. The same bytes for the same state."""
        scaler = self.accelerator.scaler
        state = {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else None,
            "rng": torch.get_rng_state(),
            "position": dict(position),
        }
        stream = io.BytesIO()
        torch.save(state, stream)
        return {**adapters.contents(self.model), STATE: stream.getvalue()}

    def restore(self, checkpoint_dir: Path) -> dict[str, Any]:
        """Take a checkpoint's state on; returns its position."""
        adapters.restore(self.model, checkpoint_dir)
        state = files.read_torch(checkpoint_dir / STATE)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"])
        position: dict[str, Any] = state["position"]
        return position

    def _trainable(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.objective.parameters() if parameter.requires_grad]


def position(checkpoint_dir: Path) -> dict[str, Any]:
    """How far the run of a checkpoint was, without taking its state on."""
    found: dict[str, Any] = files.read_torch(checkpoint_dir / STATE)["position"]
    return found


def assemble(
    model: PeftModel,
    loss: Callable[[nn.Module, Any], torch.Tensor],
    settings: ModuleTrainConfig,
    total_updates: int,
    device: str,
    key: str,
) -> Machine:
    """Put a module on its device. `key`: its section of the config, for error messages."""
    from transformers.optimization import get_scheduler

    accelerator = _accelerator(device, _precision(settings), key)
    objective = Objective(model, loss)
    trainable = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        trainable,
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=accelerator.device.type == "cuda",
    )
    scheduler = get_scheduler(
        settings.lr_scheduler_type,
        optimizer,
        num_warmup_steps=int(settings.warmup_ratio * total_updates),
        num_training_steps=total_updates,
    )
    prepared, prepared_optimizer = accelerator.prepare(objective, optimizer)
    return Machine(accelerator, prepared, model, prepared_optimizer, scheduler, settings.max_grad_norm)


def _precision(settings: ModuleTrainConfig) -> str:
    if settings.bf16 is True or settings.fp16 is True:
        return "bf16" if settings.bf16 is True else "fp16"
    return "fp32" if settings.bf16 is False and settings.fp16 is False else "auto"


def _accelerator(device: str, precision: str, key: str) -> Any:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise UserError("device = cuda: torch sees no GPU; see python -m cosytune.doctor, or set device=auto")
    on_gpu = has_gpu and device != "cpu"
    if precision == "fp16" and not on_gpu:
        raise UserError(f"{key}.fp16 = true: only a GPU can; set {key}.fp16=auto")
    if precision == "auto":
        # T4 and V100 have no bf16; in software it is slower than fp32
        precision = ("bf16" if torch.cuda.get_device_capability()[0] >= 8 else "fp16") if on_gpu else "fp32"
    AcceleratorState._reset_state(reset_partial_state=True)  # else the first module's precision would hold for both
    accelerator = Accelerator(cpu=not on_gpu, mixed_precision="no" if precision == "fp32" else precision)
    if accelerator.num_processes > 1:
        raise UserError(
            f"{accelerator.num_processes} processes: training uses one for now; start it without a launcher"
        )
    return accelerator
