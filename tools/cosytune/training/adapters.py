"""An upstream module and LoRA settings -> the module with adapters in it; and an adapter merged back into its module.

PEFT does the work: `get_peft_model` keeps adapters in fp32 and saves them alone.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from cosytune.errors import UserError
from cosytune.schema import LoraConfig

if TYPE_CHECKING:
    from peft import PeftModel

WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"
"""PEFT's own names: its `PeftModel.from_pretrained` reads the directory."""
_ADAPTABLE = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d)


def attach(module: nn.Module, lora: LoraConfig, targets: Mapping[str, str], seed: int) -> PeftModel:
    """Freeze `module` and put fresh adapters into it, which change no output yet; the same ones for the same seed.

    `targets`: the family's groups, name -> regular expression over module names; `lora.targets` picks of them, or
    gives expressions of its own. Raises UserError for one that matches no layer.
    """
    peft = _peft()
    settings = peft.LoraConfig(
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        target_modules=expression(module, lora.targets, targets),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return peft.get_peft_model(module, settings)


def load(module: nn.Module, checkpoint_dir: Path) -> PeftModel:
    """`module` with the adapter of a checkpoint or a voice, for synthesis: nothing of it trains."""
    return _peft().PeftModel.from_pretrained(module, str(checkpoint_dir), torch_device="cpu").eval()


def merge(module: nn.Module, checkpoint_dir: Path) -> nn.Module:
    """`module` with the adapter added to its weights: upstream's key names, the dtypes that it came with."""
    merged: nn.Module = load(module, checkpoint_dir).merge_and_unload(safe_merge=True)
    return merged


def contents(model: PeftModel) -> dict[str, bytes]:
    """The adapter as the bytes of the two files that PEFT reads; the same bytes for the same weights."""
    from safetensors.torch import save

    tensors = _tensors(model)
    settings = model.peft_config["default"].to_dict() | {"inference_mode": True}
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in settings.items()}
    return {
        WEIGHTS: save(tensors, metadata={"format": "pt"}),
        SETTINGS: (json.dumps(plain, indent=2, sort_keys=True, default=str) + "\n").encode("utf-8"),
    }


def restore(model: PeftModel, checkpoint_dir: Path) -> None:
    """Put the adapter of a checkpoint into the adapters that `attach` made, to train on."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    tensors = load_file(checkpoint_dir / WEIGHTS)
    if differing := sorted(tensors.keys() ^ _tensors(model).keys()):
        raise UserError(
            f"{checkpoint_dir / WEIGHTS}: {differing[0]} differs from the adapter that the settings ask for"
        )
    set_peft_model_state_dict(model, tensors)


def _tensors(model: PeftModel) -> dict[str, torch.Tensor]:
    from peft import get_peft_model_state_dict

    tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}


def count(model: nn.Module) -> tuple[int, int]:
    """Parameters that train, and all of them, the adapters' own included."""
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    frozen = sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)
    return trainable, trainable + frozen


def describe(model: PeftModel, name: str) -> str:
    """`LoRA on llm: 168 layers, 8.8 M of 502 M parameters train (1.75 %)`."""
    trainable, total = count(model)
    numbers = f"{_millions(trainable)} of {_millions(total)} parameters train ({100 * trainable / total:.2f} %)"
    return f"LoRA on {name}: {len(model.targeted_module_names)} layers, {numbers}"


def _millions(number: int) -> str:
    millions = number / 1e6
    return f"{millions:.0f} M" if millions >= 100 else f"{millions:.1f} M" if millions >= 1 else f"{millions:.3f} M"


def expression(module: nn.Module, wanted: Sequence[str], targets: Mapping[str, str]) -> str:
    """One regular expression for all targets, which PEFT matches against whole names; else as `attach`."""
    layers = {name: layer for name, layer in module.named_modules() if name}
    expressions = [targets.get(target, target) for target in wanted]
    faults = [
        fault
        for target, expression in zip(wanted, expressions, strict=True)
        if (fault := _fault(target, expression, layers, targets))
    ]
    if faults:
        raise UserError(*faults)
    return "|".join(f"(?:{expression})" for expression in expressions)


def _fault(target: str, expression: str, layers: Mapping[str, nn.Module], targets: Mapping[str, str]) -> str | None:
    place = f"lora target '{target}'"
    try:
        matched = [name for name in layers if re.fullmatch(expression, name)]
    except re.error as failure:
        return f"{place}: not a regular expression ({failure}); groups are {', '.join(targets)}"
    if not matched:
        near = _near(target, layers)
        return f"{place}: matches no layer; groups are {', '.join(targets)}; layers are called like {', '.join(near)}"
    others = [name for name in matched if not isinstance(layers[name], _ADAPTABLE)]
    if others:
        kind = type(layers[others[0]]).__name__
        return f"{place}: matches {others[0]}, a {kind}, which LoRA cannot adapt; name the layers in it"
    return None


def _near(target: str, layers: Mapping[str, nn.Module]) -> list[str]:
    """Names of adaptable layers that look like the target, one of each kind."""
    names = {re.sub(r"\d+", "0", name): name for name, layer in layers.items() if isinstance(layer, _ADAPTABLE)}
    tails = {name.rpartition(".")[2]: name for name in reversed(names)}
    close = [tails[tail] for tail in difflib.get_close_matches(target, tails, n=3, cutoff=0.5)]
    return close or difflib.get_close_matches(target, names, n=3, cutoff=0.0)


def _peft() -> Any:
    """PEFT, imported as where bitsandbytes is not installed.

    PEFT would import it for quantized base models, which we have none of: 2 s, a complaint on stderr, and workers for
    `torch.compile` of 600 MB each.
    """
    hidden = "bitsandbytes" not in sys.modules
    if hidden:
        sys.modules["bitsandbytes"] = None  # type: ignore[assignment] # what `import` takes for `not there`
    try:
        import peft
    finally:
        if hidden:
            del sys.modules["bitsandbytes"]
    return peft
