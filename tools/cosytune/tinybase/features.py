"""The corpus -> its spectrograms, end to end in one tensor each, on the device that trains.

Whisper's log-mel (100 frames/s) is what the speech tokenizer hears, Matcha's (50 frames/s) what the flow predicts. All
are cut to whole speech tokens (25 a second), so that the token at `i` belongs to the frames from `4 i` and `2 i`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torchaudio
from numpy.typing import NDArray
from torch import Tensor

from cosytune import families
from cosytune.features.sound import MODEL_RATE_HZ
from cosytune.features.speech import log_mel
from cosytune.progress import track
from cosytune.tinybase.corpus import Corpus, Utterance
from cosytune.tinybase.voices import RATE_HZ
from cosytune.upstream import bridge

FAMILY = families.get("cosyvoice2-0.5b")
WHISPER_PER_TOKEN = MODEL_RATE_HZ // 160 // FAMILY.token_rate_hz
MEL_PER_TOKEN = FAMILY.token_mel_ratio


@dataclass(frozen=True)
class Features:
    """Of all utterances in a row. whisper: float16 [4 * tokens, 128]; mel: float16 [2 * tokens, 80].

    starts, lengths: int64 [utterances], in tokens.
    """

    whisper: Tensor
    mel: Tensor
    starts: Tensor
    lengths: Tensor


def extract(corpus: Corpus, utterances: Sequence[Utterance], device: str, voice: str = "own") -> Features:
    """Of the utterances in the speakers' own voices, or all in the `canonical` one."""
    hear = corpus.sound if voice == "own" else corpus.canonical
    to_16k = torchaudio.transforms.Resample(RATE_HZ, MODEL_RATE_HZ).to(device)
    to_mel = bridge.mel_extractor(FAMILY)
    whisper, mel, lengths = [], [], []
    for utterance in track(utterances, f"spectrograms ({voice})", unit="clip"):
        sound = torch.from_numpy(hear(utterance).astype(np.float32) / 32768).to(device)
        heard, spoken = log_mel(to_16k(sound[None])).T, to_mel(sound)
        tokens = min(-(-len(heard) // WHISPER_PER_TOKEN), len(spoken) // MEL_PER_TOKEN)
        whisper.append(_fill(heard, WHISPER_PER_TOKEN * tokens).half())
        mel.append(spoken[: MEL_PER_TOKEN * tokens].half())
        lengths.append(tokens)
    counts = torch.tensor(lengths, device=device)
    return Features(torch.cat(whisper), torch.cat(mel), counts.cumsum(0) - counts, counts)


def _fill(frames: Tensor, wanted: int) -> Tensor:
    """Exactly `wanted` frames; the tokenizer's stride reads a few beyond the last one."""
    missing = wanted - len(frames)
    return torch.cat([frames, frames[-1:].expand(missing, -1)]) if missing > 0 else frames[:wanted]


class Buckets:
    """Batches of utterances of about one length, drawn from a generator: little padding, every one about as often."""

    def __init__(self, lengths: Sequence[int], batch: int, spread: int = 8) -> None:
        self._lengths = np.asarray(lengths)
        self._batch, self._spread = min(batch, len(lengths)), spread

    def draw(self, generator: torch.Generator) -> NDArray[np.int64]:
        """The indices of one batch: some are drawn, and of those in order of length a run is taken."""
        count = min(self._batch * self._spread, len(self._lengths))
        drawn = torch.randperm(len(self._lengths), generator=generator)[:count].numpy()
        ordered = drawn[np.argsort(self._lengths[drawn], kind="stable")]
        start = int(torch.randint(0, count - self._batch + 1, (1,), generator=generator))
        return np.asarray(ordered[start : start + self._batch])


def gather(flat: Tensor, starts: Tensor, positions: int, per_token: int = 1) -> Tensor:
    """From each start (in tokens) on: flat [all, ...] -> [rows, positions * per_token, ...].

    Rows run on into the next utterance instead of padding: the caller masks what is beyond.
    """
    offsets = torch.arange(positions * per_token, device=flat.device)
    places = (starts * per_token).unsqueeze(1) + offsets
    return flat[places.clamp_(max=len(flat) - 1)]


def of_one_length(starts: Tensor, lengths: Tensor, rows: int = 64) -> Iterator[tuple[Tensor, int]]:
    """All utterances in batches without padding, which would be heard near the ends: the starts, and their length."""
    for length in lengths.unique().tolist():
        for some in starts[lengths == length].split(rows):
            yield some, length


def inside(lengths: Tensor, positions: int) -> Tensor:
    """Which positions, bool [rows, positions], belong to the row's own utterance."""
    return torch.arange(positions, device=lengths.device) < lengths.unsqueeze(1)
