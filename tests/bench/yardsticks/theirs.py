"""Upstream's trainer, from its own functions: (a) as shipped, (b) without the duplicates and with LoRA.

(a) What its train.py does when its example calls it: its data pipeline in 2 workers, DistributedDataParallel over all
parameters, Adam, accum_grad 2, autocast on a GPU (`--use_amp`). While there are fewer parquet files than workers, each
worker reads all the clips. (b) One worker, so every clip once; `peft.inject_adapter_in_model` with our targets, the
base frozen; all else as in (a). The loop is that of upstream's Executor without cross-validation, which no one times.
"""

from __future__ import annotations

import functools
from argparse import Namespace
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from cosytune.families import Family, Name, Ref
from cosytune.schema import LoraConfig
from cosytune.training import adapters
from cosytune.upstream import bridge

from .corpus import Corpus

ACCUM_GRAD = 2
"""Upstream's example; batch after batch, whatever their sizes."""
WORKERS, PREFETCH = 2, 100
"""Upstream's example."""


@dataclass
class Theirs:
    """Upstream's trainer around one module. info: its `info_dict`."""

    model: Any
    optimizer: torch.optim.Optimizer
    scheduler: Any
    scaler: Any
    info: dict[str, Any]

    def epoch(self, loader: Any) -> int:
        """Executor.train_one_epoc; returns how many clips were served."""
        upstream = bridge._module("cosyvoice.utils.train_utils")
        served = 0
        self.model.train()
        with self.model.join():
            for number, batch in enumerate(loader):
                served += len(batch["utts"])
                is_last = (number + 1) % self.info["accum_grad"] == 0
                self.info |= {"tag": "TRAIN", "step": 0, "epoch": 0, "batch_idx": number}
                with nullcontext() if is_last else self.model.no_sync():
                    upstream.batch_forward(self.model, batch, self.scaler, self.info)
                    upstream.batch_backward(self.model, self.scaler, self.info)
                upstream.update_parameter_and_lr(self.model, self.optimizer, self.scheduler, self.scaler, self.info)
                upstream.log_per_step(None, self.info)
        return served

    def save(self, directory: Path) -> list[Path]:
        """Its save_model: the whole module, its dtype, and a YAML; no optimizer state."""
        self.info |= {"model_dir": str(directory), "epoch": 0, "step": 0}
        written = {key: value for key, value in self.info.items() if key != "loss_dict"}
        bridge._module("cosyvoice.utils.train_utils").save_model(self.model, "epoch_0_whole", written)
        return sorted(directory.iterdir())


def build(module: nn.Module, family: Family, device: torch.device, scratch: Path) -> Theirs:
    """Wrap a module as train.py does, with gloo on a CPU. Parameters that are frozen stay so."""
    upstream = bridge._module("cosyvoice.utils.train_utils")
    is_cuda = device.type == "cuda"
    arguments = Namespace(
        train_engine="torch_ddp",
        dist_backend="nccl" if is_cuda else "gloo",
        use_amp=is_cuda,
        model_dir=str(scratch),
    )
    if not dist.is_initialized():
        (scratch / "store").unlink(missing_ok=True)
        dist.init_process_group(arguments.dist_backend, init_method=f"file://{scratch / 'store'}", rank=0, world_size=1)
    configs = {"train_conf": {**family.document(family, family.real)["train_conf"], **vars(arguments)}}
    configs = upstream.check_modify_and_save_config(arguments, configs)
    model = upstream.wrap_cuda_model(arguments, module)
    model, optimizer, scheduler, _, _ = upstream.init_optimizer_and_scheduler(arguments, configs, model, False)
    scaler = torch.amp.grad_scaler.GradScaler("cuda") if is_cuda else None
    return Theirs(model, optimizer, scheduler, scaler, configs["train_conf"])


def inject(module: nn.Module, name: str, family: Family) -> nn.Module:
    """What (b) adds: LoRA of the default settings on our default targets, everything else frozen."""
    adapters._peft()
    from peft import LoraConfig as Settings
    from peft import inject_adapter_in_model

    lora = LoraConfig()
    settings = Settings(
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=family.lora_targets[name]["default"],
    )
    injected: nn.Module = inject_adapter_in_model(settings, module)
    return injected


def loader(corpus: Corpus, family: Family, workers: int, max_frames: int, pin_memory: bool = False) -> Any:
    """Upstream's DataLoader over its own pipeline, with the speaker's mean embedding, as tuning to a speaker wants."""
    document = dict(family.document(family, family.real))
    document["qwen_pretrain_path"] = str(corpus.tokenizer)
    document["batch"] = _with(document["batch"], max_frames_in_batch=max_frames)
    document["padding"] = _with(document["padding"], use_spk_embedding=True)
    arguments = Namespace(
        train_data=str(corpus.data_list),
        cv_data=str(corpus.data_list),
        pin_memory=pin_memory,
        num_workers=workers,
        prefetch=PREFETCH,
    )
    configs = {"data_pipeline": _resolved(document["data_pipeline"], document)}
    made = bridge._module("cosyvoice.utils.train_utils").init_dataset_and_dataloader(arguments, configs, False, False)
    dataset, _, train, _ = made
    dataset.set_epoch(0)
    return train


def _with(spec: Name, **arguments: Any) -> Name:
    return replace(spec, arguments={**spec.arguments, **arguments})


def _resolved(value: Any, document: Mapping[str, Any]) -> Any:
    """What the YAML's `!name:` and `!ref` stand for."""
    if isinstance(value, Ref):
        return _resolved(document[value.key], document)
    if isinstance(value, Name):
        arguments = {key: _resolved(inner, document) for key, inner in value.arguments.items()}
        return functools.partial(bridge._attribute(value.target), **arguments)
    if isinstance(value, list):
        return [_resolved(inner, document) for inner in value]
    return value
