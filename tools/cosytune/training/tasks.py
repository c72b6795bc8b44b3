"""What the LLM and the flow differ in when they are trained: lengths, draws, batches, loss. The loop knows neither."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from cosytune.families import Family
from cosytune.features.cache import Clip, Length
from cosytune.schema import FlowTrainConfig, LlmTrainConfig
from cosytune.training import batches, draws, losses
from cosytune.training.batches import Batch, FlowBatch, LlmBatch
from cosytune.training.draws import Epoch
from cosytune.training.losses import Loss


class Task(Protocol):
    """One module's side of training."""

    @property
    def cv_parts(self) -> int:
        """How often cross-validation draws for every clip."""

    def length(self, clip: Length) -> int:
        """Tokens of a clip in a micro-batch."""

    def coin(self, epoch: Epoch, utt: str) -> bool:
        """Clips of one micro-batch have the same."""

    def batch(self, clips: Sequence[Clip], epoch: Epoch) -> Batch: ...

    def loss(self, module: nn.Module, batch: Any) -> Loss:
        """The sum over the batch's targets, with upstream's own module."""


@dataclass(frozen=True)
class LlmTask:
    settings: LlmTrainConfig
    family: Family
    cv_parts: int = 1

    def length(self, clip: Length) -> int:
        return clip.text + clip.speech

    def coin(self, epoch: Epoch, utt: str) -> bool:
        return False

    def batch(self, clips: Sequence[Clip], epoch: Epoch) -> LlmBatch:
        return batches.llm_batch([self._sequence(clip, epoch) for clip in clips])

    def _sequence(self, clip: Clip, epoch: Epoch) -> batches.LlmSequence:
        text, speech = clip.text_token, clip.speech_token
        able = batches.may_interleave(len(text), len(speech), self.family)
        if able and draws.interleaved(epoch, clip.utt, self.settings.bistream_probability):
            return batches.interleaved_sequence(text, speech, self.family)
        return batches.plain_sequence(text, speech, self.family)

    def loss(self, module: nn.Module, batch: LlmBatch) -> Loss:
        return losses.llm_loss(module, batch)


@dataclass(frozen=True)
class FlowTask:
    """`guidance_dropout`: upstream's training_cfg_rate."""

    settings: FlowTrainConfig
    guidance_dropout: float

    @property
    def cv_parts(self) -> int:
        return self.settings.cv_time_steps

    def length(self, clip: Length) -> int:
        return clip.speech

    def coin(self, epoch: Epoch, utt: str) -> bool:
        return draws.streaming(epoch, utt, self.settings.streaming_probability)

    def batch(self, clips: Sequence[Clip], epoch: Epoch) -> FlowBatch:
        made = [self._draw(clip, epoch) for clip in clips]
        return batches.flow_batch(clips, made, self.coin(epoch, clips[0].utt))

    def _draw(self, clip: Clip, epoch: Epoch) -> draws.FlowDraw:
        frames, num_mels = clip.mel.shape
        return draws.flow(epoch, clip.utt, frames, num_mels, self.guidance_dropout)

    def loss(self, module: nn.Module, batch: FlowBatch) -> Loss:
        return losses.flow_loss(module, batch)
