"""An untrained LLM -> the same with a bias on its end-of-speech row, so that it stops after about 75 tokens.

The model speaks some sentences with stopping switched off. For every step the chance that upstream's sampling
(nucleus of 25 and 0.8, then a free draw when the token occurred among the last 10) would have stopped is a formula of
the bias; the bias that gives the wanted mean is found by halving.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

_WANTED_TOKENS = 75
_MIN_RATIO = 2
"""Speech tokens per text token before which upstream's `inference` does not let the model stop."""
_TOP_K, _TOP_P, _WINDOW = 25, 0.8, 10
_OFF = -1e4


@dataclass(frozen=True)
class _Steps:
    """What was seen while decoding S steps. `best`: logits of the 25 likeliest tokens [S, 25], descending."""

    best: torch.Tensor
    repeated: torch.Tensor
    """Which of them occurred among the last 10 tokens, bool [S, 25]."""
    rest: torch.Tensor
    """Log of the summed exponentials of all logits but the end's [S]."""
    end: torch.Tensor
    """The end-of-speech logit without its bias [S]."""


def calibrate(llm: Any, texts: Sequence[list[int]], end_token: int, count: int, steps_each: int) -> None:
    """Set `llm.llm_decoder.bias[end_token]`; torch's generator decides what is spoken.

    `texts`: text tokens of sentences, of which `count` of middle length are spoken for `steps_each` tokens.
    """
    start = (len(texts) - count) // 2
    chosen = sorted(texts, key=len)[start : start + count]
    steps = _decode(llm, chosen, end_token, steps_each)
    mean_length = sum(len(text) for text in chosen) / len(chosen)
    wanted = 1 / (_WANTED_TOKENS - _MIN_RATIO * mean_length)
    low, high = -100.0, 100.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if float(_chance(steps, middle).mean()) < wanted else (low, middle)
    with torch.no_grad():
        llm.llm_decoder.bias[end_token] = round(low, 2)  # so that the last bits of a float cannot show in the file


def _decode(llm: Any, texts: Sequence[list[int]], end_token: int, steps_each: int) -> _Steps:
    """Let the model speak `steps_each` tokens for every text, unable to stop, and note what it chose from."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def note(module: Any, arguments: tuple[torch.Tensor], logits: torch.Tensor) -> None:
        seen.append((logits[0].clone(), arguments[0][0] @ module.weight[end_token]))

    with torch.no_grad():
        llm.llm_decoder.bias[end_token:] = _OFF
    handle = llm.llm_decoder.register_forward_hook(note)
    rows = []
    for text in texts:
        start = len(seen)
        tokens = list(_speak(llm, text, steps_each))
        for step, (logits, end) in enumerate(seen[start:]):
            best = logits.topk(_TOP_K)
            recent = torch.tensor(tokens[max(0, step - _WINDOW) : step], dtype=torch.long)
            rows.append((best.values, torch.isin(best.indices, recent), logits.logsumexp(0), end))
    handle.remove()
    with torch.no_grad():
        llm.llm_decoder.bias[end_token:] = 0.0
    best_logits, repeated, rest, ends = (torch.stack(column) for column in zip(*rows, strict=True))
    return _Steps(best_logits.double(), repeated, rest.double(), ends.double())


def _speak(llm: Any, text: list[int], steps: int) -> Iterator[int]:
    nothing, zero = torch.zeros(1, 0, dtype=torch.int32), torch.tensor([0], dtype=torch.int32)
    length = torch.tensor([len(text)], dtype=torch.int32)
    ratio = (steps + 0.5) / len(text)  # upstream rounds the product of it and the length down
    yield from llm.inference(
        torch.tensor([text]), length, nothing, zero, nothing, zero, None, max_token_text_ratio=ratio
    )


def _chance(steps: _Steps, bias: float) -> torch.Tensor:
    """The chance of stopping at every step [S], were the bias this."""
    end = torch.sigmoid(steps.end + bias - steps.rest).unsqueeze(1)
    others = (steps.best - steps.rest.unsqueeze(1)).exp() * (1 - end)
    before = others.cumsum(dim=1) - others
    likelier = others >= end
    reach = before + torch.where(likelier, 0.0, end)  # summed probability of all that is likelier than a token
    rank = torch.arange(_TOP_K) + (~likelier).long()
    kept = torch.where((reach < _TOP_P) & (rank < _TOP_K), others, 0.0)
    end_reach = torch.where(likelier, others, 0.0).sum(dim=1, keepdim=True)
    end_kept = torch.where((end_reach < _TOP_P) & (likelier.sum(dim=1, keepdim=True) < _TOP_K), end, 0.0)
    total = kept.sum(dim=1, keepdim=True) + end_kept
    redrawn = torch.where(steps.repeated, kept, 0.0).sum(dim=1, keepdim=True)
    return ((end_kept + redrawn * end) / total).squeeze(1)
