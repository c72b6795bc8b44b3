"""What `auto` becomes on cards that are not here, and what stays as it is set."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cosytune import families
from cosytune.errors import UserError
from cosytune.schema import FlowTrainConfig, LlmTrainConfig, LoraConfig, ModuleTrainConfig, TrainConfig
from cosytune.training import adapters, batches, checkpointing, frozen, hardware, losses, plan
from cosytune.training.hardware import Card, Setup
from cosytune.upstream import bridge

GTX_1650 = Card("NVIDIA GeForce GTX 1650", 4.1, (7, 5))
GTX_1660 = Card("NVIDIA GeForce GTX 1660 Ti", 6.2, (7, 5))
RTX_3060 = Card("NVIDIA GeForce RTX 3060", 12.6, (8, 6))
T4 = Card("Tesla T4", 15.6, (7, 5))
V100 = Card("Tesla V100-SXM2-16GB", 16.9, (7, 0))
H100 = Card("NVIDIA H100 80GB HBM3", 85.0, (9, 0))
CARDS = [None, GTX_1650, GTX_1660, RTX_3060, T4, V100, H100]
BASE_PARAMETERS = {"llm": 502_000_000, "flow": 112_000_000}


def settled(
    card: Card | None,
    module: Any = "llm",
    low_memory: bool = False,
    share: float = 1.0,
    train: TrainConfig = TrainConfig(),  # noqa: B008 - frozen
    **settings: Any,
) -> Setup:
    kind = {"llm": LlmTrainConfig, "flow": FlowTrainConfig}[module]
    return hardware.settle(module, kind(**settings), train, low_memory, card, BASE_PARAMETERS[module], share)


def needs_gb(module: Any, setup: Setup) -> float:
    return hardware.needs_gb(module, setup, BASE_PARAMETERS[module])


@pytest.mark.parametrize(
    ("card", "precision"),
    [
        (None, "fp32"),
        (V100, "fp16"),
        (T4, "fp16"),
        (Card("", 16, (7, 9)), "fp16"),
        (Card("", 16, (8, 0)), "bf16"),
        (RTX_3060, "bf16"),
        (H100, "bf16"),
        (Card("", 16, (10, 0)), "bf16"),
    ],
)
def test_precision_follows_the_compute_capability(card: Card | None, precision: str) -> None:
    assert settled(card).precision == precision


@pytest.mark.parametrize(
    ("card", "bf16", "fp16", "precision"),
    [
        (H100, "auto", True, "fp16"),
        (H100, True, "auto", "bf16"),
        (H100, False, "auto", "fp16"),
        (H100, "auto", False, "bf16"),
        (H100, False, False, "fp32"),
        (T4, "auto", True, "fp16"),
        (T4, False, "auto", "fp16"),
        (T4, "auto", False, "fp32"),
        (T4, False, False, "fp32"),
        (None, True, "auto", "bf16"),
        (None, False, "auto", "fp32"),
        (None, "auto", False, "fp32"),
    ],
)
def test_a_precision_that_is_set_stays(card: Card | None, bf16: Any, fp16: Any, precision: str) -> None:
    assert settled(card, bf16=bf16, fp16=fp16).precision == precision


@pytest.mark.parametrize("card", [V100, T4, GTX_1650])
def test_bf16_where_it_is_emulated_is_refused_with_a_remedy(card: Card) -> None:
    with pytest.raises(
        UserError, match=rf"train\.flow\.bf16 = true: {card.name} has compute capability 7\.\d"
    ) as raised:
        settled(card, "flow", bf16=True)
    assert str(raised.value).endswith("; set train.flow.bf16=false train.flow.fp16=true")
    assert settled(card, "flow", bf16=False, fp16=True).precision == "fp16", "the remedy is one"


def test_fp16_on_a_cpu_is_refused_with_a_remedy() -> None:
    with pytest.raises(UserError) as raised:
        settled(None, fp16=True)
    assert str(raised.value) == "train.llm.fp16 = true: only a GPU can; set train.llm.fp16=auto"


@pytest.mark.parametrize("module", ["llm", "flow"])
def test_a_cpu(module: str) -> None:
    assert settled(None, module) == Setup("fp32", 2000, False, "adamw_torch", 0, True)


@pytest.mark.parametrize("module", ["llm", "flow"])
def test_a_large_card_computes_nothing_twice(module: str) -> None:
    assert settled(H100, module) == Setup("bf16", 8192, False, "adamw_torch_fused", 2, True)


def test_a_small_card_computes_activations_twice() -> None:
    assert not settled(RTX_3060, "llm").gradient_checkpointing
    assert settled(RTX_3060, "llm", share=0.5).gradient_checkpointing
    assert settled(GTX_1660, "llm").gradient_checkpointing
    assert settled(GTX_1650, "flow").gradient_checkpointing


def test_checkpointing_where_the_batch_that_is_asked_for_does_not_fit_without() -> None:
    assert not settled(T4, "llm", max_tokens_per_batch=3000).gradient_checkpointing
    assert settled(T4, "llm", max_tokens_per_batch=8000).gradient_checkpointing
    assert not settled(GTX_1660, "llm", max_tokens_per_batch=500).gradient_checkpointing


@pytest.mark.parametrize("module", ["llm", "flow"])
@pytest.mark.parametrize("card", CARDS[1:], ids=lambda card: card.name)
@pytest.mark.parametrize("low_memory", [False, True])
def test_what_is_settled_fits_into_the_card(card: Card, module: str, low_memory: bool) -> None:
    setup = settled(card, module, low_memory)
    assert needs_gb(module, setup) <= hardware.USABLE * card.memory_gb


@pytest.mark.parametrize("module", ["llm", "flow"])
@pytest.mark.parametrize("memory_gb", [4.0, 6.0])
@pytest.mark.parametrize("capability", [(7, 5), (8, 6)])
def test_low_memory_fits_into_four_and_six_gb(memory_gb: float, capability: tuple[int, int], module: str) -> None:
    setup = settled(Card("", memory_gb, capability), module, low_memory=True)
    assert setup.max_tokens_per_batch == 500
    assert setup.gradient_checkpointing
    assert (setup.num_workers, setup.audio_samples) == (0, False)
    assert needs_gb(module, setup) < {"llm": 2.2, "flow": 1.5}[module], "the arithmetic of the module's text"


def test_low_memory_gives_way_to_what_is_set() -> None:
    loud = TrainConfig(audio_samples=True)
    asked = {"max_tokens_per_batch": 4000, "gradient_checkpointing": False, "dataloader_num_workers": 3}
    setup = settled(RTX_3060, low_memory=True, train=loud, optim="adamw_8bit", **asked)
    assert setup == Setup("bf16", 4000, False, "adamw_8bit", 3, True)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name if card else "CPU")
@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused", "adamw_8bit"])
def test_an_optimizer_that_is_set_stays(card: Card | None, optim: Any) -> None:
    assert settled(card, optim=optim).optim == optim


def test_no_card_at_all_makes_8_bit_adam_worth_it_by_itself() -> None:
    assert {settled(card, low_memory=True).optim for card in CARDS} == {"adamw_torch", "adamw_torch_fused"}


@pytest.mark.parametrize("module", ["llm", "flow"])
def test_two_modules_that_share_a_card_fit_into_it(module: str) -> None:
    for card in (RTX_3060, T4, H100):
        halves = [settled(card, one, share=0.5) for one in ("llm", "flow")]
        together = sum(needs_gb(one, half) for one, half in zip(("llm", "flow"), halves, strict=True))
        assert together <= hardware.USABLE * card.memory_gb
    alone, half = settled(T4, module), settled(T4, module, share=0.5)
    assert needs_gb(module, half) < needs_gb(module, alone)


def test_needs_grow_with_batch_rank_precision_and_base() -> None:
    setup = Setup("bf16", 2000, False, "adamw_torch_fused", 2, True)
    base = hardware.needs_gb("llm", setup, 500_000_000)
    assert hardware.needs_gb("llm", Setup("bf16", 4000), 500_000_000) > base
    assert hardware.needs_gb("llm", Setup("fp32", 2000), 500_000_000) > base + 1
    assert hardware.needs_gb("llm", Setup("bf16", 2000, True), 500_000_000) < base
    assert hardware.needs_gb("llm", setup, 500_000_000, 36_000_000) == pytest.approx(base + 27_000_000 * 16e-9)
    assert hardware.needs_gb("llm", setup, 600_000_000) == pytest.approx(base + 0.2)
    assert hardware.needs_gb("llm", Setup("bf16", 500), 1) == hardware.needs_gb("llm", Setup("bf16", 1000), 1)
    assert hardware.needs_gb("llm", Setup("bf16", 500), 1, longest_clip=2000) > hardware.needs_gb(
        "llm", Setup("bf16", 1000), 1
    )


@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize("settings", [{}, {"tokens_per_update": 1500}])
def test_the_card_changes_no_update(settings: dict[str, Any], low_memory: bool) -> None:
    """Plans for the budgets of all cards: the same clips make the same updates."""
    utts = [f"{number}" for number in range(60)]
    lengths = [100 + 13 * (number % 29) for number in range(60)]
    made = set()
    budgets = set()
    for card in CARDS:
        for share in (1.0, 0.3):
            budget = settled(card, low_memory=low_memory, share=share, **settings).max_tokens_per_batch
            planned = plan.make(utts, lengths, ModuleTrainConfig(**settings), budget, "train.llm")
            updates = planned.epoch(plan.Epoch(7, 1), lambda utt: False)
            made.add(str([sorted(index for batch in update for index in batch) for update in updates]))
            budgets.add(planned.max_tokens_per_batch)
    assert len(made) == 1
    assert low_memory or len(budgets) > 2


def test_the_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert hardware.card("cpu") is None
    assert hardware.card("auto") is None
    with pytest.raises(UserError) as raised:
        hardware.card("cuda")
    assert str(raised.value) == ("device = cuda: torch sees no GPU; see python -m cosytune.doctor, or set device=auto")


def test_asking_for_a_cpu_needs_no_torch() -> None:
    code = "import sys; from cosytune.training import hardware; hardware.card('cpu'); print('torch' in sys.modules)"
    tools = Path(hardware.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=tools, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_an_llm_keeps_no_more_than_is_reckoned_with(is_checkpointed: bool, upstream_tree: Path) -> None:
    """Counted on one and on two layers of the real width, with default adapters and dropout; it has 24."""
    one, two = (_kept_bytes(layers, is_checkpointed) / _TOKENS for layers in (1, 2))
    layers = families.get("cosyvoice2-0.5b").real.llm.num_hidden_layers
    kept_mb = (one + (layers - 1) * (two - one)) / 1e6
    if is_checkpointed:  # and one layer computed again, with all that it keeps
        kept_mb += (_kept_bytes(2, False) - _kept_bytes(1, False)) / _TOKENS / 1e6
    assert kept_mb == pytest.approx(hardware._KEPT_MB["llm"][is_checkpointed], rel=0.05)


_TOKENS = 250


def _kept_bytes(layers: int, is_checkpointed: bool) -> int:
    """What the forward pass under bf16 leaves for the backward pass, weights aside."""
    family = families.get("cosyvoice2-0.5b")
    shape = replace(family.real, llm=replace(family.real.llm, num_hidden_layers=layers, vocab_size=512))
    llm = bridge.new_llm(family, shape)
    model = adapters.attach(llm, LoraConfig(), family.lora_targets["llm"], seed=1)
    frozen.halve(model, torch.bfloat16)
    if is_checkpointed:
        checkpointing.enable(model, "llm")
    weights = {part.untyped_storage().data_ptr() for part in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()  # the graph holds it: no address is given twice
        return tensor

    text = 50
    sequence = batches.plain_sequence(list(range(text)), list(range(_TOKENS - 2 - text)), family)
    model.train()
    with torch.autocast("cpu", torch.bfloat16), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = losses.llm_loss(model.get_base_model(), batches.llm_batch([sequence])).total
    assert loss.isfinite()
    return sum(kept.values())
