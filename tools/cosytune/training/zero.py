"""A model with adapters and its settings -> the same updates, the optimizer shared out among ranks: DeepSpeed's ZeRO 2.

Each rank keeps the optimizer's state, and steps, for its own part of the adapters alone. The gradients of an update are
added up on each rank and exchanged once, which leaves a rank those of its part. So ranks may have unequal numbers of
micro-batches, and trouble of one is known to all before anything is exchanged, as without DeepSpeed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from cosytune.errors import UserError
from cosytune.schema import ModuleTrainConfig
from cosytune.training import distributed, machine
from cosytune.training.batches import Batch
from cosytune.training.distributed import Ranks
from cosytune.training.hardware import Setup
from cosytune.training.losses import Loss
from cosytune.training.machine import Objective, Outcome, Plain, ShouldStop, memory_trouble

if TYPE_CHECKING:
    from peft import PeftModel

_BUCKET = 2**25
"""Gradients exchanged at once: 134 MB, more than adapters of rank 16 have."""


@dataclass
class Zero(Plain):
    """`optimizer`: DeepSpeed has put one vector in the parameters' place, this rank's part of all of them."""

    engine: Any

    def update(self, micro_batches: Sequence[Batch], should_stop: ShouldStop) -> Outcome:
        self.model.train()
        targets = self.ranks.sum(self._count(sum(batch.targets for batch in micro_batches)))
        figures = torch.zeros(3, dtype=torch.float64, device=self.device)  # total, right, and whether they are counted
        if self.scaler is not None:
            self.engine.optimizer.override_loss_scale(self.scaler.get_scale())
        with ExitStack() as stack:
            stack.enter_context(self.engine.coalesce_grad_reduction())  # exchanges the gradients on its way out
            stack.push(self._forget_gradients)
            self._accumulate(micro_batches, targets, figures, should_stop)
            self.ranks.sum(figures)
            exchange = stack.pop_all()
        is_finite = bool(torch.isfinite(figures[0]))
        is_learned = self._learn(exchange, is_finite)
        self.scheduler.step()
        norm = float(self.engine.get_global_grad_norm()) if is_finite else math.nan
        is_sound = is_finite and (is_learned or self.scaler is not None)  # an overflow of the scaling is none of ours
        correct = torch.where(figures[2] > 0, figures[1], -1.0)
        numbers = (figures[0], targets, correct, torch.tensor(norm), torch.tensor(is_sound))
        return Outcome(torch.stack([number.to(self.device, torch.float64) for number in numbers]))

    def _learn(self, exchange: ExitStack, is_finite: bool) -> bool:
        """Exchange the gradients and step, on all ranks or on none; whether the gradient was finite."""

        def work() -> None:
            try:
                self._prepare_gradients(is_finite)
                exchange.close()
                if is_finite:
                    self.engine.step()  # all by itself skips a gradient that is not finite
            except (RuntimeError, MemoryError) as failure:
                memory_trouble(failure)
                raise UserError(
                    f"rank {self.ranks.rank}: out of memory while the ranks exchanged gradients; set "
                    "train.distributed=ddp or a smaller max_tokens_per_batch, or use fewer processes a GPU"
                ) from None

        distributed.together(work)
        is_learned = is_finite and bool(self.engine.was_step_applied())
        if self.scaler is not None:
            _rescale(self.scaler, is_learned)
        return is_learned

    def _prepare_gradients(self, is_finite: bool) -> None:
        """All ranks exchange the same ones: none, or those of all parameters."""
        if not is_finite:
            self.engine.optimizer.zero_grad()
            return
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def _forget_gradients(self, failure: type[BaseException] | None, *_: object) -> None:
        """A way out by an exception exchanges nothing: other ranks may be gone."""
        if failure is not None:
            self.engine.optimizer.zero_grad()

    def _forward(self, batch: Batch) -> Loss:
        if not self.model.training:
            return super()._forward(batch)
        loss: Loss = self.engine(batch)
        return loss

    def _backward(self, loss: torch.Tensor) -> None:
        self.engine.backward(loss, scale_wrt_gas=False)

    def _optimizer_state(self) -> dict[str, Any]:
        """As one process without DeepSpeed has it, so that any number of them can go on from it, with or without."""
        part = self._part
        state: dict[str, torch.Tensor] = self.optimizer.state.get(part, {})
        whole = {name: self.ranks.concatenate(value).cpu() if value.dim() else value for name, value in state.items()}
        numbered = {
            number: {
                name: value[start : start + parameter.numel()].view_as(parameter).clone()
                if value.dim()
                else value.clone()
                for name, value in whole.items()
            }
            for number, (parameter, start) in enumerate(zip(self.parameters, self._starts, strict=True))
        }
        group = {**self.optimizer.param_groups[0], "params": list(range(len(self.parameters)))}
        return {"state": numbered if whole else {}, "param_groups": [group]}

    def _take_optimizer_state(self, state: dict[str, Any]) -> None:
        """The adapters are those of the checkpoint already."""
        self.engine.optimizer.refresh_fp32_params()
        first, size = self.ranks.rank * self._part.numel(), self._part.numel()
        part: dict[str, torch.Tensor] = {}
        for number, (parameter, start) in enumerate(zip(self.parameters, self._starts, strict=True)):
            for name, value in state["state"].get(number, {}).items():
                if value.dim():
                    if name not in part:
                        part[name] = torch.zeros(size * self.ranks.size)
                    part[name][start : start + parameter.numel()] = value.flatten()
                else:
                    part[name] = value
        mine = {name: value[first : first + size].clone() if value.dim() else value for name, value in part.items()}
        group = {**state["param_groups"][0], "params": [0]}
        self.optimizer.load_state_dict({"state": {0: mine} if mine else {}, "param_groups": [group]})

    @property
    def _part(self) -> torch.Tensor:
        """The part of all parameters that this rank steps, a vector as long as every other rank's."""
        part: torch.Tensor = self.optimizer.param_groups[0]["params"][0]
        return part

    @property
    def _starts(self) -> list[int]:
        """Where in the vector of all parts each parameter begins."""
        starts: list[int] = self.engine.optimizer.round_robin_bit16_offsets[0]
        return starts


