"""A module and the loss of every step -> its averaged weights, in a directory that a stopped run goes on from.

The one training loop of all parts: AdamW, a warm-up and a cosine, and a moving average of the weights, which is what
counts in the end. `loss(step)` draws its batch from `generator(seed, step)`, so that a run that was stopped and goes on
ends like one that was not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from cosytune import files
from cosytune.errors import UserError
from cosytune.progress import track

WEIGHTS = "weights.pt"
_STATE = "state.pt"
_LOG = "log.jsonl"
_SAVE_EVERY_S = 60.0
_LOG_EVERY = 50
_EMA_WARMUP = 10
"""The average forgets faster at first: after n steps it looks back over at most n / 10 of them."""

Loss = Callable[[int], tuple[Tensor, Mapping[str, Any]]]
"""Step -> the scalar loss, and figures for the log (numbers, or tensors that are read when they are logged)."""
Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Plan:
    """How a part is trained. `batch`: clips or crops of a step. `ema`: what the average keeps at every step."""

    steps: int
    learning_rate: float
    batch: int = 16
    warmup: int = 200
    weight_decay: float = 0.01
    grad_clip: float = 1.0
    ema: float = 0.999
    precision: str = "fp32"
    """`bf16`: the forward pass under autocast, on a processor that has it (4 to 6 times as fast in a matrix product);
    weights, optimizer and average are fp32 either way."""
    betas: tuple[float, float] = (0.9, 0.98)
    seed: int = 1986


def fit(label: str, module: Module, loss: Loss, plan: Plan, directory: Path, device: str) -> Module:
    """Train every parameter that requires a gradient; the module comes back averaged, on `device`, in eval mode.

    Writes weights.pt (its state_dict) and log.jsonl. Where weights.pt is there already, it is loaded and that is all.
    Raises UserError when the loss is not finite.
    """
    module.to(device)
    if (directory / WEIGHTS).is_file():
        module.load_state_dict(files.read_torch(directory / WEIGHTS))
        return module.eval()
    run = _Run(module, plan, directory)
    run.resume(device)
    started_s = time.monotonic()
    with (directory / _LOG).open("a", encoding="utf-8") as log:
        for step in track(range(run.done, plan.steps), label, unit="step"):
            figures = run.step(step, loss, device)
            if (step + 1) % _LOG_EVERY == 0 or step + 1 == plan.steps:
                _note(label, step + 1, {"s": time.monotonic() - started_s, **figures}, log)
            run.save_now_and_then()
    module.load_state_dict(run.average)
    files.write_torch(directory / WEIGHTS, {key: value.cpu() for key, value in module.state_dict().items()})
    (directory / _STATE).unlink(missing_ok=True)
    return module.eval()


def generator(seed: int, step: int, device: str = "cpu") -> torch.Generator:
    """The random numbers of one step of one part."""
    return torch.Generator(device).manual_seed(seed * 1_000_003 + step)


def plain_weights(directory: Path) -> dict[str, Tensor]:
    """What `fit` left; raises UserError when the part was not made."""
    path = directory / WEIGHTS
    if not path.is_file():
        raise UserError(
            f"{path}: missing; make this part first: python -m cosytune.tinybase make --only {directory.name}"
        )
    state: dict[str, Tensor] = files.read_torch(path)
    return state


class _Run:
    def __init__(self, module: nn.Module, plan: Plan, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._module, self._plan, self._state = module, plan, directory / _STATE
        self._parameters = [one for one in module.parameters() if one.requires_grad]
        self._optimizer = torch.optim.AdamW(
            _groups(module, plan.weight_decay), lr=plan.learning_rate, betas=plan.betas, fused=True
        )
        self.average = {key: value.detach().clone() for key, value in module.state_dict().items()}
        self.done = 0
        self._saved_s = time.monotonic()

    def resume(self, device: str) -> None:
        if self._state.is_file():
            state = torch.load(self._state, map_location=device, weights_only=True)
            self._module.load_state_dict(state["module"])
            self._optimizer.load_state_dict(state["optimizer"])
            self.average, self.done = state["average"], int(state["done"])

    def save_now_and_then(self) -> None:
        if time.monotonic() - self._saved_s > _SAVE_EVERY_S:
            state = {"module": self._module.state_dict(), "optimizer": self._optimizer.state_dict()}
            files.write_torch(self._state, {**state, "average": self.average, "done": self.done})
            self._saved_s = time.monotonic()

    def step(self, step: int, loss: Loss, device: str) -> Mapping[str, Any]:
        plan = self._plan
        for group in self._optimizer.param_groups:
            group["lr"] = plan.learning_rate * _schedule(step, plan)
        self._module.train()
        is_half = plan.precision == "bf16" and (device != "cpu" or torch.cpu._is_avx512_bf16_supported())
        with torch.autocast(device.split(":")[0], torch.bfloat16) if is_half else nullcontext():
            value, figures = loss(step)
        self._optimizer.zero_grad(set_to_none=True)
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, plan.grad_clip)
        self._optimizer.step()
        self._remember(step)
        self.done = step + 1
        return {"loss": value.detach(), **figures, "norm": norm}

    @torch.no_grad()
    def _remember(self, step: int) -> None:
        weight = 1 - min(self._plan.ema, (1 + step) / (_EMA_WARMUP + step))
        current = self._module.state_dict()
        is_float = [key for key, value in current.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.average[key] for key in is_float], [current[key] for key in is_float], weight)
        for key in current.keys() - set(is_float):
            self.average[key].copy_(current[key])


def _schedule(step: int, plan: Plan) -> float:
    """Warm-up, then half a cosine down to 0."""
    if step < plan.warmup:
        return (step + 1) / plan.warmup
    return 0.5 * (1 + math.cos(math.pi * (step - plan.warmup) / max(1, plan.steps - plan.warmup)))


def _groups(module: nn.Module, weight_decay: float) -> Iterator[dict[str, Any]]:
    """Norms and biases do not decay."""
    parameters = [one for one in module.parameters() if one.requires_grad]
    yield {"params": [one for one in parameters if one.ndim > 1], "weight_decay": weight_decay}
    if others := [one for one in parameters if one.ndim <= 1]:
        yield {"params": others, "weight_decay": 0.0}


def _note(label: str, step: int, figures: Mapping[str, Any], log: Any) -> None:
    """One line of the log; raises UserError when training has diverged."""
    values = {key: round(float(value), 5) for key, value in figures.items()}
    log.write(json.dumps({"step": step, **values}) + "\n")
    log.flush()
    if not math.isfinite(values["loss"]):
        remedy = f"lower its learning rate, and delete {_STATE} of this part"
        raise UserError(f"{label}: the loss is {values['loss']} at step {step}; {remedy}")
