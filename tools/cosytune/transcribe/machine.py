"""`transcribe.device` and `compute_type` -> what this machine can do."""

from __future__ import annotations

import os

from cosytune.errors import UserError
from cosytune.schema import TranscribeConfig


def choose(settings: TranscribeConfig) -> tuple[str, str]:
    """(cpu or cuda, CTranslate2's compute type). Raises UserError for what the machine has not."""
    import torch  # first: it brings the CUDA libraries that CTranslate2 looks for

    # isort: split
    import ctranslate2

    has_cuda = torch.cuda.is_available() and ctranslate2.get_cuda_device_count() > 0
    if settings.device == "cuda" and not has_cuda:
        raise UserError("transcribe.device: cuda: no GPU to be seen; see python -m cosytune.doctor, or use auto")
    device = "cuda" if has_cuda and settings.device != "cpu" else "cpu"
    supported = ctranslate2.get_supported_compute_types(device)
    if settings.compute_type != "auto":
        if settings.compute_type not in supported:
            choice = ", ".join(sorted(supported))
            raise UserError(
                f"transcribe.compute_type: {settings.compute_type}: not on this {device}; use auto or one of {choice}"
            )
        return device, settings.compute_type
    wanted = "float16" if device == "cuda" else "int8"
    return device, wanted if wanted in supported else "float32"  # old GPUs have no fp16, some CPUs no int8


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0))
