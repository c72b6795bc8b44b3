"""A sound file and what it should say -> who speaks in it, and how much of it can be understood.

CAM++ is always there, and flatters: it also steers the flow. A base directory may bring two judges that none of its
parts has learned from, `judges/kana.onnx` and `judges/verifier.onnx`; without them their scores are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosytune import base, families, files, kaldi, text
from cosytune.base import shipped
from cosytune.errors import UserError
from cosytune.features import onnx, speech
from cosytune.kaldi import Utterance
from cosytune.layout import Layout
from cosytune.schema import Config
from cosytune.text.clean import without_sounds
from cosytune.voice import kana, scoring
from cosytune.voice.kana import KanaJudge
from cosytune.voice.verifier import Embedding, Verifier, similarity

_FILES = (shipped.KANA_JUDGE, shipped.VERIFIER_JUDGE)
_MOST_CLIPS = 200
"""Of a speaker's training clips that the verifier hears: more do not move their mean."""


@dataclass(frozen=True)
class Judges:
    """`means`: each speaker's CAM++ embedding, `voices`: the verifier's, both of the training clips alone."""

    encoder: Any
    means: Mapping[str, Sequence[float]]
    kana: KanaJudge | None = None
    verifier: Verifier | None = None
    voices: Mapping[str, Embedding] | None = None

    def score(self, path: Path, words: str, speaker: str) -> dict[str, Any]:
        """Scores by the names of `scoring.METRICS`; `kana_units` and `kana_heard` beside the rate of errors."""
        embedding = speech.speaker_embedding(self.encoder, speech.read_16k(path))
        scores: dict[str, Any] = {"speaker_similarity": scoring.similarity(embedding, self.means[speaker])}
        if self.verifier is not None and self.voices is not None:
            scores["voice_similarity"] = similarity(self.verifier.embed(*_sound(path)), self.voices[speaker])
        if self.kana is not None and (reference := kana_of(words)):
            heard = self.kana.hear(*_sound(path))
            scores["kana_error_rate"] = kana.error_rate(reference, heard)
            scores |= {"kana_units": len(reference), "kana_heard": "".join(heard)}
        return scores


def open_judges(config: Config, layout: Layout) -> Judges:
    """Those that the base brings. Raises UserError for a file that is damaged, or gone since stage -1."""
    encoder = onnx.open_session(
        base.locate(config) / families.get(config.model).speaker_encoder, config.features.provider, threads=1
    )
    clips = kaldi.read(layout.data("train")).utterances
    means = speech.speaker_means(files.read_torch(layout.data_all / "utt2embedding.pt"), clips)
    ears, verifier = (_judge_file(config, name) for name in _FILES)
    judge = Verifier(verifier) if verifier else None
    return Judges(
        encoder,
        means,
        KanaJudge(ears) if ears and config.language == "ja" else None,
        judge,
        voices(judge, clips) if judge else None,
    )


def brought(config: Config) -> list[Path]:
    """The judges' files that lie in the base directory as stage -1 checked it."""
    return [path for name in _FILES if (path := _judge_file(config, name))]


def _judge_file(config: Config, name: str) -> Path | None:
    """What stage -1 knows nothing of is no judge of ours."""
    return base.file(config, name) if name in base.hashes(base.locate(config)) else None


def voices(verifier: Verifier, clips: Sequence[Utterance]) -> dict[str, Embedding]:
    """Speaker -> mean of the verifier's embeddings of the clips, some of them where there are many."""
    found: dict[str, Embedding] = {}
    for speaker in sorted({clip.speaker for clip in clips}):
        own = [clip for clip in clips if clip.speaker == speaker]
        chosen = [own[place] for place in np.linspace(0, len(own) - 1, min(len(own), _MOST_CLIPS)).astype(int)]
        found[speaker] = np.stack([verifier.embed(*_sound(clip.wav)) for clip in chosen]).mean(axis=0)
    return found


def kana_of(words: str) -> list[str]:
    """The units of a Japanese text that an ear can tell apart; [] where it has none, or signs with no reading."""
    try:
        return kana.spoken(without_sounds(text.normalize(words, "ja", "katakana")))
    except UserError:
        return []


def _sound(path: Path) -> tuple[NDArray[np.float32], int]:
    """float32 [samples], the mean of the channels, and its rate in Hz."""
    import soundfile

    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    return samples.mean(axis=1), rate_hz
