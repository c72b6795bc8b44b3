"""Sound -> what upstream's two ONNX models say of it: a speaker embedding, and speech tokens.

The arithmetic before the models is upstream's (`tools/extract_embedding.py`, `tools/extract_speech_token.py` and
`cli/frontend.py` at 6e01309), so that training sees what synthesis will see; tested against `CosyVoiceFrontEnd`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from cosytune.features.sound import MODEL_RATE_HZ, read_16k
from cosytune.kaldi import Utterance

__all__ = ["MODEL_RATE_HZ", "join", "log_mel", "read_16k", "speaker_embedding", "speaker_means", "speech_tokens"]

MIN_SAMPLES = 400
"""25 ms: the first window of the filter banks."""
WINDOW_FRAMES, OVERLAP_FRAMES = 3000, 400
"""30 s of mel, all that the speech tokenizer takes, and 4 s: S3Tokenizer's numbers for longer sound."""
_FRAMES_PER_TOKEN = 4


def speaker_embedding(session: Any, speech: torch.Tensor) -> list[float]:
    """float32 [1, samples] at 16 kHz -> 192 numbers: CAM++ over 80-bin filter banks, mean removed."""
    from torchaudio.compliance import kaldi

    banks = kaldi.fbank(speech, num_mel_bins=80, dither=0, sample_frequency=MODEL_RATE_HZ)
    banks = banks - banks.mean(dim=0, keepdim=True)
    output = session.run(None, {session.get_inputs()[0].name: banks.unsqueeze(0).numpy()})[0]
    return [float(value) for value in output.flatten()]


def log_mel(speech: torch.Tensor) -> torch.Tensor:
    """float32 [1, samples] at 16 kHz -> Whisper's log-mel, float32 [128, frames], 100 frames/s.

    S3Tokenizer's function, the same bits as Whisper's own, whose package takes a second to import.
    """
    from s3tokenizer.utils import log_mel_spectrogram

    mel: torch.Tensor = log_mel_spectrogram(speech, n_mels=128)
    return mel[0]


def windows(mel: torch.Tensor) -> list[torch.Tensor]:
    """float32 [128, frames] -> parts of at most 30 s that overlap by 4 s; the last one is longer than the overlap."""
    frames, stride = mel.shape[1], WINDOW_FRAMES - OVERLAP_FRAMES
    starts = range(0, max(frames - OVERLAP_FRAMES, 1), stride)
    return [mel[:, start : start + WINDOW_FRAMES] for start in starts]


def join(parts: Sequence[list[int]]) -> list[int]:
    """The tokens of `windows` -> those of the whole, ceil(frames / 4): each cut lies in the middle of an overlap."""
    half = OVERLAP_FRAMES // _FRAMES_PER_TOKEN // 2
    last = len(parts) - 1
    return [
        token
        for number, part in enumerate(parts)
        for token in part[half * (number > 0) : len(part) - half * (number < last)]
    ]


def window_tokens(session: Any, mel: torch.Tensor) -> list[int]:
    """float32 [128, at most 3000 frames] -> its tokens, by the ONNX graph, which takes one clip at a time."""
    features, length = (node.name for node in session.get_inputs())
    feeds = {features: mel[None].numpy(), length: np.array([mel.shape[1]], dtype=np.int32)}
    return [int(value) for value in session.run(None, feeds)[0].flatten()]


def speech_tokens(session: Any, speech: torch.Tensor) -> list[int]:
    """float32 [1, samples] at 16 kHz -> 25 tokens a second, of sound beyond 30 s too (upstream gives none)."""
    return join([window_tokens(session, part) for part in windows(log_mel(speech))])


def speaker_means(embeddings: Mapping[str, list[float]], utterances: Sequence[Utterance]) -> dict[str, list[float]]:
    """The mean embedding of each speaker, un-normalised, as upstream's spk2embedding has it."""
    by_speaker: dict[str, list[list[float]]] = {}
    for utterance in utterances:
        by_speaker.setdefault(utterance.speaker, []).append(embeddings[utterance.utt])
    return {speaker: torch.tensor(rows).mean(dim=0).tolist() for speaker, rows in by_speaker.items()}
