"""Lengths -> clips as stages 0 to 3 leave them: upstream's parquet and data.list, our features.arrow, a text tokenizer.

The sound is noise and the tokens are random: neither changes what a step costs. The prose is our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from cosytune.base import text
from cosytune.families import Family
from cosytune.features import cache, parquet
from cosytune.features.cache import FeatureCache
from cosytune.kaldi import Utterance
from cosytune.training import plan
from cosytune.upstream import bridge

_LETTERS_PER_S = 7
"""Of Japanese as it is spoken; with our tokenizer more than 3 speech tokens for each text token, as usual."""


@dataclass(frozen=True)
class Corpus:
    """data_list: parquet for upstream. tokenizer: the directory that upstream's pipeline reads text with."""

    data_list: Path
    tokenizer: Path
    features: FeatureCache

    @property
    def tokens(self) -> int:
        """Text and speech tokens of all clips."""
        return sum(length.text + length.speech for length in self.features.lengths)


def make(directory: Path, family: Family, lengths_s: Sequence[float], seed: int = 0) -> Corpus:
    """Write clips of these lengths."""
    tokenizer_dir = directory.parent / "tokenizer"
    if not tokenizer_dir.exists():
        text.write_tokenizer(tokenizer_dir)
    tokenizer = _tokenizer(tokenizer_dir)
    mel_of = bridge.mel_extractor(family)
    random = np.random.default_rng(seed)
    prose = "".join(line for line in text.corpus() if line and ord(line[0]) > 0x3000)
    directory.mkdir(parents=True)
    utterances, tokens, rows = [], {}, []
    embedding = random.standard_normal(family.speaker_embedding_size).tolist()
    for number, length_s in enumerate(lengths_s):
        utt, wav = f"clip-{number:04d}", directory / f"{number:04d}.wav"
        sound = 0.05 * random.standard_normal(round(length_s * family.sample_rate_hz))
        soundfile.write(wav, sound, family.sample_rate_hz, subtype="PCM_16")
        start = int(random.integers(len(prose) // 2))
        said = (prose[start:] + prose)[: max(1, round(_LETTERS_PER_S * length_s))]
        mel = mel_of(torch.from_numpy(soundfile.read(wav, dtype="float32")[0])).numpy()
        count = min(round(length_s * family.token_rate_hz), len(mel) // family.token_mel_ratio)
        tokens[utt] = random.integers(0, family.speech_token_size, count).tolist()
        utterances.append(Utterance(utt, "speaker", wav.absolute(), said, length_s))
        rows.append(
            {
                "utt": utt,
                "spk": "speaker",
                "text": said,
                "text_token": tokenizer.encode(said, allowed_special="all"),
                "speech_token": tokens[utt],
                "mel": mel[: family.token_mel_ratio * count],
                "spk_embedding": embedding,
            }
        )
    utts = [utterance.utt for utterance in utterances]
    parquet.write(directory, utterances, dict.fromkeys(utts, embedding), {"speaker": embedding}, tokens)
    cache.write(directory / "features.arrow", rows)
    return Corpus(directory / "data.list", tokenizer_dir, cache.open(directory / "features.arrow"))


def spread(count: int, shortest_s: float, longest_s: float) -> list[float]:
    """So many lengths, all different, evenly from the shortest to the longest."""
    return np.linspace(shortest_s, longest_s, count).tolist()


def updates(frames: Sequence[int], max_frames: int, accum_grad: int) -> list[list[int]]:
    """The clips (by place) of each update that upstream makes of them with one worker.

    Its `sort` and `dynamic_batch`, then accum_grad batches an update. Raises ValueError where batches are left over,
    which it never turns into an update: the clips would not be the same then.
    """
    batches = plan.greedy(sorted(range(len(frames)), key=lambda index: frames[index]), frames, max_frames)
    if len(batches) % accum_grad:
        raise ValueError(f"{len(batches)} batches, {accum_grad} an update: upstream would not learn from the last")
    return [
        [index for batch in batches[start : start + accum_grad] for index in batch]
        for start in range(0, len(batches), accum_grad)
    ]


def even(lengths_s: Sequence[float], frame_rate_hz: int, max_frames: int, accum_grad: int) -> list[float]:
    """The lengths without the longest few, so that upstream learns from every one of them."""
    kept = list(lengths_s)
    while kept:
        try:
            updates([round(frame_rate_hz * length_s) for length_s in kept], max_frames, accum_grad)
        except ValueError:
            kept.remove(max(kept))
        else:
            return kept
    raise SystemExit(f"{len(lengths_s)} clips do not fill {accum_grad} batches of {max_frames} frames; take more clips")


def frames(corpus: Corpus) -> list[int]:
    """Mel frames of each clip."""
    features = corpus.features
    return [len(features[index].mel) for index in range(len(features))]


def _tokenizer(directory: Path) -> Any:
    """Upstream's, as its pipeline makes it."""
    return bridge._attribute("cosyvoice.tokenizer.tokenizer.get_qwen_tokenizer")(str(directory), True)
