"""A frozen base in half precision, with adapters in fp32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cosytune.features import cache
from cosytune.features.cache import Clip
from cosytune.schema import LoraConfig
from cosytune.training import adapters, batches, draws, frozen, losses
from cosytune.training.draws import Epoch
from cosytune.upstream import bridge
from training_data import FAMILY


@pytest.fixture(scope="module")
def clips(training_features: Path) -> list[Clip]:
    features = cache.open(training_features)
    return [features[index] for index in range(4)]


def _adapted(name: str, model_dir: Path, use_dora: bool = False) -> Any:
    """Adapters that are not zero."""
    build = bridge.build_llm if name == "llm" else bridge.build_flow
    lora = LoraConfig(r=4, use_dora=use_dora)
    model = adapters.attach(build(model_dir, FAMILY), lora, FAMILY.lora_targets[name], seed=3).eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for key, part in model.named_parameters():
            if "lora_B" in key:
                part.add_(0.02 * torch.randn_like(part))
    return model


def _loss(name: str, model: Any, clips: list[Clip]) -> torch.Tensor:
    if name == "flow":
        made = [draws.flow(Epoch(4, 0), clip.utt, len(clip.mel), 80, 0.2) for clip in clips]
        return losses.flow_loss(model.get_base_model(), batches.flow_batch(clips, made, streaming=True)).total
    sequences = [batches.interleaved_sequence(clip.text_token, clip.speech_token, FAMILY) for clip in clips]
    return losses.llm_loss(model.get_base_model(), batches.llm_batch(sequences)).total


@pytest.mark.parametrize("use_dora", [False, True])
@pytest.mark.parametrize("name", ["llm", "flow"])
def test_loss_and_gradients_of_a_halved_base(name: str, use_dora: bool, random_model: Path, clips: list[Clip]) -> None:
    model = _adapted(name, random_model, use_dora)
    with torch.no_grad():
        exact = _loss(name, model, clips).item()
        with torch.autocast("cpu", torch.bfloat16):
            rounded = _loss(name, model, clips).item()
    before = frozen.frozen_bytes(model)
    frozen.halve(model, torch.bfloat16)
    assert frozen.frozen_bytes(model) < 0.51 * before
    with torch.autocast("cpu", torch.bfloat16):
        loss = _loss(name, model, clips)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact, rel=0.02)
    assert loss.item() == pytest.approx(rounded, rel=0.005), "autocast rounds the same weights"
    for key, part in model.named_parameters():
        if part.requires_grad:
            assert part.dtype == torch.float32
            assert part.grad is not None
            assert part.grad.dtype == torch.float32
            assert part.grad.isfinite().all(), key
        elif part.dim() == 1 and "norm" in key:
            assert part.dtype == torch.float32, key
    assert any(part.grad.norm() > 0 for part in model.parameters() if part.requires_grad)


def test_a_merged_voice_is_not_rounded(random_model: Path, clips: list[Clip], tmp_path: Path) -> None:
    """What is saved are the adapters; merging reads the base's file."""
    whole, halved = _adapted("llm", random_model), _adapted("llm", random_model)
    frozen.halve(halved, torch.bfloat16)
    merged = []
    for number, model in enumerate((whole, halved)):
        directory = tmp_path / str(number)
        directory.mkdir()
        for file, content in adapters.contents(model).items():
            (directory / file).write_bytes(content)
        merged.append(adapters.merge(bridge.build_llm(random_model, FAMILY), directory).state_dict())
    assert all(torch.equal(tensor, merged[1][key]) for key, tensor in merged[0].items())
    assert all(tensor.dtype == torch.float32 for tensor in merged[1].values())


def test_tied_weights_stay_tied_and_no_other_width_is_accepted(random_model: Path) -> None:
    model = _adapted("llm", random_model)
    text = model.get_base_model().llm.model
    assert text.lm_head.weight is text.model.embed_tokens.weight
    with pytest.raises(ValueError, match="no half precision"):
        frozen.halve(model, torch.float64)
    frozen.halve(model, torch.float16)
    assert text.lm_head.weight is text.model.embed_tokens.weight
    assert text.lm_head.weight.dtype == torch.float16
    assert all(part.weight.dtype == torch.float32 for part in model.modules() if isinstance(part, nn.LayerNorm))
