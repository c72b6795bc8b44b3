"""Stage 4 with `train.engine: upstream`: parquet -> exp/<name>/{llm,flow}/, full checkpoints by upstream's train.py.

One module after the other, each a full fine-tune of the base by torch_ddp or DeepSpeed; stages 5 to 7 go on from its
checkpoints as from those of adapters.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cosytune import base, families
from cosytune.errors import UserError
from cosytune.schema import Config
from cosytune.stages.runner import Context, need
from cosytune.training.upstream import run
from cosytune.training.upstream.job import Job


def train(context: Context) -> None:
    """Train the modules of train.mode, in their directories, which are this run's own (`runs.settle`).

    Raises SystemExit with signals.EXIT_STATUS when it was stopped, UserError when it failed or cannot be shipped.
    """
    config = context.config
    check(config)
    try:
        for name in config.train.modules:
            run.train(_job(context, name))
    except run.Stopped as stopped:
        print(f"error: {stopped}", file=sys.stderr)
        sys.exit(stopped.exit_status)


def check(config: Config) -> None:
    """Raise UserError for settings that this engine, or this machine, cannot do."""
    if not config.export.merged:
        raise UserError(
            "export.merged: false ships adapters, and train.engine: upstream makes none; leave export.merged at true"
        )
    if config.train.distributed == "deepspeed":
        raise UserError(
            "train.distributed = deepspeed: that is for our own trainer; with train.engine=upstream set "
            "train.upstream.train_engine=deepspeed",
            exit_status=2,
        )
    _processes(config, _gpus(config))


def _processes(config: Config, gpus: int) -> int:
    wanted = config.train.num_processes
    processes = max(1, gpus) if wanted == "auto" else wanted
    if 0 < gpus < processes:
        raise UserError(
            f"train.num_processes: {processes}, and there are {gpus} GPUs; one process a GPU", exit_status=2
        )
    return processes


def _job(context: Context, name: str) -> Job:
    config = context.config
    gpus = _gpus(config)
    return Job(
        name=name,
        directory=context.layout.module(name),
        model_dir=base.locate(config),
        family=families.get(config.model),
        settings=config.train.upstream,
        data=_data(context),
        seed=config.seed,
        processes=_processes(config, gpus),
        on_gpu=gpus > 0,
        low_precision=_low_precision(config, gpus),
        save_total_limit=getattr(config.train, name).save_total_limit,
    )


def _gpus(config: Config) -> int:
    """How many there are to use."""
    if config.device == "cpu":
        return 0
    import torch

    found = torch.cuda.device_count()
    if config.device == "cuda" and found == 0:
        raise UserError("device: cuda, and PyTorch finds no GPU; see python -m cosytune.doctor, or device=cpu")
    return found


def _low_precision(config: Config, gpus: int) -> str | None:
    """use_amp is bf16 in upstream's torch_ddp, on every card; DeepSpeed gets fp16 where a card has no bf16."""
    settings = config.train.upstream
    if not settings.use_amp:
        return None
    if gpus == 0:
        print("train.upstream.use_amp needs a GPU: this run on the CPU is fp32")
        return None
    import torch

    has_bf16 = torch.cuda.get_device_capability() >= (8, 0)
    return "bf16" if has_bf16 or settings.train_engine == "torch_ddp" else "fp16"


def _data(context: Context) -> dict[str, Path]:
    """Training and cross-validation clips."""
    return {split: need(context.layout.parquet / split / "data.list", "pack") for split in ("train", "cv")}
