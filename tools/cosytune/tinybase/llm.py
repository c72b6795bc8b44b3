"""Kana and speech tokens -> upstream's Qwen2LM, small, that reads katakana aloud as speech tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cosytune.base import morae
from cosytune.tinybase import codes, learn
from cosytune.tinybase.corpus import Utterance
from cosytune.tinybase.features import FAMILY, Buckets
from cosytune.tinybase.learn import Plan
from cosytune.training import batches, losses
from cosytune.training.batches import SPEECH, LlmBatch, LlmSequence
from cosytune.upstream import bridge

PLAN = {
    "cpu": Plan(steps=5000, learning_rate=1e-3, batch=24, weight_decay=0.1, precision="bf16"),
    "cuda": Plan(steps=8000, learning_rate=1.5e-3, batch=96, weight_decay=0.1, precision="bf16"),
}
Renderings = Sequence[NDArray[np.int64]]
"""The speech tokens of one utterance, as it was heard several times."""
_INTERLEAVED = 0.3
"""Of the sequences that can be: upstream's half, and fewer, since most are spoken whole."""
_JOINED = 0.3
"""Of the steps: half as many sequences, each of two utterances of one speaker, read as one. Clips may hold more than a
sentence."""
_DISTURBED = 0.1
"""Of the speech tokens that it hears of itself: what it draws is not always what was drawn in training."""
_DROPOUT = 0.1
"""Of what the feed-forward layers say; in the attention it would cost 40 % of the time."""

_SHARPNESS = 1.7
"""The scores of the codes are multiplied by it after training. Upstream draws again, from all 6,561 codes, when a drawn
one is among the last ten, and a small model is too unsure for that: of 120 held-out sentences the tokenizer's own
listener misreads 3.3 % of the kana at 1.0 and 1.4 % at 1.7."""


def new() -> Any:
    """Fresh weights, drawn from torch's global generator; the tables over the codes are in parts."""
    llm: Any = bridge.new_llm(FAMILY, FAMILY.shape("tiny"))
    codes.factor(llm.speech_embedding)
    codes.factor(llm.llm_decoder)
    return llm


def make(
    utterances: Sequence[Utterance], speech: Sequence[Renderings], directory: Path, device: str, plan: Plan
) -> nn.Module:
    """Train on the tokens `speech` of the utterances; weights.pt and log.jsonl in `directory`."""
    torch.manual_seed(plan.seed)
    llm = new().to(device)
    lesson = _Lesson(llm, utterances, speech, plan, device)
    handles = _drop_out(llm)
    learn.fit("llm", llm, lesson.loss, plan, directory, device)
    for handle in handles:
        handle.remove()
    return load(directory).to(device)


def load(directory: Path) -> nn.Module:
    """Upstream's plain module, on the CPU, in eval mode."""
    llm = bridge.new_llm(FAMILY, FAMILY.shape("tiny"))
    llm.load_state_dict(plain(learn.plain_weights(directory)))
    return llm.eval()


def plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The trained or the shipped state, tables in parts -> upstream's keys, sharp. The tied head is the embedding."""
    whole = codes.expand(state)
    for key in ("llm_decoder.weight", "llm_decoder.bias"):
        whole[key] = whole[key] * _SHARPNESS
    whole["llm.model.lm_head.weight"] = whole["llm.model.model.embed_tokens.weight"]
    return whole


class _Lesson:
    """The loss of a step: some utterances, plain or interleaved, alone or in pairs."""

    def __init__(
        self,
        llm: nn.Module,
        utterances: Sequence[Utterance],
        speech: Sequence[Renderings],
        plan: Plan,
        device: str,
    ) -> None:
        self._llm, self._plan, self._device = llm, plan, device
        self._text = [np.array(morae.encode(one.kana)) for one in utterances]
        self._speech = speech
        self._buckets = Buckets([len(one[0]) for one in speech], plan.batch)
        self._others: dict[str, list[int]] = {}
        for number, one in enumerate(utterances):
            self._others.setdefault(one.speaker, []).append(number)
        self._speakers = [one.speaker for one in utterances]

    def loss(self, step: int) -> tuple[Tensor, Mapping[str, Any]]:
        generator = learn.generator(self._plan.seed, step)
        chosen = self._buckets.draw(generator)
        coins = torch.rand((len(chosen), 3), generator=generator)
        is_joined = bool(torch.rand(1, generator=generator) < _JOINED)
        rows = list(zip(chosen.tolist(), coins.tolist(), strict=True))[:: 1 + is_joined]
        sequences = [self._sequence(row, is_joined, *drawn) for row, drawn in rows]
        batch = self._disturbed(batches.llm_batch(sequences).to(torch.device(self._device)), step)
        found = losses.llm_loss(self._llm, batch)
        assert found.correct is not None
        return found.total / batch.targets, {"accuracy": found.correct / batch.targets}

    def _sequence(self, row: int, is_joined: bool, partner: float, interleave: float, which: float) -> LlmSequence:
        text, speech = self._text[row], self._heard(row, which)
        if is_joined:
            others = self._others[self._speakers[row]]
            other = others[int(partner * len(others))]
            text = np.concatenate([text, self._text[other]])
            speech = np.concatenate([speech, self._heard(other, which)])
        if interleave < _INTERLEAVED and batches.may_interleave(len(text), len(speech), FAMILY):
            return batches.interleaved_sequence(text, speech, FAMILY)
        return batches.plain_sequence(text, speech, FAMILY)

    def _heard(self, row: int, which: float) -> NDArray[np.int64]:
        renderings = self._speech[row]
        return renderings[int(which * len(renderings))]

    def _disturbed(self, batch: LlmBatch, step: int) -> LlmBatch:
        generator = learn.generator(self._plan.seed, step, self._device)
        heard = codes.disturb(batch.token, _DISTURBED, generator)
        return replace(batch, token=torch.where(batch.kind == SPEECH, heard, batch.token))


def accuracy(llm: nn.Module, utterances: Sequence[Utterance], speech: Sequence[NDArray[np.int64]]) -> float:
    """The share of speech tokens (and ends) that the likeliest one is right for, given the ones before."""
    right = total = 0
    device = next(llm.parameters()).device
    with torch.inference_mode():
        for one, spoken in zip(utterances, speech, strict=True):
            sequence = batches.plain_sequence(np.array(morae.encode(one.kana)), spoken, FAMILY)
            batch = batches.llm_batch([sequence]).to(device)
            found = losses.llm_loss(llm, batch)
            assert found.correct is not None
            right, total = right + int(found.correct), total + batch.targets
    return right / total


def _drop_out(llm: Any) -> list[Any]:
    """Upstream's configuration of Qwen2 has no dropout, and a few thousand sentences want some."""

    def dropped(module: nn.Module, _: Any, output: Tensor) -> Tensor:
        return F.dropout(output, _DROPOUT, module.training)

    return [layer.mlp.register_forward_hook(dropped) for layer in llm.llm.model.model.layers]
