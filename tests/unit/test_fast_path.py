"""The fast path keeps upstream's values: shared masks, checkpointed blocks, compiled blocks."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.yardsticks import held
from cosytune.errors import UserError
from cosytune.features import cache
from cosytune.features.cache import Clip
from cosytune.schema import LoraConfig
from cosytune.training import adapters, batches, checkpointing, compiling, draws, frozen, losses, recomputing
from cosytune.training.draws import Epoch
from cosytune.upstream import bridge, masks
from training_data import FAMILY


@pytest.fixture(scope="module")
def clips(training_features: Path) -> list[Clip]:
    features = cache.open(training_features)
    return [features[index] for index in range(4)]


@pytest.fixture(scope="module")
def flow(random_model: Path) -> Any:
    return bridge.build_flow(random_model, FAMILY)


def _adapted(name: str, model_dir: Path) -> Any:
    build = bridge.build_llm if name == "llm" else bridge.build_flow
    return adapters.attach(build(model_dir, FAMILY), LoraConfig(lora_dropout=0.1), FAMILY.lora_targets[name], seed=3)


def _flow_batch(clips: list[Clip], streaming: bool) -> batches.FlowBatch:
    made = [draws.flow(Epoch(4, 0), clip.utt, len(clip.mel), 80, 0.2) for clip in clips]
    return batches.flow_batch(clips, made, streaming)


def _loss(name: str, model: Any, clips: list[Clip], streaming: bool = False) -> torch.Tensor:
    if name == "flow":
        return losses.flow_loss(model.get_base_model(), _flow_batch(clips, streaming)).total
    sequences = [batches.plain_sequence(clip.text_token, clip.speech_token, FAMILY) for clip in clips]
    return losses.llm_loss(model.get_base_model(), batches.llm_batch(sequences)).total


def _functions() -> dict[str, Any]:
    import cosyvoice.flow.decoder as decoder
    import cosyvoice.transformer.upsample_encoder as encoder

    return {
        "chunks": encoder.add_optional_chunk_mask,
        "padding": encoder.make_pad_mask,
        "attended": decoder.add_optional_chunk_mask,
        "bias": decoder.mask_to_bias,
    }


@pytest.mark.parametrize("lengths", [[30, 7, 1], [12, 12]])
@pytest.mark.parametrize("chunk", [0, 5, 50])
def test_masks_are_upstreams_to_the_last_bit(flow: Any, lengths: list[int], chunk: int) -> None:
    theirs, heads = _functions(), 3
    tokens, size = torch.tensor(lengths), max(lengths)
    xs, last = torch.zeros(len(lengths), size, 2), (False, False, 0, chunk, -1)
    expected_padding = ~theirs["padding"](tokens, size).unsqueeze(1)
    expected = theirs["chunks"](xs, expected_padding, *last)
    expected_bias = theirs["bias"](expected.expand(-1, size, -1), torch.float32)
    with bridge.shared_masks(heads, is_even=False):
        ours = _functions()
        padding = ~ours["padding"](tokens, size).unsqueeze(1)
        assert torch.equal(padding, expected_padding)
        assert torch.equal(ours["chunks"](xs, padding, *last), expected)
        attended = ours["attended"](xs, padding, *last)
        bias = ours["bias"](attended.repeat(1, size, 1), torch.float32)
    assert bias.shape[1] == (size if chunk else 1), "attention broadcasts what is the same for every query"
    assert bias.stride(0) % masks._ALIGNMENT == 0
    by_head = bias.view(len(lengths), heads, -1, size).expand(-1, -1, size, -1)
    for head in range(heads):
        assert torch.equal(by_head[:, head], expected_bias)
    assert _functions() == theirs, "and upstream has its own functions again"


def test_a_query_that_sees_no_key_sees_all_as_in_upstream(flow: Any, capsys) -> None:
    theirs = _functions()
    padding = torch.tensor([[[True, False, False]], [[False, False, False]]])
    arguments = (torch.zeros(2, 3, 1), padding, False, False, 0, 1, -1)
    expected = theirs["chunks"](*arguments)
    assert "force set to true" in capsys.readouterr().out
    with bridge.shared_masks(1, is_even=False):
        assert torch.equal(_functions()["chunks"](*arguments), expected)


def test_upstreams_functions_come_back_after_a_failure(flow: Any) -> None:
    theirs = _functions()
    with pytest.raises(ValueError, match="max_len"), bridge.shared_masks(1, is_even=False):
        _functions()["padding"](torch.tensor([3]))
    assert _functions() == theirs


def test_one_mask_of_a_kind_a_forward_pass(flow: Any, clips: list[Clip], monkeypatch: pytest.MonkeyPatch) -> None:
    """Upstream's blocks ask for as many as there are blocks; each of the five that differ is made once."""
    asked, built = Counter[str](), Counter[str]()
    for name in ("padding", "chunks", "bias"):
        monkeypatch.setattr(masks.Masks, name, _counting(asked, name, getattr(masks.Masks, name)))
        monkeypatch.setattr(masks, f"_{name}", _counting(built, name, getattr(masks, f"_{name}")))
    blocks = 1 + len(flow.decoder.estimator.mid_blocks) + 1
    for streaming in (False, True):
        asked.clear(), built.clear()
        with torch.no_grad():
            losses.flow_loss(flow, _flow_batch(clips, streaming))
        assert asked == {"padding": 2, "chunks": 2, "bias": blocks}
        assert built == {"padding": 2, "chunks": 2, "bias": 1}, "the bias is made of the encoder's own mask"
    built.clear()
    with torch.no_grad():
        losses.flow_loss(flow, _flow_batch(clips[:1], streaming=False))
    assert built == {"padding": 2, "chunks": 2}, "one length: no bias at all"


