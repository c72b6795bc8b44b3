"""What upstream's trainer is to do with one module -> its command line, and the directory that it writes to."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from cosytune import files
from cosytune.families import Family
from cosytune.schema import UpstreamTrainConfig
from cosytune.training import checkpoint
from cosytune.training.checkpoint import Checkpoint
from cosytune.training.upstream import epochs, settings
from cosytune.upstream import tree

SAVED = "upstream"
"""In the module's directory: what upstream is writing. Nothing stays there."""


@dataclass(frozen=True)
class Job:
    """`data`: train and cv to their data.list. `low_precision`: bf16 or fp16, None for fp32."""

    name: str
    directory: Path
    model_dir: Path
    family: Family
    settings: UpstreamTrainConfig
    data: dict[str, Path]
    seed: int
    processes: int
    on_gpu: bool
    low_precision: str | None
    save_total_limit: int

    @property
    def base_weights(self) -> Path:
        return self.model_dir / {"llm": self.family.llm, "flow": self.family.flow}[self.name]

    @property
    def is_deepspeed(self) -> bool:
        return self.settings.train_engine == "deepspeed"


def command(job: Job, newest: Checkpoint | None) -> list[str]:
    """Torchrun with upstream's train.py, from the newest checkpoint or from the base."""
    saved_dir, options = job.directory / SAVED, job.settings
    arguments: dict[str, Path | str | int] = {
        "--train_engine": options.train_engine,
        "--model": job.name,
        "--config": job.directory / settings.YAML,
        "--train_data": job.data["train"],
        "--cv_data": job.data["cv"],
        "--qwen_pretrain_path": job.model_dir / job.family.text_tokenizer,
        "--checkpoint": _without_bookkeeping(job) if newest is None else newest.path / epochs.WEIGHTS,
        "--model_dir": saved_dir,
        "--tensorboard_dir": job.directory / "tensorboard",
        "--ddp.dist_backend": "nccl" if job.on_gpu else "gloo",
        "--num_workers": options.num_workers,
        "--prefetch": options.prefetch,
        "--timeout": options.timeout_s,
    }
    if job.is_deepspeed:
        arguments |= {"--deepspeed_config": job.directory / settings.DEEPSPEED}
        arguments |= {"--deepspeed.save_states": "model+optimizer"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local_addr", "127.0.0.1"]
    return [
        *launcher,
        f"--nproc_per_node={job.processes}",
        str(tree.ready() / "cosyvoice/bin/train.py"),
        *(str(word) for pair in arguments.items() for word in pair),
        *(["--cv_at_start"] if newest is None else []),
        *(["--use_amp"] if job.low_precision is not None and not job.is_deepspeed else []),
        *(["--pin_memory"] if job.on_gpu else []),
    ]


def environment(job: Job) -> dict[str, str]:
    """Ours, with upstream's tree and nothing else to import from."""
    root = tree.ready()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (root, root / "third_party/Matcha-TTS")))}
    return environment if job.on_gpu else environment | {"CUDA_VISIBLE_DEVICES": ""}


def _without_bookkeeping(job: Job) -> Path:
    """The base's weights; upstream would take an `epoch` in them for the one to go on from."""
    state = epochs.state(job.base_weights)
    if not any(key in state for key in epochs.BOOKKEEPING):
        return job.base_weights
    start = job.directory / SAVED / "start.pt"
    files.write_torch(start, {key: value for key, value in state.items() if key not in epochs.BOOKKEEPING})
    return start


def clear(job: Job) -> None:
    """What a run that ended on its way was writing is not trusted, whole or not."""
    checkpoint.remove_leftovers(job.directory)
    saved_dir = job.directory / SAVED
    for path in sorted(saved_dir.glob("epoch_*")):
        if path.suffix != ".yaml":
            print(f"left out: {path}: it was being written when the run ended")
    shutil.rmtree(saved_dir, ignore_errors=True)


def unlock_compiler(since_s: float) -> None:
    """DeepSpeed compiles something at its first start on a CPU. PyTorch would wait for ever for a compiler that is gone
    and could not take its lock away.
    """
    from torch.utils import cpp_extension

    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or cpp_extension.get_default_build_root())
    for lock in root.glob("**/deepspeed_*/lock"):
        if lock.stat().st_mtime >= since_s:
            lock.unlink()
