"""A micro-batch -> the sum of its losses: upstream's losses over upstream's own modules.

A sum of `batch.targets` values, so that an update of several micro-batches is divided by the targets of all of them.
Every random draw comes with the batch. tests/unit/test_losses.py holds them against upstream's own `forward`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from cosytune.training.batches import SPEECH, TEXT, FlowBatch, LlmBatch
from cosytune.upstream import bridge

_CHUNK = 1024
"""Targets whose logits are in memory at once: 27 MB in fp32."""


class Loss(NamedTuple):
    """Of one micro-batch, on its device. total: the sum over its targets. correct: how many tokens the most probable
    one was the right one for; None where nothing is told apart (flow).
    """

    total: torch.Tensor
    correct: torch.Tensor | None = None


def llm_loss(llm: Any, batch: LlmBatch) -> Loss:
    """Cross-entropy of the predicted speech tokens: upstream's Qwen2LM.forward without label smoothing.

    Upstream also computes the logits of the whole text vocabulary, and those of the speech tokens at every position;
    neither enters the loss.
    """
    decoder = llm.llm.model.model
    zero = torch.zeros_like(batch.token)
    is_text, is_speech = batch.kind == TEXT, batch.kind == SPEECH
    embedded = torch.where(
        is_text.unsqueeze(-1),
        decoder.embed_tokens(torch.where(is_text, batch.token, zero)),
        torch.where(
            is_speech.unsqueeze(-1),
            llm.speech_embedding(torch.where(is_speech, batch.token, zero)),
            llm.llm_embedding(torch.where(is_text | is_speech, zero, batch.token)),
        ),
    )
    # fp32 where the tables are in half precision: what each layer adds to is kept exact, and its norms save it in fp32
    hidden = decoder(inputs_embeds=embedded.float(), use_cache=False).last_hidden_state
    return _predicted(llm.llm_decoder, hidden.flatten(0, 1).index_select(0, batch.target_at), batch.target)


def _predicted(head: nn.Module, hidden: torch.Tensor, target: torch.Tensor) -> Loss:
    """Cross-entropy of the head's logits in chunks, which the backward pass computes again.

    hidden: [targets, hidden size]; target: int64 [targets]. Logits, their softmax and its gradient are 79 KB a target
    in fp32, the hidden state is 4 KB or less; computing the logits costs 1 % of a forward pass.
    """
    total, correct = hidden.new_zeros((), dtype=torch.float32), target.new_zeros(())
    for part, wanted in zip(hidden.split(_CHUNK), target.split(_CHUNK), strict=True):
        loss, right = checkpoint(_cross_entropy, head, part, wanted, use_reentrant=False)
        total, correct = total + loss, correct + right
    return Loss(total, correct)


def _cross_entropy(head: nn.Module, hidden: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logits = head(hidden)
    loss = F.cross_entropy(logits.float(), target, reduction="sum")
    return loss, (logits.detach().argmax(dim=-1) == target).sum()


def flow_loss(flow: Any, batch: FlowBatch) -> Loss:
    """Squared error of the flow: upstream's CausalMaskedDiffWithXvec.forward and ConditionalCFM.compute_loss."""
    with bridge.shared_masks(_heads(flow), batch.is_even):
        return _flow_loss(flow, batch)


def _flow_loss(flow: Any, batch: FlowBatch) -> Loss:
    heard = _until(batch.tokens, batch.token.shape[1]).unsqueeze(-1)
    token = flow.input_embedding(batch.token) * heard
    encoded, mask = flow.encoder(token, batch.tokens, streaming=batch.streaming)
    return _matching_loss(flow, batch, flow.encoder_proj(encoded).transpose(1, 2), mask)


def flow_matching_loss(flow: Any, batch: FlowBatch, mu: torch.Tensor) -> Loss:
    """The same for an encoder that has spoken already. mu: float32 [clips, 80, frames], what it made of the tokens."""
    mask = _until(batch.tokens * (mu.shape[2] // batch.token.shape[1]), mu.shape[2]).bool().unsqueeze(1)
    with bridge.shared_masks(_heads(flow), batch.is_even):
        return _matching_loss(flow, batch, mu, mask)


def _matching_loss(flow: Any, batch: FlowBatch, mu: torch.Tensor, mask: torch.Tensor) -> Loss:
    cfm = flow.decoder
    speaker = flow.spk_embed_affine_layer(F.normalize(batch.embedding, dim=1))
    mel = batch.mel.transpose(1, 2)
    prompt = mel * _until(batch.prompt_frames, mel.shape[2]).unsqueeze(1)

    time = batch.time.view(-1, 1, 1)
    if cfm.t_scheduler == "cosine":
        time = 1 - torch.cos(time * 0.5 * torch.pi)
    noise = batch.noise.transpose(1, 2)
    noisy = (1 - (1 - cfm.sigma_min) * time) * noise + time * mel
    velocity = mel - (1 - cfm.sigma_min) * noise

    guided = batch.guided.to(mu.dtype)
    predicted = cfm.estimator(
        noisy,
        mask,  # bool: `mask.bool()` of every block is this very tensor, whose bias is made once
        mu * guided.view(-1, 1, 1),
        time.view(-1),
        speaker * guided.view(-1, 1),
        prompt * guided.view(-1, 1, 1),
        streaming=batch.streaming,
    )
    return Loss(F.mse_loss(predicted.float() * mask, velocity * mask, reduction="sum"))


def _heads(flow: Any) -> int:
    """Of the attention in the estimator's blocks."""
    heads: int = flow.decoder.estimator.mid_blocks[0][1][0].attn1.heads
    return heads


def _until(lengths: torch.Tensor, positions: int) -> torch.Tensor:
    """float32 [clips, positions]: 1 before each length, 0 from there on."""
    return (torch.arange(positions, device=lengths.device) < lengths.unsqueeze(1)).float()
