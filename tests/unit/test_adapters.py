"""LoRA that is LoRA: no change at first, gradients in the adapters alone, exact merging, upstream's own key names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cosytune.errors import UserError
from cosytune.features import cache
from cosytune.features.cache import FeatureCache
from cosytune.schema import LoraConfig
from cosytune.training import adapters, batches, draws, losses
from cosytune.training.draws import Epoch
from cosytune.upstream import bridge
from training_data import FAMILY

VARIANTS = [
    LoraConfig(),
    LoraConfig(use_rslora=True, r=4, lora_alpha=4, lora_dropout=0.0),
    LoraConfig(use_dora=True, r=4, lora_dropout=0.0),
]


def build(module: str, model_dir: Path) -> Any:
    return {"llm": bridge.build_llm, "flow": bridge.build_flow}[module](model_dir, FAMILY)


@pytest.fixture(scope="module")
def features(training_features: Path) -> FeatureCache:
    return cache.open(training_features)


def loss_of(module: str, upstream: Any, features: FeatureCache) -> torch.Tensor:
    """Sum of the loss of 4 clips, with fixed draws."""
    clips = [features[index] for index in range(4)]
    if module == "flow":
        made = [draws.flow(Epoch(1, 0), clip.utt, len(clip.mel), 80, 0.2) for clip in clips]
        return losses.flow_loss(upstream, batches.flow_batch(clips, made, streaming=False)).total
    sequences = [
        batches.interleaved_sequence(clip.text_token.tolist(), clip.speech_token.tolist(), FAMILY) for clip in clips
    ]
    return losses.llm_loss(upstream, batches.llm_batch(sequences)).total


def trained(module: str, lora: LoraConfig, model_dir: Path, features: FeatureCache) -> Any:
    """Adapters after a few steps of AdamW: none of them zero any more."""
    model = adapters.attach(build(module, model_dir), lora, FAMILY.lora_targets[module], seed=3)
    optimizer = torch.optim.AdamW([part for part in model.parameters() if part.requires_grad], lr=0.01)
    for _ in range(3):
        loss_of(module, model.get_base_model(), features).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def save(model: Any, directory: Path) -> Path:
    directory.mkdir()
    for name, data in adapters.contents(model).items():
        (directory / name).write_bytes(data)
    return directory


@pytest.mark.parametrize("lora", VARIANTS)
@pytest.mark.parametrize("module", ["llm", "flow"])
def test_a_fresh_adapter_changes_no_output(
    module: str, lora: LoraConfig, random_model: Path, features: FeatureCache
) -> None:
    base = build(module, random_model)
    with torch.no_grad():
        before = loss_of(module, base, features)
    model = adapters.attach(base, lora, FAMILY.lora_targets[module], seed=3).eval()
    with torch.no_grad():
        assert (loss_of(module, model.get_base_model(), features) - before).abs().item() == 0


@pytest.mark.parametrize(("module", "layers"), [("llm", 14), ("flow", 59)])
def test_only_adapters_get_gradients(module: str, layers: int, random_model: Path, features: FeatureCache) -> None:
    model = adapters.attach(build(module, random_model), LoraConfig(), FAMILY.lora_targets[module], seed=3)
    loss_of(module, model.get_base_model(), features).backward()
    with_gradient = {name for name, part in model.named_parameters() if part.grad is not None}
    assert with_gradient == {name for name, _ in model.named_parameters() if "lora_" in name}
    assert len(with_gradient) == 2 * layers
    assert all(part.grad.abs().sum() > 0 for name, part in model.named_parameters() if "lora_B" in name), (
        "every adapted layer takes part in the loss"
    )
    trainable, total = adapters.count(model)
    assert trainable == sum(part.numel() for name, part in model.named_parameters() if name in with_gradient)
    assert trainable < 0.05 * total
    described = adapters.describe(model, module)
    assert described.startswith(f"LoRA on {module}: {layers} layers, ")
    assert f"({100 * trainable / total:.2f} %)" in described


def test_the_real_models_count(random_model: Path) -> None:
    """24 layers of 7 projections at rank 16, on the meta device: no memory, no weights."""
    with torch.device("meta"):
        llm = bridge.new_llm(FAMILY, FAMILY.real)
    model = adapters.attach(llm, LoraConfig(), FAMILY.lora_targets["llm"], seed=1)
    assert adapters.describe(model, "llm").startswith("LoRA on llm: 168 layers, 8.8 M of 5")


@pytest.mark.parametrize("lora", VARIANTS)
@pytest.mark.parametrize("module", ["llm", "flow"])
def test_merged_and_unmerged_agree(
    module: str, lora: LoraConfig, random_model: Path, features: FeatureCache, tmp_path: Path
) -> None:
    model = trained(module, lora, random_model, features)
    merged = adapters.merge(build(module, random_model), save(model, tmp_path / "adapter"))
    outputs = [
        _outputs(module, part, features) for part in (model.get_base_model(), merged, build(module, random_model))
    ]
    assert (outputs[0] - outputs[1]).abs().max().item() <= 1e-4
    assert (outputs[0] - outputs[2]).abs().max().item() > 1e-2, "the adapter does something"


def _outputs(module: str, upstream: Any, features: FeatureCache) -> torch.Tensor:
    """The LLM's logits, or the mel that the flow makes, for one clip."""
    clip = features[0]
    with torch.no_grad():
        if module == "flow":
            token = torch.tensor(clip.speech_token, dtype=torch.int32).unsqueeze(0)
            none = torch.zeros(1, 0, dtype=torch.int32)
            return upstream.inference(
                token=token,
                token_len=torch.tensor([token.shape[1]]),
                prompt_token=none,
                prompt_token_len=torch.tensor([0]),
                prompt_feat=torch.zeros(1, 0, 80),
                prompt_feat_len=torch.tensor([0]),
                embedding=torch.tensor(clip.spk_embedding).unsqueeze(0),
                streaming=False,
                finalize=True,
            )[0]
        text = upstream.llm.model.model.embed_tokens(torch.tensor(clip.text_token, dtype=torch.long))
        return upstream.llm_decoder(upstream.llm.model.model(inputs_embeds=text.unsqueeze(0)).last_hidden_state)


