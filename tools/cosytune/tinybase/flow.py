"""Speech tokens, speaker embeddings and mel -> upstream's CausalMaskedDiffWithXvec, small, that gives a voice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cosytune import files
from cosytune.tinybase import codes, learn
from cosytune.tinybase.features import FAMILY, MEL_PER_TOKEN, Buckets, Features, gather, inside, of_one_length
from cosytune.tinybase.flow_start import start_straight
from cosytune.tinybase.learn import Plan
from cosytune.training import losses
from cosytune.training.batches import FlowBatch
from cosytune.upstream import bridge

ENCODER_PLAN = {
    "cpu": Plan(steps=3000, learning_rate=1e-3, batch=10, precision="bf16"),
    "cuda": Plan(steps=6000, learning_rate=1e-3, batch=48),
}
ESTIMATOR_PLAN = {
    "cpu": Plan(steps=8000, learning_rate=1.5e-3, batch=8, ema=0.998, precision="bf16"),
    "cuda": Plan(steps=12000, learning_rate=1e-3, batch=48, ema=0.9995),
}
_DISTURBED = 0.05
"""Of the tokens: what the LLM draws is not always right."""
_STREAMING = 0.3
"""Of the steps: only what lies before, and a little beyond, is heard and seen, as upstream streams."""
_SPEAKER_GAIN = 20.0
"""Of the fresh layer that reads the speaker's embedding, a vector of length 1: its numbers then have the size of a
mel's, beside which the estimator would else be long in noticing them."""
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


def make(
    features: Features, material: Material, directory: Path, device: str, encoder_plan: Plan, estimator_plan: Plan
) -> nn.Module:
    """Train the encoder, then, on what that makes of all utterances, the estimator; weights.pt in `directory`.

    One after the other: three quarters of the arithmetic of a step are the encoder's, and what it says is good long
    before the estimator's mel is, which then has the rest of the time to itself.
    """
    torch.manual_seed(estimator_plan.seed)
    flow = new()
    with torch.no_grad():
        flow.spk_embed_affine_layer.weight.mul_(_SPEAKER_GAIN)
    start_straight(flow.decoder.estimator, features.mel.float().mean(dim=0).cpu())
    flow.to(device)
    encoder = _Encoder(flow)
    first = _EncoderLesson(features, material, encoder_plan, device)
    learn.fit("flow's encoder", encoder, partial(first.loss, encoder), encoder_plan, directory / "encoder", device)
    spoken = _all_spoken(encoder, features, material.tokens)
    second = _EstimatorLesson(features, material, spoken, estimator_plan, device)
    estimator = _Estimator(flow)
    loss = partial(second.loss, flow)
    learn.fit("flow's estimator", estimator, loss, estimator_plan, directory / "estimator", device)
    files.write_torch(directory / learn.WEIGHTS, {key: value.cpu() for key, value in flow.state_dict().items()})
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


class _Encoder(nn.Module):
    """The first half of a flow: codes -> what was spoken, as the canonical voice's mel."""

    def __init__(self, flow: Any) -> None:
        super().__init__()
        self.input_embedding, self.encoder, self.encoder_proj = flow.input_embedding, flow.encoder, flow.encoder_proj

    def forward(self, token: Tensor, counts: Tensor, streaming: bool) -> Tensor:
        """int64 [clips, tokens], int64 [clips] -> float32 [clips, 2 * tokens, 80]."""
        heard = self.input_embedding(token) * inside(counts, token.shape[1]).unsqueeze(2)
        spoken: Tensor = self.encoder_proj(self.encoder(heard, counts, streaming=streaming)[0])
        return spoken.float()


class _Estimator(nn.Module):
    """The second half: what was spoken, and the speaker -> the speaker's mel."""

    def __init__(self, flow: Any) -> None:
        super().__init__()
        self.decoder, self.spk_embed_affine_layer = flow.decoder, flow.spk_embed_affine_layer


class _Lesson:
    """Batches of utterances, drawn from the step's generator."""

    def __init__(self, features: Features, material: Material, plan: Plan, device: str) -> None:
        self.features, self.material, self.plan, self.device = features, material, plan, device
        self._lengths: list[int] = features.lengths.tolist()
        self._buckets = Buckets(self._lengths, plan.batch)

    def draw(self, generator: torch.Generator) -> tuple[Tensor, int, bool]:
        """The numbers of some utterances, the length of the longest in tokens, and whether this step is streaming."""
        chosen = self._buckets.draw(generator)
        streaming = bool(torch.rand(1, generator=generator) < _STREAMING)
        return torch.from_numpy(chosen).to(self.device), max(self._lengths[row] for row in chosen), streaming


