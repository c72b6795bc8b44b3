"""Samples at 16 kHz -> how probable speech is in every 32 ms (silero-vad) -> spans of speech."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cosytune.audio.span import Span

RATE_HZ = 16000
FRAME_SAMPLES = 512
FRAME_S = FRAME_SAMPLES / RATE_HZ

_CONTEXT_SAMPLES = 64  # the end of the frame before: the model reads 576 samples for every frame of 512
_BLOCK_FRAMES = 512  # 16 s a call: long enough to be fast, short enough to be nothing in memory
_HYSTERESIS = 0.15  # silero-vad's own: speech begins at the threshold and ends this far below it
_SHORTEST_PAUSE_S = 0.064  # silero-vad's 0.1 s hides pauses that the cutter wants to see
_SHORTEST_SPEECH_S = 0.1  # shorter: a click. silero-vad's 0.25 s swallows a quick "yes"


class SpeechDetector:
    """silero-vad's "sequence" model on one thread: one call for many frames instead of one for each."""

    def __init__(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(_model()), options, providers=["CPUExecutionProvider"])

    def probabilities(self, blocks: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
        """One recording at 16 kHz, in blocks [n] of any size -> probabilities float32 [frames], a frame every 32 ms.

        The last frame is filled up with silence. Memory does not grow with the recording, but for the result.
        """
        hidden = cell = np.zeros((1, 1, 128), np.float32)
        context = np.zeros(_CONTEXT_SAMPLES, np.float32)
        found: list[NDArray[np.float32]] = [np.zeros(0, np.float32)]
        for block in _whole_frames(blocks):
            padded = np.concatenate([context, block])
            windows = np.lib.stride_tricks.sliding_window_view(padded, _CONTEXT_SAMPLES + FRAME_SAMPLES)
            inputs = {"input": np.ascontiguousarray(windows[::FRAME_SAMPLES]), "h": hidden, "c": cell}
            speech, hidden, cell = self._session.run(["speech_probs", "hn", "cn"], inputs)
            context = padded[-_CONTEXT_SAMPLES:]
            found.append(speech.reshape(-1))
        return np.concatenate(found)


def frames_in(duration_s: float) -> int:
    """How many frames that much sound fills, the last one perhaps not to its end."""
    return math.ceil(round(duration_s * RATE_HZ) / FRAME_SAMPLES)


def speech_spans(probabilities: NDArray[np.float32], duration_s: float, threshold: float) -> list[Span]:
    """Probabilities [frames] -> spans of speech, in order; pauses of a tenth of a second are left visible.

    The rule is that of silero-vad's get_speech_timestamps: speech begins with a frame at the threshold, and ends with
    one below threshold - 0.15 if another such frame comes `_SHORTEST_PAUSE_S` later, before the next at the threshold.
    """
    is_speech = probabilities >= threshold
    is_silence = probabilities < max(threshold - _HYSTERESIS, 0.01)
    pause_frames = _SHORTEST_PAUSE_S / FRAME_S
    spans: list[tuple[int, int]] = []
    for start, end in _runs(is_speech, is_silence):
        if spans and not is_silence[spans[-1][1] : start][round(pause_frames) :].any():
            spans[-1] = spans[-1][0], end
        else:
            spans.append((start, end))
    if spans and not is_silence[spans[-1][1] :][round(pause_frames) :].any():
        spans[-1] = spans[-1][0], len(probabilities)
    found = [
        Span(start * FRAME_SAMPLES / RATE_HZ, min(end * FRAME_SAMPLES / RATE_HZ, duration_s)) for start, end in spans
    ]
    return [span for span in found if span.duration_s > _SHORTEST_SPEECH_S]


def _runs(is_speech: NDArray[np.bool_], is_silence: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """[start, end) of every run from a frame of speech up to one of silence; what is neither is as it was before."""
    decided = np.flatnonzero(is_speech | is_silence)
    active = np.concatenate([[False], is_speech[decided], [False]])
    changes = np.flatnonzero(active[1:] != active[:-1])
    frames = np.append(decided, len(is_speech))[changes]
    return [(int(start), int(end)) for start, end in frames.reshape(-1, 2)]


def _whole_frames(blocks: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """The same samples in blocks of whole frames, the last one filled up with zeros."""
    size = _BLOCK_FRAMES * FRAME_SAMPLES
    waiting = np.zeros(0, np.float32)
    for block in blocks:
        waiting = np.concatenate([waiting, block])
        whole = len(waiting) - len(waiting) % size
        yield from waiting[:whole].reshape(-1, size)
        waiting = waiting[whole:]
    if len(waiting):
        yield np.pad(waiting, (0, -len(waiting) % FRAME_SAMPLES))


def _model() -> Path:
    """The model in the package silero-vad, found without importing that: its import brings torch into every process."""
    package = importlib.util.find_spec("silero_vad")
    assert package is not None and package.submodule_search_locations is not None
    return Path(package.submodule_search_locations[0]) / "data" / "silero_vad_16k_sequence.onnx"
