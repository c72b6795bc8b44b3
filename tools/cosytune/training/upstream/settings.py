"""The recipe's settings -> what upstream's trainer reads: cosyvoice2.yaml, and deepspeed.json for DeepSpeed.

The YAML is the one of the base, written anew from the family's numbers: upstream's own file is not copied, and what is
not named here is as it is there (pipeline, length limits, optimizer, gradient clipping).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cosytune import files
from cosytune.base import hyperyaml
from cosytune.families import Apply, Family, Name
from cosytune.schema import UpstreamTrainConfig

YAML = "cosyvoice2.yaml"
DEEPSPEED = "deepspeed.json"
_HEADER = "# written by cosytune for upstream's train.py, from the numbers of {title} and the recipe's settings\n"


def write(
    directory: Path,
    model_dir: Path,
    family: Family,
    settings: UpstreamTrainConfig,
    seed: int,
    low_precision: str | None,
) -> None:
    """Write both files. `low_precision`: bf16 or fp16, None for fp32; the YAML does not know of it.

    Raises UserError when the base's YAML is none that we know: its numbers would be guessed.
    """
    hyperyaml.require_known(model_dir, family)
    shape = hyperyaml.known_shape(model_dir / family.yaml, family)
    assert shape is not None
    document = _document(family.document(family, shape), settings, seed)
    files.write_text(directory / YAML, _HEADER.format(title=family.title) + hyperyaml.text(document))
    if settings.train_engine == "deepspeed":
        files.write_json(directory / DEEPSPEED, _deepspeed(document["train_conf"], low_precision))


def _document(document: Mapping[str, Any], settings: UpstreamTrainConfig, seed: int) -> dict[str, Any]:
    seeds = {key: Apply(value.target, (seed,)) for key, value in document.items() if isinstance(value, Apply)}
    return {
        **document,
        **seeds,
        "batch": _with(document["batch"], max_frames_in_batch=settings.max_frames_in_batch),
        # the mean over a speaker's clips, which is what the voice bundle ships
        "padding": _with(document["padding"], use_spk_embedding=True),
        "train_conf": {
            **document["train_conf"],
            "optim_conf": {"lr": settings.learning_rate},
            "scheduler": "constantlr",
            "scheduler_conf": {},  # under DeepSpeed upstream hands it to ConstantLR, which takes nothing
            "max_epoch": settings.max_epoch,
            "accum_grad": settings.accum_grad,
            "log_interval": 1,  # every batch is counted here; history.jsonl keeps to the recipe's log_interval
            "save_per_step": -1,
        },
    }


def _with(step: Name, **arguments: Any) -> Name:
    return replace(step, arguments={**step.arguments, **arguments})


def _deepspeed(train_conf: Mapping[str, Any], low_precision: str | None) -> dict[str, Any]:
    """ZeRO-2 without offload; torch's own Adam, since the image has no compiler for CUDA."""
    return {
        "train_micro_batch_size_per_gpu": 1,  # upstream asserts it: it makes its batches itself
        "gradient_accumulation_steps": train_conf["accum_grad"],
        "gradient_clipping": train_conf["grad_clip"],
        "steps_per_print": train_conf["log_interval"],
        "fp16": {"enabled": low_precision == "fp16"},
        "bf16": {"enabled": low_precision == "bf16"},
        "zero_optimization": {"stage": 2, "overlap_comm": False, "contiguous_gradients": True},
        "optimizer": {
            "type": "Adam",
            "params": {**train_conf["optim_conf"], "torch_adam": True, "adam_w_mode": False},
        },
    }
