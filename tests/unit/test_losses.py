"""Our losses against upstream's own `forward`, on the same batch and the same random draws, fp32, eval mode."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from cosytune.features import cache
from cosytune.features.cache import Clip
from cosytune.schema import LoraConfig
from cosytune.training import adapters, batches, draws, losses
from cosytune.training.draws import Epoch, FlowDraw
from cosytune.upstream import bridge
from training_data import FAMILY

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clips(training_features: Path) -> list[Clip]:
    features = cache.open(training_features)
    return [features[index] for index in range(6)]


@pytest.fixture(scope="module")
def llm(random_model: Path) -> Any:
    return bridge.build_llm(random_model, FAMILY)


@pytest.fixture(scope="module")
def flow(random_model: Path) -> Any:
    return bridge.build_flow(random_model, FAMILY)


def _padded(rows: list[Any], dtype: torch.dtype = torch.long) -> torch.Tensor:
    return pad_sequence([torch.tensor(np.array(row), dtype=dtype) for row in rows], batch_first=True)


def _upstream_batch(clips: list[Clip]) -> dict[str, torch.Tensor]:
    """As upstream's `padding` makes it, with use_spk_embedding."""
    return {
        "text_token": _padded([clip.text_token for clip in clips]),
        "text_token_len": torch.tensor([len(clip.text_token) for clip in clips]),
        "speech_token": _padded([clip.speech_token for clip in clips]),
        "speech_token_len": torch.tensor([len(clip.speech_token) for clip in clips]),
        "speech_feat": _padded([clip.mel for clip in clips], torch.float32),
        "speech_feat_len": torch.tensor([len(clip.mel) for clip in clips]),
        "embedding": torch.tensor(np.stack([clip.spk_embedding for clip in clips])),
    }


def _sequence(clip: Clip, interleave: bool) -> batches.LlmSequence:
    layout = batches.interleaved_sequence if interleave else batches.plain_sequence
    return layout(clip.text_token.tolist(), clip.speech_token.tolist(), FAMILY)


def _may_interleave(clip: Clip) -> bool:
    return batches.may_interleave(len(clip.text_token), len(clip.speech_token), FAMILY)


