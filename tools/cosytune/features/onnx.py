"""An ONNX file -> a session on the device that was asked for, and an honest word on which one it got."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from cosytune.errors import UserError

Provider = Literal["auto", "cpu", "cuda"]
_NAMES = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def open_session(path: Path, provider: Provider, threads: int) -> Any:
    """An onnxruntime session; raises UserError when CUDA was asked for by name and the session did not get it."""
    import torch  # first: it brings the CUDA libraries that onnxruntime looks for

    # isort: split
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors alone: what the session got is said below, in words
    has_cuda = _NAMES["cuda"] in onnxruntime.get_available_providers() and torch.cuda.is_available()
    wanted = [_NAMES["cuda"]] if provider == "cuda" or (provider == "auto" and has_cuda) else []
    session = onnxruntime.InferenceSession(str(path), options, providers=[*wanted, _NAMES["cpu"]])
    got = session.get_providers()[0]
    if provider == "cuda" and got != _NAMES["cuda"]:
        remedy = "see python -m cosytune.doctor, or set features.provider=auto"
        raise UserError(f"features.provider = cuda: {path.name} got {got}; {remedy}")
    print(f"{path.name}: {got}")
    return session
