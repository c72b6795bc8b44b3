"""What upstream saved after an epoch -> checkpoint-<update>/weights.pt with a manifest, as stages 5 to 7 read it.

The file is moved, never copied: it has 2 GB. It keeps upstream's own `epoch` and `step`, from which it goes on.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from cosytune import files
from cosytune.errors import UserError
from cosytune.training import checkpoint
from cosytune.training.checkpoint import Checkpoint

WEIGHTS = "weights.pt"
"""All weights of a module, in a checkpoint of a full fine-tune; the others hold an adapter."""
BOOKKEEPING = ("epoch", "step")
_WITH_OPTIMIZER = 4
"""DeepSpeed saves weights, Adam's two moments and the optimizer's own copy of the weights."""


def is_full(checkpoint_dir: Path) -> bool:
    """Whether a checkpoint holds all weights of its module and not an adapter."""
    return (checkpoint_dir / WEIGHTS).is_file()


def require_space(module_dir: Path, base_weights: Path, count: int, is_deepspeed: bool) -> None:
    """Raise UserError unless the disk has room for `count` more checkpoints and for what upstream writes on the way."""
    parameters_bytes = 4 * _parameters(base_weights)
    needed = (count + (2 * _WITH_OPTIMIZER if is_deepspeed else 1)) * parameters_bytes
    free = shutil.disk_usage(module_dir).free
    if free < needed:
        raise UserError(
            f"{module_dir}: {free / 1e9:.1f} GB free, and upstream's full checkpoints need {needed / 1e9:.1f} GB "
            f"({parameters_bytes / 1e9:.2f} GB each); free some, or lower train.{module_dir.name}.save_total_limit"
        )


def gather(saved_dir: Path, name: str, epoch: int, update: int) -> Path:
    """The weights file of an epoch, as upstream's torch_ddp writes it; DeepSpeed's directory becomes one.

    `epoch`: upstream's own, from 0.
    """
    path = saved_dir / f"{name}.pt"
    parts = saved_dir / name
    if parts.is_dir():
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

            state = get_fp32_state_dict_from_zero_checkpoint(str(saved_dir), tag=name)
        whole = {key: tensor.detach() for key, tensor in state.items()}
        files.write_torch(path, {**whole, "epoch": epoch, "step": update})
        shutil.rmtree(parts)
    return path


def take(module_dir: Path, weights: Path, base_weights: Path, found: Checkpoint) -> Checkpoint:
    """Move a weights file into its checkpoint, which is there whole or not at all.

    Raises UserError when it does not hold the same tensors as the base's.
    """
    _require_same(weights, base_weights)
    temporary = module_dir / f".{found.path.name}.tmp"
    temporary.mkdir()
    weights.rename(temporary / WEIGHTS)
    files.fsync(temporary / WEIGHTS)
    manifest = {
        "update": found.update,
        "epoch": found.epoch,
        "cv_loss": _finite(found.cv_loss),
        "train_loss": _finite(found.train_loss),
        "files": {WEIGHTS: files.sha256(temporary / WEIGHTS)},
    }
    (temporary / checkpoint.MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    files.fsync(temporary / checkpoint.MANIFEST)
    files.fsync(temporary)
    checkpoint.set_aside(found.path)
    temporary.rename(found.path)
    files.fsync(module_dir)
    return found


def prune(kept: Sequence[Checkpoint], newest: int) -> list[Checkpoint]:
    """Remove all but the `newest` ones and the best; return those that are left."""
    finite = [one for one in kept if math.isfinite(one.cv_loss)]
    best = min(finite, key=lambda one: (one.cv_loss, one.update), default=None)
    left = [one for one in kept if one in kept[-newest:] or one == best]
    for one in kept:
        if one not in left:
            leaving = one.path.with_name(f".{one.path.name}.tmp")
            one.path.rename(leaving)  # first: a run killed on its way leaves nothing that looks damaged
            shutil.rmtree(leaving)
    return left


def state(path: Path) -> dict[str, Any]:
    """A weights file, its tensors left on the disk until they are used. Raises UserError for a damaged one."""
    import torch

    try:
        with path.open("rb") as stream:
            is_archive = stream.read(2) == b"PK"  # torch's older format cannot be mapped
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as failure:
        reason = str(failure).splitlines()[0][:200]
        raise UserError(f"{path}: not readable as weights ({reason}); run stage 4 again: --stage 4") from None
    return found


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state(path).items() if key not in BOOKKEEPING}


def _parameters(path: Path) -> int:
    return sum(math.prod(shape) for shape in _shapes(path).values())


def _require_same(weights: Path, base_weights: Path) -> None:
    ours, bases = _shapes(weights), _shapes(base_weights)
    if ours != bases:
        other = sorted(key for key in {*ours, *bases} if ours.get(key) != bases.get(key))
        raise UserError(
            f"{weights}: holds other tensors than {base_weights} ({', '.join(other[:3])}); is that the base of this "
            "YAML? Check it with --stage -1"
        )


def _finite(loss: float) -> float | None:
    """JSON has no NaN."""
    return loss if math.isfinite(loss) else None