def _fix_llm_coins(coins: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    import cosyvoice.llm.llm as upstream

    drawn = iter([0.0 if coin else 0.9 for coin in coins])
    monkeypatch.setattr(upstream, "random", SimpleNamespace(random=lambda: next(drawn)))


def _upstream_llm_loss(llm: Any, clips: list[Clip], coins: list[bool], monkeypatch: pytest.MonkeyPatch) -> float:
    _fix_llm_coins(coins, monkeypatch)
    with torch.no_grad():
        return llm(_upstream_batch(clips), CPU)["loss"].item()


@pytest.mark.parametrize("coins", ["none", "all", "mixed"])
def test_llm_loss_is_upstreams(llm: Any, clips: list[Clip], coins: str, monkeypatch: pytest.MonkeyPatch) -> None:
    able = [_may_interleave(clip) for clip in clips]
    assert sum(able) >= 3, "the interleaved layout must be exercised"
    assert len({len(clip.speech_token) for clip in clips}) > 3, "and padding too"
    heads = [coins == "all" or (coins == "mixed" and number % 2 == 0) for number in range(len(clips))]
    expected = _upstream_llm_loss(llm, clips, heads, monkeypatch)
    batch = batches.llm_batch(
        [_sequence(clip, head and can) for clip, head, can in zip(clips, heads, able, strict=True)]
    )
    with torch.no_grad():
        total = losses.llm_loss(llm, batch).total.item()
    assert total / batch.targets == pytest.approx(expected, rel=1e-5)
    if coins == "all":
        plain = batches.llm_batch([_sequence(clip, False) for clip in clips])
        with torch.no_grad():
            other = losses.llm_loss(llm, plain).total.item()
        assert other / plain.targets != pytest.approx(expected, rel=1e-5), "the layouts differ in their loss"


@pytest.mark.parametrize("text_tokens", range(1, 13))
def test_interleaved_layout_is_upstreams_for_every_length(llm: Any, text_tokens: int, monkeypatch) -> None:
    """Turns that come out even, and a rest of 0 to 4 text tokens."""
    random = np.random.default_rng(text_tokens)
    text = random.integers(0, 400, text_tokens)
    speech = random.integers(0, FAMILY.speech_token_size, 3 * text_tokens + 1)
    clip = Clip("a", "a", "", text, speech, np.zeros((2, 80), np.float32), np.zeros(192, np.float32))
    assert _may_interleave(clip)
    fewer = Clip("a", "a", "", text, speech[:-1], clip.mel, clip.spk_embedding)
    assert not _may_interleave(fewer), "3 speech tokens per text token are not more than 3"
    expected = _upstream_llm_loss(llm, [clip], [True], monkeypatch)
    batch = batches.llm_batch([_sequence(clip, True)])
    with torch.no_grad():
        total = losses.llm_loss(llm, batch).total.item()
    assert total / batch.targets == pytest.approx(expected, rel=1e-5)
    assert batch.targets == len(speech) + text_tokens // 5 + 1


def _patch_flow(monkeypatch: pytest.MonkeyPatch, made: list[FlowDraw], streaming: bool, noise: torch.Tensor) -> None:
    """Upstream's random calls give what our draws say."""
    import cosyvoice.flow.flow as upstream
    import cosyvoice.flow.flow_matching as matching

    coins = iter([0.0 if streaming else 0.9, *(0.9 if draw.prompt_frames else 0.0 for draw in made)])
    cuts = iter([draw.prompt_frames for draw in made if draw.prompt_frames])

    def randint(low: int, high: int) -> int:
        cut = next(cuts)
        assert low <= cut <= high
        return cut

    uniform = iter(
        [
            torch.tensor([draw.time for draw in made]).view(-1, 1, 1),
            torch.tensor([0.9 if draw.guided else 0.0 for draw in made]),
        ]
    )

    class Torch:
        rand = staticmethod(lambda *_, **__: next(uniform))
        randn_like = staticmethod(
            lambda like: noise.transpose(1, 2) if noise.transpose(1, 2).shape == like.shape else None
        )

        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

    monkeypatch.setattr(upstream, "random", SimpleNamespace(random=lambda: next(coins), randint=randint))
    monkeypatch.setattr(matching, "torch", Torch())


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("count", [6, 1])
def test_flow_loss_is_upstreams(flow: Any, clips: list[Clip], streaming: bool, count: int, monkeypatch) -> None:
    chosen, epoch = clips[:count], Epoch(seed=4, number=0)
    made = [draws.flow(epoch, clip.utt, len(clip.mel), 80, flow.decoder.training_cfg_rate) for clip in chosen]
    if count > 1:
        assert {draw.guided for draw in made} == {True, False}
        assert sum(draw.prompt_frames > 0 for draw in made) not in (0, count)
    assert max(len(clip.speech_token) for clip in chosen) > 25, "longer than one streaming chunk"
    batch = batches.flow_batch(chosen, made, streaming)
    _patch_flow(monkeypatch, made, streaming, batch.noise)
    with torch.no_grad():
        expected = flow(_upstream_batch(chosen), CPU)["loss"].item()
        total = losses.flow_loss(flow, batch).total.item()
    assert total / batch.targets == pytest.approx(expected, rel=1e-5)
    assert batch.targets == sum(clip.mel.size for clip in chosen)


def test_llm_gradients_are_upstreams(random_model: Path, clips: list[Clip], monkeypatch) -> None:
    """Of every adapter, with clips of different lengths, interleaved and not."""
    model = _adapted("llm", random_model)
    heads = [number % 2 == 0 and _may_interleave(clip) for number, clip in enumerate(clips)]
    assert {True, False} == {*heads}
    _fix_llm_coins(heads, monkeypatch)
    model.get_base_model()(_upstream_batch(clips), CPU)["loss"].backward()
    expected = _taken_gradients(model)
    batch = batches.llm_batch([_sequence(clip, head) for clip, head in zip(clips, heads, strict=True)])
    (losses.llm_loss(model.get_base_model(), batch).total / batch.targets).backward()
    _assert_equal_gradients(_taken_gradients(model), expected)


@pytest.mark.parametrize("streaming", [False, True])
def test_flow_gradients_are_upstreams(random_model: Path, clips: list[Clip], streaming: bool, monkeypatch) -> None:
    model = _adapted("flow", random_model)
    made = [draws.flow(Epoch(4, 0), clip.utt, len(clip.mel), 80, 0.2) for clip in clips]
    batch = batches.flow_batch(clips, made, streaming)
    _patch_flow(monkeypatch, made, streaming, batch.noise)
    model.get_base_model()(_upstream_batch(clips), CPU)["loss"].backward()
    expected = _taken_gradients(model)
    (losses.flow_loss(model.get_base_model(), batch).total / batch.targets).backward()
    _assert_equal_gradients(_taken_gradients(model), expected)


def _adapted(name: str, model_dir: Path) -> Any:
    """A module in eval mode with adapters that are not zero, so that all their gradients count."""
    build = bridge.build_llm if name == "llm" else bridge.build_flow
    model = adapters.attach(build(model_dir, FAMILY), LoraConfig(r=4), FAMILY.lora_targets[name], seed=3).eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for part in model.parameters():
            if part.requires_grad:
                part.add_(0.02 * torch.randn_like(part))
    return model


def _taken_gradients(model: Any) -> dict[str, torch.Tensor]:
    taken = {name: part.grad.clone() for name, part in model.named_parameters() if part.requires_grad}
    model.zero_grad()
    return taken


def _assert_equal_gradients(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """To 1e-5 of each tensor's size."""
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert gradient.norm() > 0, name
        assert (ours[name] - gradient).norm() <= 1e-5 * gradient.norm(), name


def test_many_targets_are_predicted_in_chunks(llm: Any, clips: list[Clip], monkeypatch) -> None:
    """Chunks that come out uneven give the loss and the accuracy of one."""
    batch = batches.llm_batch([_sequence(clip, False) for clip in clips])
    with torch.no_grad():
        whole = losses.llm_loss(llm, batch)
        assert batch.targets < losses._CHUNK
        monkeypatch.setattr(losses, "_CHUNK", 17)
        assert batch.targets % 17
        parts = losses.llm_loss(llm, batch)
    assert parts.total.item() == pytest.approx(whole.total.item(), rel=1e-6)
    assert parts.correct == whole.correct


def test_streaming_changes_the_flows_loss(flow: Any, clips: list[Clip]) -> None:
    made = [draws.flow(Epoch(4, 0), clip.utt, len(clip.mel), 80, 0.2) for clip in clips]
    with torch.no_grad():
        sums = [losses.flow_loss(flow, batches.flow_batch(clips, made, side)).total.item() for side in (False, True)]
    assert sums[0] != pytest.approx(sums[1], rel=1e-5)


def test_sums_of_micro_batches_are_the_sum_of_the_batch(llm: Any, clips: list[Clip]) -> None:
    """Right-padded causal rows: who shares a batch changes nothing."""
    each = [batches.llm_batch([_sequence(clip, _may_interleave(clip))]) for clip in clips]
    together = batches.llm_batch([_sequence(clip, _may_interleave(clip)) for clip in clips])
    with torch.no_grad():
        parts = [losses.llm_loss(llm, batch).total.item() for batch in each]
        assert sum(parts) == pytest.approx(losses.llm_loss(llm, together).total.item(), rel=1e-5)
    assert sum(batch.targets for batch in each) == together.targets
