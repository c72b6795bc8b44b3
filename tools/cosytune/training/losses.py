"""A micro-batch -> the sum of its losses: upstream's losses over upstream's own modules.

A sum of `batch.targets` values, so that an update of several micro-batches is divided by the targets of all of them.
Every random draw comes with the batch. tests/unit/test_losses.py holds them against upstream's own `forward`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from cosytune.training.batches import SPEECH, TEXT, FlowBatch, LlmBatch


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
    hidden = decoder(inputs_embeds=embedded, use_cache=False).last_hidden_state
    logits = llm.llm_decoder(hidden.flatten(0, 1).index_select(0, batch.target_at))
    total = F.cross_entropy(logits.float(), batch.target, reduction="sum")
    return Loss(total, (logits.detach().argmax(dim=-1) == batch.target).sum())


def flow_loss(flow: Any, batch: FlowBatch) -> Loss:
    """Squared error of the flow: upstream's CausalMaskedDiffWithXvec.forward and ConditionalCFM.compute_loss."""
    cfm = flow.decoder
    heard = _until(batch.tokens, batch.token.shape[1]).unsqueeze(-1)
    token = flow.input_embedding(batch.token) * heard
    encoded, encoded_mask = flow.encoder(token, batch.tokens, streaming=batch.streaming)
    mu = flow.encoder_proj(encoded).transpose(1, 2)
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
    mask = encoded_mask.to(mu.dtype)
    predicted = cfm.estimator(
        noisy,
        mask,
        mu * guided.view(-1, 1, 1),
        time.view(-1),
        speaker * guided.view(-1, 1),
        prompt * guided.view(-1, 1, 1),
        streaming=batch.streaming,
    )
    return Loss(F.mse_loss(predicted.float() * mask, velocity * mask, reduction="sum"))


def _until(lengths: torch.Tensor, positions: int) -> torch.Tensor:
    """float32 [clips, positions]: 1 before each length, 0 from there on."""
    return (torch.arange(positions, device=lengths.device) < lengths.unsqueeze(1)).float()