class _Called(nn.Module):
    """The model as DeepSpeed calls it: a micro-batch -> its loss."""

    def __init__(self, model: PeftModel, forward: Callable[[Batch], Loss]) -> None:
        super().__init__()
        self.model = model
        self._forward_pass = forward

    def forward(self, batch: Batch) -> Loss:
        return self._forward_pass(batch)


def assemble(
    model: PeftModel,
    objective: Objective,
    settings: ModuleTrainConfig,
    setup: Setup,
    total_updates: int,
    device: torch.device,
    ranks: Ranks,
) -> Plain:
    """Put a module on its device, with an optimizer that is shared out. One process alone trains without DeepSpeed.

    Raises UserError for an optimizer whose state cannot be cut into parts.
    """
    if ranks.size == 1:
        print("train.distributed=deepspeed: one process has nothing to share out, and trains without DeepSpeed")
        return machine.assemble(model, objective, settings, setup, total_updates, device, ranks)
    if setup.optim == "adamw_8bit":
        raise UserError(
            "optim: adamw_8bit quantizes its state in blocks, which DeepSpeed cannot share out; set "
            "optim=adamw_torch under train.llm and train.flow, or train.distributed=ddp"
        )
    plain = machine.assemble(model, objective, settings, setup, total_updates, device, ranks)
    parts = {name: getattr(plain, name) for name, part in Plain.__dataclass_fields__.items() if part.init}
    return Zero(**parts, engine=_engine(plain))


def _engine(plain: Plain) -> Any:
    import deepspeed  # 5 s
    from deepspeed.accelerator import get_accelerator, set_accelerator
    from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator

    if plain.device.type == "cpu" and get_accelerator().device_name() != "cpu":
        set_accelerator(CPU_Accelerator())  # there is a GPU, but not for this training
    # An all-reduce in shared memory, for CPUs alone; DeepSpeed would compile it at the first start.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    engine, *_ = deepspeed.initialize(
        model=_Called(plain.model, plain._forward),
        optimizer=plain.optimizer,
        model_parameters=plain.parameters,
        config=_config(plain),
    )
    return engine


def _config(plain: Plain) -> dict[str, Any]:
    """Adapters are fp32, and autocast is ours, so DeepSpeed knows of no other precision."""
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,  # one exchange an update, of however many micro-batches
        "gradient_allreduce_op": "sum",  # losses are divided by the targets of all ranks
        "gradient_clipping": plain.settings.max_grad_norm,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {
            "stage": 2,
            "overlap_comm": False,
            "contiguous_gradients": True,
            "reduce_bucket_size": min(_BUCKET, sum(parameter.numel() for parameter in plain.parameters)),
            "round_robin_gradients": False,
        },
        "timers": {"throughput": {"enabled": False}},
    }


def _rescale(scaler: torch.amp.grad_scaler.GradScaler, is_learned: bool) -> None:
    """What `GradScaler.update` does after a step, for one that DeepSpeed has taken or skipped."""
    state = scaler.state_dict()
    if is_learned:
        state["_growth_tracker"] += 1
    else:
        state |= {"scale": state["scale"] * state["backoff_factor"], "_growth_tracker": 0}
    if state["_growth_tracker"] == state["growth_interval"]:
        state |= {"scale": state["scale"] * state["growth_factor"], "_growth_tracker": 0}
    scaler.load_state_dict(state)