class _EncoderLesson(_Lesson):
    """L1 between what the encoder makes of the codes and the canonical voice's mel."""

    def loss(self, encoder: nn.Module, step: int) -> tuple[Tensor, Mapping[str, Any]]:
        rows, longest, streaming = self.draw(learn.generator(self.plan.seed, step))
        starts, counts = self.features.starts[rows], self.features.lengths[rows]
        drawn = learn.generator(self.plan.seed, step, self.device)
        token = codes.disturb(gather(self.material.tokens, starts, longest), _DISTURBED, drawn)
        spoken = encoder(token * inside(counts, longest), counts, streaming)
        wanted = gather(self.material.canonical, starts, longest, MEL_PER_TOKEN).float()
        own = inside(counts * MEL_PER_TOKEN, longest * MEL_PER_TOKEN).unsqueeze(2).float()
        return ((spoken - wanted).abs() * own).sum() / (own.sum() * wanted.shape[2]), {}


class _EstimatorLesson(_Lesson):
    """Upstream's loss, on what the encoder has `spoken`, [2 * all tokens, 80]; half of the clips are prompted."""

    def __init__(self, features: Features, material: Material, spoken: Tensor, plan: Plan, device: str) -> None:
        super().__init__(features, material, plan, device)
        self._spoken = spoken

    def loss(self, flow: Any, step: int) -> tuple[Tensor, Mapping[str, Any]]:
        generator = learn.generator(self.plan.seed, step)
        rows, longest, streaming = self.draw(generator)
        coins = torch.rand((5, len(rows)), generator=generator).to(self.device)
        batch = self._batch(rows, longest, streaming, coins, step, _unguided(flow))
        spoken = gather(self._spoken, self.features.starts[rows], longest, MEL_PER_TOKEN).float().transpose(1, 2)
        return losses.flow_matching_loss(flow, batch, spoken).total / batch.targets, {}

    def _batch(
        self, rows: Tensor, longest: int, streaming: bool, coins: Tensor, step: int, unguided: float
    ) -> FlowBatch:
        starts, counts = self.features.starts[rows], self.features.lengths[rows]
        time, prompt, share, mean, guided = coins
        kept = (prompt < 0.5) * (share * 0.3 * counts * MEL_PER_TOKEN)  # upstream: half, up to 30 % of the frames
        is_mean = (mean < _MEAN_SPEAKER).unsqueeze(1)
        frames = inside(counts * MEL_PER_TOKEN, longest * MEL_PER_TOKEN).unsqueeze(2)
        mel = gather(self.features.mel, starts, longest, MEL_PER_TOKEN).float() * frames
        noise = torch.randn(mel.shape, generator=learn.generator(self.plan.seed, step, self.device), device=self.device)
        return FlowBatch(
            streaming=streaming,
            lengths=tuple(counts.tolist()),
            token=gather(self.material.tokens, starts, longest),
            tokens=counts,
            mel=mel,
            noise=noise,
            embedding=torch.where(is_mean, self.material.voices.mean[rows], self.material.voices.own[rows]),
            prompt_frames=kept.long(),
            time=time,
            guided=guided >= unguided,
        )


@torch.inference_mode()
def _all_spoken(encoder: nn.Module, features: Features, tokens: Tensor) -> Tensor:
    """What the trained encoder makes of all utterances, float16 [2 * tokens, 80]."""
    found = torch.empty((MEL_PER_TOKEN * len(tokens), features.mel.shape[1]), dtype=torch.float16, device=tokens.device)
    for starts, length in of_one_length(features.starts, features.lengths):
        spoken = encoder(gather(tokens, starts, length), torch.full_like(starts, length), streaming=False)
        places = (starts * MEL_PER_TOKEN).unsqueeze(1) + torch.arange(length * MEL_PER_TOKEN, device=starts.device)
        found[places] = spoken.half()
    return found


def _unguided(flow: Any) -> float:
    """Upstream's training_cfg_rate: the share of clips that are trained without tokens and speaker."""
    return float(flow.decoder.training_cfg_rate)
