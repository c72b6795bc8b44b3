"""An adapter and the state of its training <-> checkpoint-<update>/, which is there whole or not at all.

    python -m cosytune.training.checkpoint egs/demo/exp/default/llm     # the sound ones, and what ails the others

adapter_model.safetensors, adapter_config.json (PEFT reads them), state.pt, and manifest.json with the sha256 of each.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cosytune import files
from cosytune.errors import UserError, run_main

MANIFEST = "manifest.json"
_NAME = re.compile(r"checkpoint-(\d{6,})")
_REPLACED = ".old.tmp"
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Checkpoint:
    """One complete checkpoint. Losses are means over target tokens (llm) or mel values (flow).

    `cv_loss` is not a number where training was stopped within an epoch.
    """

    path: Path
    update: int
    epoch: int
    cv_loss: float
    train_loss: float


def find(module_dir: Path) -> list[Checkpoint]:
    """The complete, unchanged checkpoints of `exp/<name>/<module>`, by update; what ails the others is printed."""
    sound, faults = inspect(module_dir)
    for fault in faults:
        print(f"left out: {fault}")
    return sound


def inspect(module_dir: Path) -> tuple[list[Checkpoint], list[str]]:
    """The complete checkpoints by update, and a line for each of the others that names it and its fault."""
    sound, faults = [], []
    for path in sorted(module_dir.glob("checkpoint-*"), key=lambda path: (len(path.name), path.name)):
        if not _NAME.fullmatch(path.name):
            continue
        fault = _fault(path)
        if fault is None:
            sound.append(_read(path))
        else:
            faults.append(f"{path}: {fault}")
    return sound, faults


def write(
    module_dir: Path, contents: Mapping[str, bytes], update: int, epoch: int, cv_loss: float, train_loss: float
) -> Checkpoint:
    """Write one checkpoint beside the others and rename it into place.

    Raises UserError when the disk has no room for it; the former checkpoints are then as they were.
    """
    checkpoint = Checkpoint(module_dir / f"checkpoint-{update:06d}", update, epoch, cv_loss, train_loss)
    module_dir.mkdir(parents=True, exist_ok=True)
    temporary = module_dir / f".{checkpoint.path.name}.tmp"
    remove_leftovers(module_dir)
    _require_space(module_dir, sum(len(data) for data in contents.values()))
    try:
        temporary.mkdir()
        for name, data in contents.items():
            _write_synced(temporary / name, data)
        _write_synced(temporary / MANIFEST, _manifest(checkpoint, contents))
        files.fsync(temporary)
        replaced = _make_way(checkpoint.path)
        temporary.rename(checkpoint.path)
        files.fsync(module_dir)
        if replaced is not None:
            shutil.rmtree(replaced)
    except OSError as failure:
        if failure.errno not in _FULL:
            raise
        raise _no_space(module_dir, sum(len(data) for data in contents.values())) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return checkpoint


def prune(module_dir: Path, newest: int, best_update: int | None) -> list[Checkpoint]:
    """Keep the `newest` ones and the best; return what is left.

    Those without a cv loss go, as they were for resuming within an epoch; the very last one stays in any case.
    """
    sound, _ = inspect(module_dir)
    ended = [checkpoint for checkpoint in sound if not math.isnan(checkpoint.cv_loss)]
    kept = {checkpoint.update for checkpoint in [*ended[-newest:], *sound[-1:]]} | {best_update}
    for checkpoint in sound:
        if checkpoint.update not in kept:
            _remove(checkpoint.path)
    return [checkpoint for checkpoint in sound if checkpoint.update in kept]


def remove_leftovers(module_dir: Path) -> None:
    """What a killed run has left half written or half removed. One that it was about to replace comes back."""
    for path in module_dir.glob(f".checkpoint-*{_REPLACED}"):
        former = module_dir / path.name.removeprefix(".").removesuffix(_REPLACED)
        if not former.exists():
            path.rename(former)
    for path in module_dir.glob(".checkpoint-*.tmp"):
        shutil.rmtree(path)


def _fault(path: Path) -> str | None:
    try:
        manifest = files.read_json(path / MANIFEST)
        hashes = dict(manifest["files"])
        int(manifest["update"]), int(manifest["epoch"]), float(manifest["cv_loss"] or 0), manifest["train_loss"]
    except FileNotFoundError:
        return f"incomplete, it has no {MANIFEST}"
    except (ValueError, KeyError, TypeError):
        return f"{MANIFEST} is damaged"
    if not hashes:
        return f"{MANIFEST} is damaged"
    for name, expected in hashes.items():
        if not (path / name).is_file():
            return f"{name} is missing"
        if files.sha256(path / name) != expected:
            return f"{name} was changed since it was written (its sha256 differs)"
    return None


def _read(path: Path) -> Checkpoint:
    manifest = files.read_json(path / MANIFEST)
    losses = (math.nan if manifest[key] is None else float(manifest[key]) for key in ("cv_loss", "train_loss"))
    return Checkpoint(path, manifest["update"], manifest["epoch"], *losses)


def _manifest(checkpoint: Checkpoint, contents: Mapping[str, bytes]) -> bytes:
    value = {
        "update": checkpoint.update,
        "epoch": checkpoint.epoch,
        "cv_loss": _finite(checkpoint.cv_loss),
        "train_loss": _finite(checkpoint.train_loss),
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()},
    }
    return (json.dumps(value, indent=2) + "\n").encode("utf-8")


def _finite(loss: float) -> float | None:
    """JSON has no NaN."""
    return loss if math.isfinite(loss) else None


def _write_synced(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    files.fsync(path)


def _make_way(path: Path) -> Path | None:
    """Where a sound checkpoint of the same update, which had no cv loss yet, waits until it is replaced.

    A damaged one is kept.
    """
    if not path.exists() or _fault(path) is not None:
        set_aside(path)
        return None
    waiting = path.with_name(f".{path.name}{_REPLACED}")
    path.rename(waiting)
    return waiting


def set_aside(path: Path) -> None:
    """Keep a checkpoint that is damaged or in the way under another name, by which `find` does not know it."""
    if path.exists():
        number = next(number for number in range(1, 10**6) if not _aside(path, number).exists())
        path.rename(_aside(path, number))


def _aside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.damaged-{number}")


def _remove(path: Path) -> None:
    """Renamed first: a run killed while it removes leaves nothing that looks like a damaged checkpoint."""
    leaving = path.with_name(f".{path.name}.tmp")
    path.rename(leaving)
    shutil.rmtree(leaving)


def _require_space(module_dir: Path, needed: int) -> None:
    if shutil.disk_usage(module_dir).free < needed:
        raise _no_space(module_dir, needed)


def _no_space(module_dir: Path, needed: int) -> UserError:
    free = shutil.disk_usage(module_dir).free
    return UserError(
        f"no disk space left for the next checkpoint: needs {needed / 1e6:.1f} MB, {free / 1e6:.1f} MB free at "
        f"{module_dir}; free some and run the same command again, it goes on from the newest checkpoint"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module_dir", type=Path)
    module_dir: Path = parser.parse_args().module_dir
    sound, faults = inspect(module_dir)
    for checkpoint in sound:
        losses = f"cv loss {checkpoint.cv_loss:.4f}, train loss {checkpoint.train_loss:.4f}"
        if math.isnan(checkpoint.cv_loss):
            losses = "not evaluated, there to go on from"
        print(f"{checkpoint.path}: update {checkpoint.update}, epoch {checkpoint.epoch}, {losses}")
    if not sound and not faults:
        raise UserError(f"{module_dir}: no checkpoints there; they lie in exp/<name>/llm and exp/<name>/flow")
    if faults:
        raise UserError(*faults)
    return 0


if __name__ == "__main__":
    run_main(main)
