"""Text and an assembled model directory -> speech, without reference audio.

    python -m cosytune.voice say "おはようございます。" --voice egs/demo/voice -o out.wav

Upstream's own CosyVoice2 class speaks, in its SFT mode; the text goes through `cosytune.text` and not through
upstream's front end, which reads Japanese with any kanji as Chinese.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosytune import text
from cosytune.base import manifest
from cosytune.errors import UserError
from cosytune.families import Family
from cosytune.progress import track

_PAUSE_S = 0.2
"""Between two sentences, which are spoken one by one."""
TOKENS_PER_TEXT_TOKEN = 20
"""Upstream's `max_token_text_ratio`: a sentence that does not end is cut there."""
_TINY_BYTES = 100_000_000
"""A smaller LLM speaks on one thread: with so little to do each, threads only wait for each other (30 times slower on
a busy machine), and the sums come in one order whatever the number of cores."""


@dataclass(frozen=True)
class Speech:
    """Mono speech. `samples`: float32 [n] in -1..1. `cut`: sentences that did not end and were cut at the limit."""

    samples: NDArray[np.float32]
    rate_hz: int
    sentences: list[str]
    cut: list[str]
    spent_s: float

    @property
    def duration_s(self) -> float:
        return len(self.samples) / self.rate_hz

    @property
    def real_time_factor(self) -> float:
        """Seconds of work for a second of speech."""
        return self.spent_s / self.duration_s


class Speaker:
    """One loaded model. Loading takes seconds and the model's memory, so make one and let it speak often."""

    def __init__(self, model_dir: Path, family: Family) -> None:
        """`model_dir`: as `assemble` makes it. Raises UserError if the YAML in it is not the family's own."""
        import torch

        from cosytune.upstream import bridge

        self._family, self._shape = family, manifest.shape(model_dir, family)
        # Both are upstream's and its libraries' own business, and nothing that a user could mend.
        warnings.filterwarnings("ignore", message=r".*torch\.cuda\.amp\.autocast", category=FutureWarning)
        warnings.filterwarnings("ignore", message="pkg_resources is deprecated", category=UserWarning)
        if (model_dir / family.llm).stat().st_size < _TINY_BYTES:
            torch.set_num_threads(1)
        self._model: Any = bridge.load_cosyvoice(model_dir, family)
        self._last_token: Any = None
        self._watch(self._model.model.llm)

    def _watch(self, llm: Any) -> None:
        """Remember the last token that was drawn: it tells a sentence that ended from one that was cut."""
        draw = llm.sampling_ids

        def watched(*arguments: Any, **named: Any) -> Any:
            self._last_token = draw(*arguments, **named)
            return self._last_token

        llm.sampling_ids = watched

    def say(self, words: str, speaker: str, language: str, seed: int, *, show_progress: bool = False) -> Speech:
        """Speak `words`; the same seed gives the same samples. Raises UserError when there is nothing to say."""
        sentences = text.split_sentences(words, language, self._family.script(language, self._shape))
        if not sentences:
            raise UserError(f"text: {words!r}: nothing to say; write at least one letter or digit")
        started_s = time.monotonic()
        spoken, cut = [], []
        is_long = show_progress and len(sentences) > 1
        for sentence in track(sentences, "say", unit="sentence") if is_long else sentences:
            spoken.append(self._sentence(sentence, speaker, seed))
            if int(self._last_token) != self._family.speech_token_size:  # its index says end of speech
                cut.append(sentence)
        return Speech(self._join(spoken), self._family.sample_rate_hz, sentences, cut, time.monotonic() - started_s)

    def _sentence(self, sentence: str, speaker: str, seed: int) -> NDArray[np.float32]:
        """One sentence, seeded by itself: it sounds the same alone and within a longer text."""
        import torch
        from transformers import set_seed

        set_seed(seed)
        with _errors_of_threads(f"upstream failed on {sentence!r}"), torch.inference_mode():
            outputs = list(self._model.inference_sft(sentence, speaker, stream=False, text_frontend=False))
        samples: NDArray[np.float32] = torch.cat([one["tts_speech"] for one in outputs], dim=1)[0].float().numpy()
        if not np.isfinite(samples).all():
            raise UserError(f"{sentence!r}: the model spoke NaN; the voice diverged: choose another checkpoint")
        return samples

    def _join(self, spoken: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        pause = np.zeros(round(_PAUSE_S * self._family.sample_rate_hz), dtype=np.float32)
        parts = [part for samples in spoken for part in (samples, pause)]
        return np.concatenate(parts[:-1])


def write_wav(path: Path, samples: NDArray[np.float32], rate_hz: int) -> None:
    """16-bit PCM, whole or not at all. What is beyond full scale is limited to it, not wrapped around."""
    import soundfile

    from cosytune import files

    levels = np.round(np.clip(samples, -1.0, 1.0) * 32767).astype(np.int16)
    with files.atomic_path(path) as temporary:
        soundfile.write(temporary, levels, rate_hz, format="WAV", subtype="PCM_16")


@contextmanager
def _errors_of_threads(message: str) -> Iterator[None]:
    """Raise what a thread raised in the block: upstream's LLM runs in one, and its half sentence would be spoken."""
    errors: list[BaseException] = []
    former = threading.excepthook
    threading.excepthook = lambda arguments: errors.append(arguments.exc_value or RuntimeError("unknown"))
    try:
        yield
    finally:
        threading.excepthook = former
        if errors:  # also when the main thread has stumbled over what is missing now
            raise RuntimeError(message) from errors[0]
