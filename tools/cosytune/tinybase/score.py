"""A tiny base and what `make` left -> the figures that say whether it speaks: heard by judges that it never trained on.

python -m cosytune.tinybase score --dir tinybase
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cosytune import files, text
from cosytune.base import shipped
from cosytune.progress import track
from cosytune.tinybase import vocoder
from cosytune.tinybase.corpus import Corpus, Utterance
from cosytune.tinybase.features import FAMILY
from cosytune.upstream import bridge
from cosytune.voice import intervals, kana
from cosytune.voice.assemble import link
from cosytune.voice.kana import KanaJudge
from cosytune.voice.synthesis import Speaker

SENTENCES, SEEDS = 50, 2


@dataclass(frozen=True)
class Said:
    """One sentence as it was spoken: units that it has, edits that make them of what was heard, seconds."""

    sentence: str
    units: int
    edits: float
    seconds: float
    spent_s: float
    is_cut: bool


def score(model_dir: Path, corpus: Corpus, voices: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """All figures. `voices`: mean embeddings of some speakers of the training, who take turns."""
    held_out = corpus.of("held_out")
    judge = KanaJudge(model_dir / shipped.KANA_JUDGE)
    hift = bridge.build_hift(model_dir, FAMILY)
    chosen = _spread(held_out, SENTENCES)
    said = speak(model_dir, voices, [one.kana for one in chosen], range(SEEDS))
    return {
        "judge_on_natural_clips": kana.evaluate(judge, corpus, held_out),
        "vocoder": vocoder.evaluate(hift, corpus, chosen),
        "base_voice": summary(said),
    }


def speak(
    model_dir: Path, voices: Mapping[str, Sequence[float]], sentences: Sequence[str], seeds: Sequence[int]
) -> list[Said]:
    """Every sentence with every seed, by upstream's own class, its own sampling and `inference_sft`."""
    judge = KanaJudge(model_dir / shipped.KANA_JUDGE)
    names = sorted(voices)
    found = []
    with tempfile.TemporaryDirectory(prefix="cosytune-score-") as temporary:
        speaker = Speaker(_with_voices(model_dir, voices, Path(temporary)), FAMILY)
        turns = [(number, seed) for number in range(len(sentences)) for seed in seeds]
        for number, seed in track(turns, "speak", unit="sentence"):
            spoken = speaker.say(sentences[number], names[number % len(names)], "ja", seed)
            reference = kana.spoken(text.normalize(sentences[number], "ja", "katakana"))
            rate = kana.error_rate(reference, judge.hear(spoken.samples, spoken.rate_hz))
            edits, is_cut = rate * len(reference), bool(spoken.cut)
            found.append(Said(sentences[number], len(reference), edits, spoken.duration_s, spoken.spent_s, is_cut))
    return found


def summary(said: Sequence[Said]) -> dict[str, Any]:
    """Pooled kana error rate with its 95 % interval over sentences, sentences that were cut, real-time factor."""
    by_sentence: dict[str, list[float]] = {}
    for one in said:
        sums = by_sentence.setdefault(one.sentence, [0.0, 0.0])
        sums[0], sums[1] = sums[0] + one.edits, sums[1] + one.units
    return {
        "kana_error_rate": intervals.as_json(intervals.figure(np.array(list(by_sentence.values())))),
        "sentences": len(by_sentence),
        "spoken": len(said),
        "cut": sum(one.is_cut for one in said),
        "real_time_factor": sum(one.spent_s for one in said) / sum(one.seconds for one in said),
    }


def voices(making: Path, corpus: Corpus, count: int = 4) -> dict[str, list[float]]:
    """Mean embeddings of some speakers of the training, far apart in the list."""
    own = torch.load(making / "speaker_encoder" / "train.pt", weights_only=True)
    speakers = [one.speaker for one in corpus.of("train")]
    names = sorted(set(speakers))
    chosen = names[:: max(1, len(names) // count)][:count]
    return {name: own[[one == name for one in speakers]].mean(dim=0).tolist() for name in chosen}


def _spread(utterances: Sequence[Utterance], count: int) -> list[Utterance]:
    return [utterances[number * len(utterances) // count] for number in range(min(count, len(utterances)))]


def _with_voices(model_dir: Path, voices: Mapping[str, Sequence[float]], temporary: Path) -> Path:
    """The base beside a spk2info.pt, as `assemble` makes it for a tuned voice."""
    made = temporary / "model"
    made.mkdir()
    for path in model_dir.iterdir():
        link(path, made / path.name)
    embeddings = {name: {"embedding": torch.tensor([list(values)])} for name, values in voices.items()}
    files.write_torch(made / "spk2info.pt", embeddings)
    return made
