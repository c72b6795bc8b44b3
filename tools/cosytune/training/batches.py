"""Clips and their draws -> the padded tensors of one micro-batch, for the LLM and for the flow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from cosytune.families import Family
from cosytune.features.cache import Clip
from cosytune.training.draws import FlowDraw

IGNORED = -1
"""Upstream's IGNORE_ID: nothing is predicted here."""
SPECIAL, TEXT, SPEECH = range(3)
"""Which table embeds a position of an LLM sequence."""
_SOS, _TASK = 0, 1
"""Rows of upstream's `llm_embedding`."""
_END, _FILL = 0, 2
"""Beyond the codes of the speech tokenizer: end of speech, and `now text again` of an interleaved sequence."""

Tokens = Sequence[int] | NDArray[np.integer]


class Batch(Protocol):
    """What the training loop needs to know of a micro-batch."""

    @property
    def targets(self) -> int: ...

    def to(self, device: torch.device) -> Self: ...


@dataclass(frozen=True)
class LlmSequence:
    """Inputs and targets of one clip, int64 [positions] each: kind (SPECIAL, TEXT, SPEECH), id, target or IGNORED."""

    kinds: NDArray[np.int64]
    tokens: NDArray[np.int64]
    targets: NDArray[np.int64]


@dataclass(frozen=True)
class LlmBatch:
    """Right-padded sequences.

    kind, token: int64 [clips, positions]. target_at, target: int64 [targets], the flattened places that predict a
    token, and the tokens.
    """

    kind: torch.Tensor
    token: torch.Tensor
    target_at: torch.Tensor
    target: torch.Tensor

    @property
    def targets(self) -> int:
        """Tokens that are predicted."""
        return self.target.numel()

    def to(self, device: torch.device) -> LlmBatch:
        return LlmBatch(**{name: tensor.to(device, non_blocking=True) for name, tensor in vars(self).items()})


@dataclass(frozen=True)
class FlowBatch:
    """Right-padded clips with their draws; `streaming` holds for all of them.

    lengths: the tokens of each clip once more, for the host, which must not wait for the device to tell.
    token: int64 [clips, tokens]; tokens: int64 [clips]; mel, noise: float32 [clips, 2 * tokens, 80]; embedding:
    float32 [clips, 192]; prompt_frames: int64 [clips]; time: float32 [clips], 0 to 1; guided: bool [clips].
    """

    streaming: bool
    lengths: tuple[int, ...]
    token: torch.Tensor
    tokens: torch.Tensor
    mel: torch.Tensor
    noise: torch.Tensor
    embedding: torch.Tensor
    prompt_frames: torch.Tensor
    time: torch.Tensor
    guided: torch.Tensor

    @property
    def targets(self) -> int:
        """Mel values that are predicted, padding left out."""
        frames_per_token = self.mel.shape[1] // self.token.shape[1]
        return sum(self.lengths) * frames_per_token * self.mel.shape[2]

    @property
    def is_even(self) -> bool:
        """All clips have one length: there is no padding."""
        return len(set(self.lengths)) == 1

    def to(self, device: torch.device) -> FlowBatch:
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)}
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}
        return FlowBatch(streaming=self.streaming, lengths=self.lengths, **moved)


def may_interleave(text: int, speech: int, family: Family) -> bool:
    """Whether a clip of so many tokens has the speech for every turn (upstream: more than 3 per text token)."""
    text_turn, speech_turn = family.mix_ratio
    return speech * text_turn > text * speech_turn


def plain_sequence(text: Tokens, speech: Tokens, family: Family) -> LlmSequence:
    """sos, text, task, speech; what is predicted is the speech and its end."""
    spoken = 2 + len(text)
    kinds, tokens, targets = (np.full(spoken + len(speech), value) for value in (SPECIAL, _SOS, IGNORED))
    kinds[1 : spoken - 1], kinds[spoken:] = TEXT, SPEECH
    tokens[1 : spoken - 1], tokens[spoken - 1], tokens[spoken:] = text, _TASK, speech
    targets[spoken - 1 : -1], targets[-1] = speech, family.speech_token_size + _END
    return LlmSequence(kinds, tokens, targets)


