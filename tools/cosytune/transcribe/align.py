"""Samples and their text -> when each word sounds: CTC forced alignment over a wav2vec 2.0 model, by WhisperX."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosytune.audio.span import Span, Word
from cosytune.errors import UserError
from cosytune.schema import TranscribeConfig
from cosytune.transcribe import machine
from cosytune.transcribe.hear import RATE_HZ
from cosytune.transcribe.quiet import quiet
from cosytune.transcribe.transcript import SPACELESS

_HOP = 320
"""Samples from one frame to the next: wav2vec 2.0's seven convolutions, 50 frames/s; one frame sees _FIELD samples."""
_FIELD = 400
_WINDOW, _CONTEXT = 1250, 125
"""Frames of a long recording that are computed at once, and those around them that only serve as context."""
_MIN_KNOWN_SHARE = 0.5
"""Of a text's characters: with fewer in the model's vocabulary the times would be guesses."""


@dataclass(frozen=True)
class Aligner:
    """A model of one language. `model`: float32 [1, n] at 16 kHz -> `.logits` [1, frames, vocabulary], 50 frames/s.

    `dictionary`: lower-case character -> its column; `normalizes`: whether the model wants mean 0 and variance 1.
    """

    model: Any
    dictionary: Mapping[str, int]
    is_spaceless: bool
    normalizes: bool = False
    device: str = "cpu"

    def words(self, samples: Any, text: str, span: Span, speech: Sequence[Span] = ()) -> tuple[Word, ...] | None:
        """The words of `text` in `samples` (float32 [n], 16 kHz), which are `span` of the recording; all lie in it.

        A word lasts from its first character's sound to the next word's; if the `speech` in which it began is over
        before that, it ends there: CTC itself cannot tell a long vowel from a pause. None when the text is too long for
        the sound, or mostly of characters that the model does not know.
        """
        from whisperx.alignment import backtrack, get_trellis, merge_repeats

        units = split(text, self.is_spaceless)
        tokens, places = self._tokens(units)
        if not self._can_read(units) or len(tokens) > _frames(len(samples)):
            return None
        emission, ids = self._with_wildcard(self._emission(samples), tokens)
        path = backtrack(get_trellis(emission, ids, self.blank), emission, ids, self.blank)
        if path is None:
            return None
        characters = merge_repeats(path, tokens)  # one for each token; lasts until the next one sounds
        if speech:
            characters[-1].end = -(-len(samples) // _HOP)  # WhisperX ends the last one as soon as it sounds
        spans = [_trimmed(characters[first], characters[last], span, speech) for first, last in places]
        return tuple(Word(unit.text, place) for unit, place in zip(units, spans, strict=True))

    @property
    def blank(self) -> int:
        return next((self.dictionary[name] for name in ("<pad>", "[pad]") if name in self.dictionary), 0)

    def _can_read(self, units: Sequence[Unit]) -> bool:
        sounds = "".join(unit.sounds for unit in units)
        known = sum(sound in self.dictionary for sound in sounds)
        return bool(sounds) and known >= _MIN_KNOWN_SHARE * len(sounds)

    def _tokens(self, units: Sequence[Unit]) -> tuple[list[str], list[tuple[int, int]]]:
        """The characters to align, `|` between words where there are spaces, and each unit's first and last one."""
        separator = [] if self.is_spaceless or "|" not in self.dictionary else ["|"]
        tokens: list[str] = []
        places = []
        for unit in units:
            tokens += separator if tokens else []
            places.append((len(tokens), len(tokens) + len(unit.sounds) - 1))
            tokens += unit.sounds
        return tokens, places

    def _with_wildcard(self, emission: Any, tokens: Sequence[str]) -> tuple[Any, list[int]]:
        """Token ids, and one more column for unknown characters: the best of all that is no blank, as in WhisperX."""
        import torch

        others = torch.ones(emission.size(1), dtype=torch.bool)
        others[self.blank] = False
        wildcard = emission.size(1)
        emission = torch.cat([emission, emission[:, others].max(dim=1, keepdim=True).values], dim=1)
        return emission, [self.dictionary.get(token, wildcard) for token in tokens]

    def _emission(self, samples: Any) -> Any:
        """Log-probabilities float32 [frames, vocabulary]; a long recording in windows, for memory grows with n^2."""
        import torch

        total = _frames(len(samples))
        parts = []
        for first in range(0, total, _WINDOW):
            begin, end = max(0, first - _CONTEXT), min(total, first + _WINDOW + _CONTEXT)
            logits = self._logits(samples[begin * _HOP : (end - 1) * _HOP + _FIELD])
            parts.append(logits[first - begin : first - begin + _WINDOW])
        return torch.log_softmax(torch.cat(parts), dim=-1)

    def _logits(self, samples: Any) -> Any:
        import torch

        sound = torch.as_tensor(samples, dtype=torch.float32, device=self.device)
        if self.normalizes:  # as the model was trained; 1e-7 as in Wav2Vec2FeatureExtractor
            sound = (sound - sound.mean()) / torch.sqrt(sound.var(correction=0) + 1e-7)
        with torch.inference_mode():
            return self.model(sound.unsqueeze(0)).logits[0].float().cpu()


def load(directory: Path, settings: TranscribeConfig, language: str) -> Aligner:
    """The model of a directory in memory. Raises UserError when it cannot be loaded."""
    device, _ = machine.choose(settings)
    with quiet():
        from transformers import Wav2Vec2FeatureExtractor
        from whisperx.alignment import load_align_model

        try:
            model, metadata = load_align_model(language, device, model_name=str(directory), model_cache_only=True)
            extractor = Wav2Vec2FeatureExtractor.from_pretrained(str(directory), local_files_only=True)
        except (OSError, ValueError, RuntimeError) as failure:
            remedy = "move it away and fetch it again"
            raise UserError(f"transcribe.align_model: {directory}: cannot be loaded; {remedy}") from failure
    return Aligner(model.eval(), metadata["dictionary"], language in SPACELESS, bool(extractor.do_normalize), device)


@dataclass(frozen=True)
class Unit:
    """A word as it is written, with its punctuation, and the lower-case characters of it that can be heard."""

    text: str
    sounds: str


def split(text: str, is_spaceless: bool) -> list[Unit]:
    """The words of a text: between spaces, or character by character.

    What makes no sound of its own (a lone dash, and without spaces every mark and space) goes with the word before it;
    an opening bracket, and what stands at the beginning, with the word after it. So nothing of the text is lost.
    """
    units: list[Unit] = []
    pending = ""
    separator = "" if is_spaceless else " "
    for piece in " ".join(text.split()) if is_spaceless else text.split():
        sounds = "".join(c.lower() for c in piece if _is_heard(c))
        if sounds:
            units.append(Unit(pending + piece, sounds))
            pending = ""
        elif units and unicodedata.category(piece[0]) not in ("Ps", "Pi") and not pending:
            units[-1] = Unit(units[-1].text + separator + piece, units[-1].sounds)
        else:
            pending += piece + separator
    if pending and units:
        units[-1] = Unit(units[-1].text + separator + pending.rstrip(), units[-1].sounds)
    return units


def _is_heard(character: str) -> bool:
    """Letters, marks on them, digits, the apostrophe of English; but nothing that becomes two in lower case."""
    return (unicodedata.category(character)[0] in "LMN" or character == "'") and len(character.lower()) == 1


def _frames(samples: int) -> int:
    return max(0, (samples - _FIELD) // _HOP + 1)


def _trimmed(first: Any, last: Any, span: Span, speech: Sequence[Span]) -> Span:
    """From where the first character sounds to the end of the last one, or of the speech if that comes before."""
    frames = (first.start, last.start + 1, last.end)
    begin_s, sounds_s, end_s = (min(span.start_s + frame * _HOP / RATE_HZ, span.end_s) for frame in frames)
    speech_end_s = next((some.end_s for some in speech if some.end_s > begin_s), end_s)
    return Span(begin_s, max(sounds_s, min(end_s, speech_end_s)))
