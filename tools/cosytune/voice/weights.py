"""A base and a checkpoint -> a drop-in weights file, and the adapter in the form that a multi-LoRA server reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cosytune import files
from cosytune.errors import UserError
from cosytune.families import Family
from cosytune.training.upstream import epochs

_PEFT_LLM = "base_model.model.llm.model."
"""Where PEFT sees the Qwen2 model inside upstream's Qwen2LM; a server that loads Qwen2 alone sees the rest."""
_VLLM = "base_model.model."


def write_merged(module: str, base_dir: Path, family: Family, adapter: Path, destination: Path) -> None:
    """Write `llm.pt` or `flow.pt` with the adapter merged in: the base file's keys, shapes and dtypes, nothing else."""
    from cosytune.training import adapters
    from cosytune.upstream import bridge

    build = bridge.build_llm if module == "llm" else bridge.build_flow
    merged = adapters.merge(build(base_dir, family), adapter).state_dict()
    files.write_torch(destination, _like(base_dir / f"{module}.pt", merged))


def write_full(module: str, base_dir: Path, checkpoint_dir: Path, destination: Path) -> None:
    """Write `llm.pt` or `flow.pt` from the checkpoint of a full fine-tune: as `write_merged`, with nothing to merge.

    Raises UserError when it holds other tensors than the base.
    """
    tuned = epochs.state(checkpoint_dir / epochs.WEIGHTS)
    result = _like(base_dir / f"{module}.pt", tuned)
    if more := sorted(tuned.keys() - result.keys() - {*epochs.BOOKKEEPING}):
        raise UserError(f"{checkpoint_dir}: '{more[0]}' is not in {base_dir / f'{module}.pt'}; is that its base?")
    files.write_torch(destination, result)


def _like(base_file: Path, merged: dict[str, Any]) -> dict[str, Any]:
    """The merged tensors under the keys and in the dtypes of the base's file; tied tensors stay one tensor."""
    import torch

    known: dict[tuple[int, torch.Size, torch.dtype], torch.Tensor] = {}
    result = {}
    for key, base in files.read_torch(base_file).items():
        if not isinstance(base, torch.Tensor):  # `epoch` and `step`, which upstream's strict loading refuses
            continue
        if key not in merged or merged[key].shape != base.shape:
            raise UserError(f"{base_file}: '{key}' does not fit the merged model; check the base: --stage -1")
        tensor = merged[key].detach()
        identity = (tensor.data_ptr(), tensor.shape, base.dtype)
        result[key] = known.setdefault(identity, tensor.to(base.dtype)) if tensor.numel() else tensor.to(base.dtype)
    return result


def write_vllm(adapter: Path, destination: Path, base_name: str) -> str | None:
    """The LLM adapter under the names of the Qwen2 model alone, into `destination`; or the reason why it cannot be.

    Source of the names: PEFT's own for a `Qwen2ForCausalLM`, which vLLM's multi-LoRA loader reads.
    """
    from safetensors.torch import load_file, save

    config = files.read_json(adapter / "adapter_config.json")
    if config.get("use_dora"):
        return "DoRA adapters cannot be served beside each other"
    tensors = load_file(adapter / "adapter_model.safetensors")
    outside = sorted(name for name in tensors if not name.startswith(_PEFT_LLM))
    if outside:
        return f"the adapter changes layers outside the Qwen2 model ({outside[0]})"
    renamed = {_VLLM + name.removeprefix(_PEFT_LLM): tensor for name, tensor in tensors.items()}
    layers = sorted({name.split(".lora_")[0].rsplit(".", 1)[1] for name in renamed})
    config |= {"target_modules": layers, "base_model_name_or_path": base_name, "task_type": "CAUSAL_LM"}
    content = save(dict(sorted(renamed.items())), metadata={"format": "pt"})
    files.write_bytes(destination / "adapter_model.safetensors", content)
    files.write_json(destination / "adapter_config.json", config)
    return None