def interleaved_sequence(text: Tokens, speech: Tokens, family: Family) -> LlmSequence:
    """Turns of 5 text and 15 speech tokens, then the rest; as upstream's Qwen2LM.prepare_lm_input_target."""
    text_turn, speech_turn = family.mix_ratio
    turns = len(text) // text_turn
    read, heard = turns * text_turn, turns * speech_turn
    read_turns = np.reshape(text[:read], (turns, text_turn))
    heard_turns = np.reshape(speech[:heard], (turns, speech_turn))
    kinds, tokens, targets = (np.full((turns, text_turn + speech_turn), value) for value in (TEXT, _SOS, IGNORED))
    kinds[:, text_turn:] = SPEECH
    tokens[:, :text_turn], tokens[:, text_turn:] = read_turns, heard_turns
    targets[:, text_turn - 1 : -1], targets[:, -1] = heard_turns, family.speech_token_size + _FILL
    rest = plain_sequence(text[read:], speech[heard:], family)

    def between(first: int, turned: NDArray[np.int64], then: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.concatenate([[first], turned.reshape(-1), then[1:]])  # one sos for both

    return LlmSequence(
        kinds=between(SPECIAL, kinds, rest.kinds),
        tokens=between(_SOS, tokens, rest.tokens),
        targets=between(IGNORED, targets, rest.targets),
    )


def llm_batch(sequences: Sequence[LlmSequence]) -> LlmBatch:
    """Pad with sos: rows are causal, so no position that counts sees what comes after it."""
    positions = max(len(sequence.tokens) for sequence in sequences)
    kind = np.full((len(sequences), positions), SPECIAL)
    token = np.full((len(sequences), positions), _SOS)
    target = np.full((len(sequences), positions), IGNORED)
    for row, sequence in enumerate(sequences):
        kind[row, : len(sequence.kinds)] = sequence.kinds
        token[row, : len(sequence.tokens)] = sequence.tokens
        target[row, : len(sequence.targets)] = sequence.targets
    flat = target.reshape(-1)
    target_at = np.flatnonzero(flat != IGNORED)
    return LlmBatch(*(torch.from_numpy(array) for array in (kind, token, target_at, flat[target_at])))


def flow_batch(clips: Sequence[Clip], draws: Sequence[FlowDraw], streaming: bool) -> FlowBatch:
    """Pad with zeros, as upstream's pad_sequence does."""
    lengths = [len(clip.speech_token) for clip in clips]
    frames, num_mels = max(len(clip.mel) for clip in clips), clips[0].mel.shape[1]
    token = np.zeros((len(clips), max(lengths)), dtype=np.int64)
    mel, noise = (np.zeros((len(clips), frames, num_mels), dtype=np.float32) for _ in range(2))
    for row, (clip, draw) in enumerate(zip(clips, draws, strict=True)):
        token[row, : len(clip.speech_token)] = clip.speech_token
        mel[row, : len(clip.mel)] = clip.mel
        noise[row, : len(draw.noise)] = draw.noise
    return FlowBatch(
        streaming=streaming,
        lengths=tuple(lengths),
        token=torch.from_numpy(token),
        tokens=torch.tensor(lengths),
        mel=torch.from_numpy(mel),
        noise=torch.from_numpy(noise),
        embedding=torch.from_numpy(np.stack([clip.spk_embedding for clip in clips])),
        prompt_frames=torch.tensor([draw.prompt_frames for draw in draws]),
        time=torch.tensor([draw.time for draw in draws], dtype=torch.float32),
        guided=torch.tensor([draw.guided for draw in draws]),
    )
