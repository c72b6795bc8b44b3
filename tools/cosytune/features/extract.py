"""Clips -> a value each (embedding or tokens): from the store where it is known, else computed; all are counted."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from cosytune import files
from cosytune.errors import UserError
from cosytune.features.speech import MIN_SAMPLES, MODEL_RATE_HZ
from cosytune.features.store import Store
from cosytune.kaldi import Utterance
from cosytune.progress import track


@dataclass(frozen=True)
class Clip:
    """One clip and the sha256 of its file: clips of the same content are asked about once."""

    utterance: Utterance
    digest: str

    @property
    def path(self) -> Path:
        return self.utterance.wav


class Unusable(Exception):  # noqa: N818  # a reason, not our mistake
    """What a model cannot say anything of; the message says why."""


Hear = Callable[[Clip], torch.Tensor]
"""A clip -> its sound, float32 [1, samples] at 16 kHz."""
Outcome = tuple[Clip, list[Any] | str]
"""A clip with its value, or with the reason why there is none."""
Compute = Callable[[Sequence[Clip]], Iterable[Outcome]]
"""The outcome of every clip, in any order, as it comes."""


def extract(utterances: Sequence[Utterance], store: Store, compute: Compute, label: str) -> dict[str, list[Any]]:
    """`{utt: value}` in the order of the utterances.

    Prints that clips = extracted + failed. Raises a UserError with a line for each clip that failed; what the others
    gave is kept for the next run.
    """
    clips = [Clip(one, files.sha256(one.wav)) for one in utterances]
    unknown = list({clip.digest: clip for clip in reversed(clips) if clip.digest not in store}.values())[::-1]
    failures: dict[str, str] = {}
    try:
        for clip, value in track(compute(unknown), label, len(unknown), "clip") if unknown else ():
            if isinstance(value, str):
                failures[clip.digest] = value
            else:
                store.add(clip.digest, value)
    finally:
        store.close({clip.digest for clip in clips})
    failed = [clip for clip in clips if clip.digest in failures]
    new = len(unknown) - len(failures)
    print(f"{len(clips)} clips = {len(clips) - len(failed)} {label} + {len(failed)} failed; {new} new, the rest known")
    if failed:
        remedy = "take the clip out of audio/ (or mend it) and run stage 0 (prepare) again: --stage 0"
        raise UserError(*(f"{clip.path}: '{clip.utterance.utt}' {failures[clip.digest]}; {remedy}" for clip in failed))
    return {clip.utterance.utt: store[clip.digest] for clip in clips}


def outcome(clip: Clip, work: Callable[[Clip], list[Any]]) -> Outcome:
    """`work(clip)`; what makes the clip unusable, or an answer that is no number, is the reason of its failure."""
    from onnxruntime.capi import onnxruntime_pybind11_state as onnx

    try:
        value = work(clip)
    except Unusable as reason:
        return clip, str(reason)
    except (onnx.Fail, onnx.InvalidArgument, onnx.RuntimeException) as failure:
        return clip, f"is refused by the model ({str(failure).splitlines()[0]})"
    if not all(map(math.isfinite, value)):
        return clip, "gives values that are no numbers (NaN or infinite)"
    return (clip, value) if value else (clip, "gives nothing")


def heard(clip: Clip, hear: Hear) -> torch.Tensor:
    """The clip's sound, if a model can say anything of it; else raises Unusable."""
    import soundfile

    try:
        sound = hear(clip)
    except soundfile.LibsndfileError as failure:
        raise Unusable(f"is not readable ({failure.error_string})") from None
    samples = sound.shape[1]
    if samples < MIN_SAMPLES:
        raise Unusable(f"is too short ({1000 * samples / MODEL_RATE_HZ:.1f} ms)")
    if not sound.isfinite().all():
        raise Unusable("holds samples that are no numbers (NaN or infinite)")
    if not sound.any():
        raise Unusable("is silent: every sample is 0")
    return sound


def one_by_one(clips: Sequence[Clip], work: Callable[[Clip], list[Any]], pool: ThreadPoolExecutor) -> Iterator[Outcome]:
    """Each clip for itself, as many at a time as the pool has threads (ONNX and torch leave Python's lock)."""
    yield from pool.map(lambda clip: outcome(clip, work), clips)


@contextmanager
def threads(count: int | Literal["auto"]) -> Iterator[ThreadPoolExecutor]:
    """So many threads, each on one core: torch's own would stand in each other's way. Ends without the clips left."""
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)) if count == "auto" else count)
    torch.set_num_threads(1)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)