def _counting(counter: Counter[str], name: str, function: Any) -> Any:
    def counted(*arguments: Any, **named: Any) -> Any:
        counter[name] += 1
        return function(*arguments, **named)

    return counted


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("count", [1, 4])
def test_shared_masks_change_no_bit_of_the_flow(flow: Any, clips: list[Clip], streaming: bool, count: int) -> None:
    batch = _flow_batch(clips[:count], streaming)
    with torch.no_grad():
        ours = losses.flow_loss(flow, batch).total
        assert "Masks" not in str(_functions()["bias"])
        theirs = losses._flow_loss(flow, batch).total  # with upstream's own masks
    assert torch.equal(ours, theirs)


def _gradients(
    name: str, model: Any, clips: list[Clip], precision: torch.dtype = torch.float32
) -> tuple[dict[str, torch.Tensor], int]:
    """The adapters' gradients with dropout, and the bytes that the forward pass left for the backward pass."""
    model.train()
    torch.manual_seed(11)
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        loss, size = held.measure(lambda: _loss(name, model, clips))
    loss.backward()
    made = {key: part.grad.clone() for key, part in model.named_parameters() if part.requires_grad}
    model.zero_grad()
    return made, size


@pytest.mark.parametrize("name", ["llm", "flow"])
def test_checkpointing_keeps_gradients_and_saves_memory(name: str, random_model: Path, clips: list[Clip]) -> None:
    model = _adapted(name, random_model)
    plain, plain_bytes = _gradients(name, model, clips)
    again, _ = _gradients(name, model, clips)
    assert all(torch.equal(plain[key], again[key]) for key in plain), "the comparison must be able to be exact"
    checkpointing.enable(model, name)
    checkpointing.enable(model, name)
    checkpointed, few_bytes = _gradients(name, model, clips)
    assert all(torch.equal(plain[key], checkpointed[key]) for key in plain)
    assert few_bytes < 0.5 * plain_bytes
    model.eval()
    with torch.no_grad():
        assert _loss(name, model, clips).isfinite()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_recomputing_keeps_gradients_and_saves_memory(clips: list[Clip], precision: torch.dtype) -> None:
    """Against the same dropout with everything saved; one layer of the real width."""
    real = FAMILY.shape("full-random")
    module = bridge.new_llm(FAMILY, replace(real, llm=replace(real.llm, num_hidden_layers=1, vocab_size=2048)))
    model = adapters.attach(module, LoraConfig(), FAMILY.lora_targets["llm"], seed=3)
    if precision != torch.float32:
        frozen.halve(model, precision)
    _, plain_bytes = _gradients("llm", model, clips, precision)
    recomputing.enable(model, "llm")
    less, few_bytes = _gradients("llm", model, clips, precision)
    assert few_bytes < (0.55 if precision == torch.float32 else 0.75) * plain_bytes
    saving = model.get_base_model().llm.model.model.forward
    model.get_base_model().llm.model.model.forward = saving._forward  # the same modules, no recipes
    all_saved, many_bytes = _gradients("llm", model, clips, precision)
    assert few_bytes < 0.75 * many_bytes
    assert all(torch.equal(less[key], all_saved[key]) for key in less)
    assert all(gradient.abs().sum() > 0 for key, gradient in less.items() if "lora_B" in key)
    assert not saving._kept.recipes, "nothing outlives the forward pass"


def test_recomputing_changes_no_loss_in_eval_mode(random_model: Path, clips: list[Clip]) -> None:
    model = _adapted("llm", random_model).eval()
    with torch.no_grad():
        before = _loss("llm", model, clips)
        recomputing.enable(model, "llm")
        assert torch.equal(_loss("llm", model, clips), before)


def test_compiled_blocks_have_the_same_loss(random_model: Path, clips: list[Clip]) -> None:
    """Traced alone: the flow, and what makes kernels of it, take minutes: tests/bench/compile_pays.py."""
    model = _adapted("llm", random_model).eval()
    expected = [_loss("llm", model, some) for some in (clips, clips[:2])]
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiling.compiled(model, "llm", backend="eager")
    try:
        for some, loss in zip((clips, clips[:2]), expected, strict=True):
            compiled = _loss("llm", model, some)
            assert compiled.item() == pytest.approx(loss.item(), rel=1e-5)
        compiled.backward()
        assert all(part.grad is not None and part.grad.isfinite().all() for part in _trained(model))
        assert torch._dynamo.utils.counters["frames"]["ok"] >= 1
        assert not torch._dynamo.utils.counters["graph_break"], "a block is one graph"
    finally:
        torch._dynamo.reset()


def test_no_compiler_is_an_error(random_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"train\.llm\.torch_compile: no C\+\+ compiler .*torch_compile=false"):
        compiling.compiled(_adapted("llm", random_model), "llm")


def _trained(model: Any) -> list[torch.nn.Parameter]:
    return [part for part in model.parameters() if part.requires_grad]
