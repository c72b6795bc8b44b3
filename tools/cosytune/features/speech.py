"""Clips -> what upstream's two ONNX models say of them: a speaker embedding each, and speech tokens.

The arithmetic before the models is upstream's (`tools/extract_embedding.py`, `tools/extract_speech_token.py` and
`cli/frontend.py` at 6e01309), so that training sees what synthesis will see; tested against `CosyVoiceFrontEnd`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from cosytune.kaldi import Utterance
from cosytune.progress import track

MODEL_RATE_HZ = 16000
MAX_TOKEN_DURATION_S = 30.0
"""Upstream's speech tokenizer takes no more; longer clips get no tokens and are dropped, counted, by stage 3."""

Value = TypeVar("Value")


def read_16k(path: Path) -> torch.Tensor:
    """A mono clip -> float32 [1, samples] at 16 kHz."""
    import soundfile
    import torchaudio

    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    mono = torch.from_numpy(samples.mean(axis=1, keepdims=True).T.copy())
    if rate_hz == MODEL_RATE_HZ:
        return mono
    resampled: torch.Tensor = torchaudio.transforms.Resample(rate_hz, MODEL_RATE_HZ)(mono)
    return resampled


def speaker_embedding(session: Any, speech: torch.Tensor) -> list[float]:
    """float32 [1, samples] at 16 kHz -> 192 numbers: CAM++ over 80-bin filter banks, mean removed."""
    from torchaudio.compliance import kaldi

    banks = kaldi.fbank(speech, num_mel_bins=80, dither=0, sample_frequency=MODEL_RATE_HZ)
    banks = banks - banks.mean(dim=0, keepdim=True)
    output = session.run(None, {session.get_inputs()[0].name: banks.unsqueeze(0).numpy()})[0]
    return [float(value) for value in output.flatten()]


def speech_tokens(session: Any, speech: torch.Tensor) -> list[int]:
    """float32 [1, samples] at 16 kHz -> 25 tokens a second; empty beyond MAX_TOKEN_DURATION_S."""
    import whisper

    if speech.shape[1] / MODEL_RATE_HZ > MAX_TOKEN_DURATION_S:
        return []
    mel = whisper.log_mel_spectrogram(speech, n_mels=128).numpy()
    features, length = (node.name for node in session.get_inputs())
    output = session.run(None, {features: mel, length: np.array([mel.shape[2]], dtype=np.int32)})[0]
    return [int(value) for value in output.flatten()]


def for_each(
    utterances: Sequence[Utterance], compute: Callable[[torch.Tensor], Value], label: str, threads: int
) -> dict[str, Value]:
    """`compute` over the clips' sound, `threads` at a time (ONNX and resampling leave Python's lock); by id."""
    with ThreadPoolExecutor(threads) as pool:
        results = pool.map(lambda utterance: compute(read_16k(utterance.wav)), utterances)
        values = list(track(results, label, total=len(utterances), unit="clip"))
    return {utterance.utt: value for utterance, value in zip(utterances, values, strict=True)}


def speaker_means(embeddings: dict[str, list[float]], utterances: Sequence[Utterance]) -> dict[str, list[float]]:
    """The mean embedding of each speaker, un-normalised, as upstream's spk2embedding has it."""
    by_speaker: dict[str, list[list[float]]] = {}
    for utterance in utterances:
        by_speaker.setdefault(utterance.speaker, []).append(embeddings[utterance.utt])
    return {speaker: torch.tensor(rows).mean(dim=0).tolist() for speaker, rows in by_speaker.items()}