def _spoken(llm: Any, features: FeatureCache) -> list[int]:
    """What upstream's own sampling says to a text, with a fixed seed."""
    torch.manual_seed(7)
    text = torch.tensor(features[0].text_token, dtype=torch.int32).unsqueeze(0)
    none = torch.zeros(1, 0, dtype=torch.int32)
    return list(
        llm.inference(
            text=text,
            text_len=torch.tensor([text.shape[1]]),
            prompt_text=none,
            prompt_text_len=torch.tensor([0]),
            prompt_speech_token=none,
            prompt_speech_token_len=torch.tensor([0]),
            embedding=torch.zeros(1, 192),
        )
    )


def test_merged_and_unmerged_say_the_same(random_model: Path, features: FeatureCache, tmp_path: Path) -> None:
    model = trained("llm", LoraConfig(), random_model, features)
    adapter = save(model, tmp_path / "adapter")
    merged = adapters.merge(build("llm", random_model), adapter)
    loaded = adapters.load(build("llm", random_model), adapter)
    said = _spoken(model.get_base_model(), features)
    assert len(said) > 10
    assert said == _spoken(merged, features) == _spoken(loaded.get_base_model(), features)
    assert said != _spoken(build("llm", random_model), features), "the untuned base says something else"


@pytest.mark.parametrize("module", ["llm", "flow"])
def test_a_merged_model_has_upstreams_keys(
    module: str, random_model: Path, features: FeatureCache, tmp_path: Path
) -> None:
    adapter = save(trained(module, LoraConfig(), random_model, features), tmp_path / "adapter")
    merged = adapters.merge(build(module, random_model), adapter).state_dict()
    file = torch.load(random_model / f"{module}.pt", weights_only=True)
    assert list(merged) == list(file)
    assert {key: (value.shape, value.dtype) for key, value in merged.items()} == {
        key: (value.shape, value.dtype) for key, value in file.items()
    }
    build(module, random_model).load_state_dict(merged, strict=True)


def test_the_same_seed_gives_the_same_bytes(random_model: Path) -> None:
    made = [
        adapters.contents(adapters.attach(build("flow", random_model), LoraConfig(), FAMILY.lora_targets["flow"], seed))
        for seed in (5, 5, 6)
    ]
    assert made[0] == made[1]
    assert made[0][adapters.WEIGHTS] != made[2][adapters.WEIGHTS]


def test_attaching_leaves_the_callers_random_state(random_model: Path) -> None:
    torch.manual_seed(11)
    state = torch.get_rng_state()
    adapters.attach(build("llm", random_model), LoraConfig(), FAMILY.lora_targets["llm"], seed=3)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_adapter_goes_through_its_files(random_model: Path, features: FeatureCache, tmp_path: Path) -> None:
    model = trained("llm", LoraConfig(), random_model, features)
    directory = save(model, tmp_path / "adapter")
    again = adapters.attach(build("llm", random_model), LoraConfig(), FAMILY.lora_targets["llm"], seed=9)
    adapters.restore(again, directory)
    assert adapters.contents(again) == adapters.contents(model)
    tensors = load_file(directory / adapters.WEIGHTS)
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())
    assert "base_model.model.llm.model.model.layers.0.self_attn.q_proj.lora_A.weight" in tensors
    settings = json.loads((directory / adapters.SETTINGS).read_text())
    assert (settings["r"], settings["lora_alpha"], settings["peft_type"]) == (16, 32, "LORA")


def test_an_adapter_of_other_settings_is_refused(random_model: Path, features: FeatureCache, tmp_path: Path) -> None:
    directory = save(trained("llm", LoraConfig(), random_model, features), tmp_path / "adapter")
    other = adapters.attach(
        build("llm", random_model), LoraConfig(targets=[r".*q_proj"]), FAMILY.lora_targets["llm"], seed=9
    )
    with pytest.raises(UserError, match="differs from the adapter that the settings ask for"):
        adapters.restore(other, directory)


@pytest.mark.parametrize(
    ("module", "targets", "message"),
    [
        ("llm", ["default", "q_porj"], r"lora target 'q_porj': matches no layer.*groups are default.*q_proj"),
        ("llm", ["speaker"], r"lora target 'speaker': matches no layer; groups are default, minimal; layers"),
        ("flow", [r".*to_out"], r"matches decoder.*attn1\.to_out, a ModuleList, which LoRA cannot adapt"),
        ("flow", ["encoder("], r"lora target 'encoder\(': not a regular expression"),
    ],
)
def test_a_target_that_cannot_be_met_is_named(
    module: str, targets: list[str], message: str, random_model: Path
) -> None:
    with pytest.raises(UserError, match=message):
        adapters.attach(build(module, random_model), LoraConfig(targets=targets), FAMILY.lora_targets[module], seed=1)


def test_the_speaker_group_adds_the_layers_that_carry_timbre(random_model: Path) -> None:
    model = adapters.attach(
        build("flow", random_model), LoraConfig(targets=["default", "speaker"]), FAMILY.lora_targets["flow"], seed=1
    )
    assert {"spk_embed_affine_layer", "encoder_proj"} <= set(model.targeted_module_names)
    assert len(model.targeted_module_names) == 61
