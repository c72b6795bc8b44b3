"""Speech tokens, speaker embeddings and mel -> upstream's CausalMaskedDiffWithXvec, small, that gives a voice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cosytune.tinybase import codes, learn
from cosytune.tinybase.features import FAMILY, MEL_PER_TOKEN, Buckets, Features, gather, inside
from cosytune.tinybase.learn import Plan
from cosytune.training import losses
from cosytune.training.batches import FlowBatch
from cosytune.upstream import bridge

PLAN = {
    "cpu": Plan(steps=4000, learning_rate=1.2e-3, batch=6, precision="bf16"),
    "cuda": Plan(steps=8000, learning_rate=1e-3, batch=48),
}
_DISTURBED = 0.05
"""Of the tokens: what the LLM draws is not always right."""
_SPOKEN = 1.0
"""Weight of a loss of our own: what the encoder makes of the tokens is the canonical voice's mel, L1. It spares the
estimator the words, which it learns far more slowly from noise."""
_TOGETHER = 0.4
"""Of all steps, the first ones, in which the encoder learns, too. Its share of the arithmetic is about three quarters
(counted from its parameters and rates); what it says is good long before the estimator's is, which then has the rest of
the time to itself."""
_MEAN_SPEAKER = 0.7
"""Of the clips: given the speaker's mean embedding, as a voice is; else the clip's own."""


@dataclass(frozen=True)
class Voices:
    """Speaker embeddings. own: float32 [utterances, 192]; mean: float32 [utterances, 192], of the clip's speaker."""

    own: Tensor
    mean: Tensor


@dataclass(frozen=True)
class Material:
    """What the flow is told, of all utterances in a row. tokens: int64; canonical: float16 [2 * tokens, 80], mel."""

    tokens: Tensor
    canonical: Tensor
    voices: Voices


def new() -> Any:
    """Fresh weights, drawn from torch's global generator; the embedding of the codes is in parts."""
    with bridge.keep_random_state():
        flow: Any = bridge.new_flow(FAMILY, FAMILY.shape("tiny"))
    codes.factor(flow.input_embedding)
    return flow


def make(features: Features, material: Material, directory: Path, device: str, plan: Plan) -> nn.Module:
    """Train on the features' mel; weights.pt and log.jsonl in `directory`."""
    torch.manual_seed(plan.seed)
    flow = new()
    with torch.no_grad():  # so that training begins at the mean spectrum and not far above all speech
        flow.decoder.estimator.final_proj.bias.copy_(features.mel.float().mean(dim=0))
    flow.to(device)
    lesson = _Lesson(flow, features, material, plan, device)
    learn.fit("flow", flow, lesson.loss, plan, directory, device)
    return load(directory).to(device)


def load(directory: Path) -> nn.Module:
    """Upstream's plain module, on the CPU, in eval mode."""
    with bridge.keep_random_state():
        flow = bridge.new_flow(FAMILY, FAMILY.shape("tiny"))
    flow.load_state_dict(plain(learn.plain_weights(directory)))
    return flow.eval()


def plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The trained or the shipped state, the table in parts -> upstream's keys."""
    return codes.expand(state)


def speaker_means(own: Tensor, speakers: Sequence[str]) -> Voices:
    """own: float32 [utterances, 192] -> the same beside the mean of each one's speaker."""
    mean = torch.empty_like(own)
    for speaker in sorted(set(speakers)):
        rows = torch.tensor([one == speaker for one in speakers], device=own.device)
        mean[rows] = own[rows].mean(dim=0)
    return Voices(own, mean)


class _Lesson:
    """The loss of a step: upstream's, with a prompt for half of the clips and streaming in half of the steps."""

    def __init__(self, flow: Any, features: Features, material: Material, plan: Plan, device: str) -> None:
        self._flow, self._features, self._material = flow, features, material
        self._plan, self._device = plan, device
        self._encoded = torch.empty(0)
        flow.encoder_proj.register_forward_hook(self._keep)
        self._lengths: list[int] = features.lengths.tolist()
        self._buckets = Buckets(self._lengths, plan.batch)

    def loss(self, step: int) -> tuple[Tensor, Mapping[str, Any]]:
        for part in (self._flow.input_embedding, self._flow.encoder, self._flow.encoder_proj):
            part.requires_grad_(step < _TOGETHER * self._plan.steps)
        generator = learn.generator(self._plan.seed, step)
        chosen = self._buckets.draw(generator)
        coins = torch.rand((5, len(chosen)), generator=generator)
        streaming = bool(torch.rand(1, generator=generator) < 0.5)
        batch = self._batch(chosen.tolist(), coins, streaming, step)
        matched = losses.flow_loss(self._flow, batch).total / batch.targets
        spoken = self._unlike_canonical(chosen.tolist(), batch)
        return matched + _SPOKEN * spoken, {"flow": matched.detach(), "spoken": spoken.detach()}

    def _keep(self, _: nn.Module, __: Any, output: Tensor) -> None:
        self._encoded = output

    def _unlike_canonical(self, chosen: list[int], batch: FlowBatch) -> Tensor:
        starts = self._features.starts[torch.tensor(chosen, device=self._device)]
        wanted = gather(self._material.canonical, starts, batch.token.shape[1], MEL_PER_TOKEN).float()
        own = inside(batch.tokens * MEL_PER_TOKEN, wanted.shape[1]).unsqueeze(2).float()
        return ((self._encoded.float() - wanted).abs() * own).sum() / batch.targets

    def _batch(self, chosen: list[int], coins: Tensor, streaming: bool, step: int) -> FlowBatch:
        device, features = self._device, self._features
        rows = torch.tensor(chosen, device=device)
        lengths = [self._lengths[row] for row in chosen]
        longest = max(lengths)
        starts, counts = features.starts[rows], features.lengths[rows]
        own, generator = inside(counts, longest), learn.generator(self._plan.seed, step, device)
        frames = inside(counts * MEL_PER_TOKEN, longest * MEL_PER_TOKEN).unsqueeze(2)
        mel = gather(features.mel, starts, longest, MEL_PER_TOKEN).float() * frames
        token = codes.disturb(gather(self._material.tokens, starts, longest), _DISTURBED, generator) * own
        time, prompt, share, mean, guided = coins.to(device)
        kept = (prompt < 0.5) * (share * 0.3 * counts * MEL_PER_TOKEN)  # upstream: half, up to 30 % of the frames
        is_mean = (mean < _MEAN_SPEAKER).unsqueeze(1)
        return FlowBatch(
            streaming=streaming,
            lengths=tuple(lengths),
            token=token,
            tokens=counts,
            mel=mel,
            noise=torch.randn(mel.shape, generator=generator, device=device),
            embedding=torch.where(is_mean, self._material.voices.mean[rows], self._material.voices.own[rows]),
            prompt_frames=kept.long(),
            time=time,
            guided=guided >= _unguided(self._flow),
        )


def _unguided(flow: Any) -> float:
    """Upstream's training_cfg_rate: the share of clips that are trained without tokens and speaker."""
    return float(flow.decoder.training_cfg_rate)
