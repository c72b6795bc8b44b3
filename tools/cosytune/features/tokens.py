"""Clips -> speech tokens: on a CPU by parallel runs of the ONNX graph, on a GPU in batches by S3Tokenizer in torch.

Both give what the graph gives of one clip at a time. The batches prove it: three clips of every run are asked of both,
and so is every part of a clip in which a coordinate lies at the edge between two levels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from cosytune.features import batched, extract, onnx, speech
from cosytune.features.extract import Clip, Hear, Outcome

BATCH_DURATION_S = 300.0
"""Of one batch with its padding: 7,500 tokens."""
_FEWEST = 16
"""Clips for which the network is made in torch: for fewer, that takes longer than the graph does."""


def tokenize(
    model: Path, provider: onnx.Provider, hear: Hear, clips: Sequence[Clip], pool: ThreadPoolExecutor
) -> Iterator[Outcome]:
    """The tokens of each clip, 25 a second."""
    session = onnx.open_session(model, provider, threads=1)
    network, device = None, _card(session)
    if device is not None and len(clips) >= _FEWEST:
        network = batched.load(model, device)
        if network is None:
            print(f"{model.name}: not the architecture that S3Tokenizer knows; one clip at a time")
    if network is not None and proven(network, session, hear, clips):
        print(f"s3tokenizer: torch on {network.device}")
        return in_batches(network, session, hear, clips, pool)
    return extract.one_by_one(clips, lambda clip: speech.speech_tokens(session, extract.heard(clip, hear)), pool)


def _card(session: Any) -> torch.device | None:
    """The GPU that the session got; None for a CPU, which S3Tokenizer would not speed up."""
    got_one = session.get_providers()[0] == "CUDAExecutionProvider"
    return torch.device("cuda", torch.cuda.current_device()) if got_one else None


def proven(network: batched.Tokenizer, session: Any, hear: Hear, clips: Sequence[Clip]) -> bool:
    """Whether the shortest, the middle and the longest clip, as one batch, get the tokens that the graph gives."""
    ordered = sorted(clips, key=_duration_s)
    sample = [_parts(clip, hear) for clip in (ordered[0], ordered[len(ordered) // 2], ordered[-1])]
    parts = [(clip, part) for clip, parts in sample if not isinstance(parts, str) for part in parts]
    for (clip, part), said in zip(parts, network.tokens([part for _, part in parts]), strict=True):
        graph = speech.window_tokens(session, part)
        pairs = zip(said.ids, graph, said.sure, strict=True)
        if wrong := sum(one != other for one, other, sure in pairs if sure):
            name = clip.utterance.utt
            print(f"s3tokenizer: {wrong} of {len(graph)} tokens of '{name}' are not the graph's; one clip at a time")
            return False
    return True


def in_batches(
    network: batched.Tokenizer, session: Any, hear: Hear, clips: Sequence[Clip], pool: ThreadPoolExecutor
) -> Iterator[Outcome]:
    """Batches of clips of about one length; the next one is heard while the card works on this one."""
    waiting: deque[list[Future[tuple[Clip, list[torch.Tensor] | str]]]] = deque()
    for batch in batches(clips):
        waiting.append([pool.submit(_parts, clip, hear) for clip in batch])
        if len(waiting) > 1:
            yield from _finish(network, session, [future.result() for future in waiting.popleft()])
    for futures in waiting:
        yield from _finish(network, session, [future.result() for future in futures])


def batches(clips: Sequence[Clip], limit_s: float = BATCH_DURATION_S) -> Iterator[list[Clip]]:
    """Longest first, so that memory that does not suffice shows at once; number x longest stays within the limit."""
    ordered = sorted(clips, key=_duration_s, reverse=True)
    start = 0
    while start < len(ordered):
        count = max(1, int(limit_s / max(_duration_s(ordered[start]), 0.1)))
        yield ordered[start : start + count]
        start += count


def _finish(
    network: batched.Tokenizer, session: Any, heard: Sequence[tuple[Clip, list[torch.Tensor] | str]]
) -> Iterator[Outcome]:
    said = iter(network.tokens([part for _, parts in heard if not isinstance(parts, str) for part in parts]))
    for clip, parts in heard:
        if isinstance(parts, str):
            yield clip, parts
            continue
        answers = [(part, next(said)) for part in parts]
        ids = [one.ids if all(one.sure) else speech.window_tokens(session, part) for part, one in answers]
        yield clip, speech.join(ids)


def _parts(clip: Clip, hear: Hear) -> tuple[Clip, list[torch.Tensor] | str]:
    """The clip's mel in parts of at most 30 s, or why there is none."""
    try:
        return clip, speech.windows(speech.log_mel(extract.heard(clip, hear)))
    except extract.Unusable as reason:
        return clip, str(reason)


def _duration_s(clip: Clip) -> float:
    return clip.utterance.duration_s
