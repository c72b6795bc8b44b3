"""16 kHz samples of up to 30 s each -> their language, their text: Whisper in full batches, by WhisperX."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from cosytune.errors import UserError
from cosytune.schema import Config, TranscribeConfig
from cosytune.transcribe import machine
from cosytune.transcribe.chunks import LONGEST_S
from cosytune.transcribe.quiet import quiet

RATE_HZ = 16000
_LANGUAGES = get_args(Config.model_fields["language"].annotation)
_MOST_SAMPLES = round(LONGEST_S * RATE_HZ)


class Whisper:
    """A loaded model; `close` gives its memory back."""

    def __init__(self, directory: Path, settings: TranscribeConfig) -> None:
        """Raises UserError when the directory cannot be loaded, or not on this machine."""
        self._directory = directory
        self._batch_size = settings.batch_size
        self._pipeline = _load(directory, settings)

    def detect(self, pieces: Iterable[Any]) -> Iterator[str]:
        """The likeliest of the recipe's languages for each float32 [n]; Whisper knows 90 more that no base speaks."""
        import torch

        model = self._pipeline.model
        remaining = iter(pieces)
        while batch := list(islice(remaining, self._batch_size)):
            features = [self._pipeline.preprocess({"inputs": _whole(piece)})["inputs"] for piece in batch]
            with _memory_in_words(self._batch_size):
                found = model.model.detect_language(model.encode(torch.stack(features)))
            for ranking in found:  # [("<|ja|>", probability), ...], the likeliest first
                yield next(token[2:-2] for token, _ in ranking if token[2:-2] in _LANGUAGES)

    def hear(self, pieces: Iterable[Any], language: str) -> Iterator[tuple[str, float]]:
        """(text, mean log-probability of a token) of each float32 [n], in order; `pieces` are read batch by batch."""
        self._pipeline.tokenizer = self._tokenizer(language)
        inputs = ({"inputs": _whole(piece)} for piece in pieces)
        with _memory_in_words(self._batch_size):
            for result in self._pipeline(inputs, batch_size=self._batch_size, num_workers=0):
                text, score = result["text"], result["avg_logprob"]
                if self._batch_size == 1:  # transformers takes batches apart, but not those of one
                    text, score = text[0], score[0]
                yield text.strip(), float(score)

    def close(self) -> None:
        self._pipeline.model.model.unload_model()

    def _tokenizer(self, language: str) -> Any:
        from faster_whisper.tokenizer import Tokenizer

        model = self._pipeline.model
        is_multilingual = model.model.is_multilingual
        is_known = (
            model.hf_tokenizer.token_to_id(f"<|{language}|>") is not None if is_multilingual else language == "en"
        )
        if not is_known:
            remedy = "take one that does, such as large-v3"
            raise UserError(f"transcribe.model: {self._directory}: does not know the language '{language}'; {remedy}")
        return Tokenizer(model.hf_tokenizer, is_multilingual, task="transcribe", language=language)


def _load(directory: Path, settings: TranscribeConfig) -> Any:
    """WhisperX's pipeline without its voice-activity detector: the chunks are ours."""
    device, compute_type = machine.choose(settings)
    os.environ["PYANNOTE_METRICS_ENABLED"] = "false"  # whisperx imports pyannote, which would report its use
    with quiet():
        from whisperx.asr import load_model

        try:
            pipeline = load_model(
                str(directory),
                device,
                compute_type=compute_type,
                asr_options={"beam_size": settings.beam_size},
                vad_model=object(),
                local_files_only=True,
                threads=machine.cores(),
            )
        except (RuntimeError, ValueError) as failure:  # what CTranslate2 says of a file that is damaged or too new
            reason = str(failure).splitlines()[0] if str(failure) else type(failure).__name__
            raise UserError(
                f"transcribe.model: {directory}: cannot be loaded ({reason}); move it away and fetch it again"
            ) from failure
    bands, made = pipeline.model.model.n_mels, pipeline.model.feat_kwargs.get("feature_size", 80)
    if bands != made:
        raise UserError(
            f"transcribe.model: {directory}/preprocessor_config.json: the model wants {bands} mel bands, not {made}; "
            "it is missing or belongs to another model: fetch the model again"
        )
    return pipeline


def _whole(samples: Any) -> Any:
    """float32 [n], n at most 30 s; a rounding of borders may bring a few samples more."""
    import numpy as np

    assert len(samples) <= _MOST_SAMPLES + RATE_HZ // 100, f"a chunk of {len(samples) / RATE_HZ} s"
    return np.ascontiguousarray(samples[:_MOST_SAMPLES], dtype=np.float32)


@contextmanager
def _memory_in_words(batch_size: int) -> Iterator[None]:
    try:
        yield
    except RuntimeError as failure:
        if "out of memory" not in str(failure):
            raise
        remedy = f"try transcribe.batch_size={max(1, batch_size // 2)}, or compute_type=int8_float16"
        raise UserError(f"transcribe.batch_size: {batch_size}: too much for the GPU's memory; {remedy}") from failure
