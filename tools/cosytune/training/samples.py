"""Two fixed cv clips and the module in training -> what it sounds like at each evaluation.

The LLM samples speech tokens for the clip's text, which the base's flow and vocoder speak; the flow speaks the clip's
real tokens. Weights, adapters, modes and the random state of training stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cosytune.families import Family
from cosytune.features.cache import Clip
from cosytune.training.journal import Journal, Silent
from cosytune.upstream import bridge
from cosytune.voice.synthesis import TOKENS_PER_TEXT_TOKEN

if TYPE_CHECKING:
    from peft import PeftModel

CLIPS = 2
_GIVEN_UP = "sampling reaches max_trials"
"""Upstream's words when all it draws is the end of speech, and it is too early for it."""
_LONGER = 2
"""Sampling ends at this many times the clip's real length: an LLM that goes on has not learned to stop."""
ShouldStop = Callable[[], bool]


class _Stopped(Exception):  # noqa: N818 - what was asked for
    """Somebody asked to stop: nothing is to be heard of this evaluation."""


class _NotDrawn(Exception):  # noqa: N818 - said, and training goes on
    """No next token came of the LLM's scores; the message says why."""


@dataclass(frozen=True)
class Heard:
    """mel: float32 [frames, 80], 50 a second; sound: float32 [n] in -1..1. `has_ended`: False where it was cut."""

    mel: NDArray[np.float32]
    sound: NDArray[np.float32]
    has_ended: bool = True


@dataclass
class Studio:
    """Lets `clips` be heard with the module `name` (llm, flow). `context`: what a forward pass of training runs in.

    The base's flow and vocoder are read when they are needed first, wait on the CPU and speak on `device`.
    """

    name: str
    model_dir: Path
    family: Family
    clips: Sequence[Clip]
    seed: int
    device: torch.device
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    _base: dict[str, nn.Module] = field(default_factory=dict)
    _is_off: bool = False

    def listen(self, model: PeftModel, update: int, notes: Journal | Silent, should_stop: ShouldStop) -> None:
        """All clips, to the journal: all of them or, when asked to stop on the way, none.

        Without memory for it, or where no token can be drawn, that is said, and training goes on.
        """
        if self._is_off:
            return
        try:
            with self._as_for_inference(model):
                real = [self._real(clip) for clip in self.clips] if update == 0 else []
                heard = [self._speak(model.get_base_model(), clip, should_stop) for clip in self.clips]
        except _Stopped:
            return
        except _NotDrawn as reason:
            notes.say(f"no audio samples after update {update}: {reason}")
            return
        except torch.OutOfMemoryError:
            self._is_off = True
            notes.say("no GPU memory for audio samples: there will be no more of them; set train.audio_samples=false")
            return
        self._write(update, notes, real, heard)

    def speak(self, model: PeftModel, clip: Clip, should_stop: ShouldStop = lambda: False) -> Heard | None:
        """One clip; None when asked to stop."""
        try:
            with self._as_for_inference(model):
                return self._speak(model.get_base_model(), clip, should_stop)
        except _Stopped:
            return None

    def _write(self, update: int, notes: Journal | Silent, real: Sequence[Heard], heard: Sequence[Heard]) -> None:
        rate_hz = self.family.sample_rate_hz
        for number, each in enumerate(real, start=1):
            notes.say(f"audio sample {number} is '{self.clips[number - 1].utt}': {self.clips[number - 1].text}")
            notes.real_clip(update, str(number), each.mel, each.sound, rate_hz)
        for number, each in enumerate(heard, start=1):
            notes.sample(update, str(number), each.mel, each.sound, rate_hz)
            if not each.has_ended:
                notes.say(f"audio sample {number}: the LLM did not end; cut after {len(each.sound) / rate_hz:.1f} s")

    def _speak(self, module: Any, clip: Clip, should_stop: ShouldStop) -> Heard:
        torch.manual_seed(self.seed)  # the same draws in each evaluation
        if self.name == "llm":
            tokens, has_ended = self._sample(module, clip, should_stop)
            with self._on_device("flow") as flow:
                mel = self._mel(flow, tokens, clip)
        else:
            _heed(should_stop)
            tokens, has_ended = self._long(clip.speech_token), True
            with self.context():
                mel = self._mel(module, tokens, clip)
        _heed(should_stop)
        return Heard(mel[0].T.cpu().numpy(), self._vocode(mel), has_ended)

    def _real(self, clip: Clip) -> Heard:
        """The clip's real mel through the vocoder: what a perfect flow would give."""
        torch.manual_seed(self.seed)
        mel = torch.from_numpy(clip.mel.copy()).T[None].to(self.device)
        return Heard(clip.mel, self._vocode(mel))

    def _sample(self, llm: Any, clip: Clip, should_stop: ShouldStop) -> tuple[torch.Tensor, bool]:
        """Speech tokens [1, n] for the clip's text, by upstream's own sampling; and whether they came to an end."""
        text, nothing = self._long(clip.text_token), self._long([])
        most = min(TOKENS_PER_TEXT_TOKEN * len(clip.text_token), _LONGER * len(clip.speech_token))
        tokens: list[int] = []
        with _scores_checked(llm), self.context():
            generator = llm.inference(
                text, _length(text), nothing, _length(nothing), nothing, _length(nothing), embedding=None
            )
            for token in generator:
                _heed(should_stop)
                tokens.append(token)
                if len(tokens) == most:
                    generator.close()
                    return self._long(tokens), False
        return self._long(tokens), True

    def _mel(self, flow: Any, tokens: torch.Tensor, clip: Clip) -> torch.Tensor:
        """Speech tokens [1, n] -> mel [1, 80, 2 n] in the clip's voice."""
        nothing, no_mel = self._long([]), torch.zeros(1, 0, clip.mel.shape[1], device=self.device)
        embedding = torch.from_numpy(clip.spk_embedding.copy())[None].to(self.device)
        # Not in inference mode: the encoder keeps its table of positions, and training could not go on with that.
        infer = type(flow).inference.__wrapped__
        mel, _ = infer(
            flow,
            token=tokens,
            token_len=_length(tokens),
            prompt_token=nothing,
            prompt_token_len=_length(nothing),
            prompt_feat=no_mel,
            prompt_feat_len=_length(no_mel),
            embedding=embedding,
            streaming=False,
            finalize=True,
        )
        found: torch.Tensor = mel
        return found

    def _vocode(self, mel: torch.Tensor) -> NDArray[np.float32]:
        """Mel [1, 80, frames] -> samples. fp32: the vocoder's iSTFT overflows in bf16."""
        with self._on_device("hift") as hift, torch.autocast(self.device.type, enabled=False):
            sound, _ = hift.inference(speech_feat=mel.float())
        samples: NDArray[np.float32] = sound[0].float().cpu().numpy()
        return samples

    @contextmanager
    def _on_device(self, name: str) -> Iterator[Any]:
        """A module of the base, which takes the device's memory only while it is at work."""
        if name not in self._base:
            build = {"flow": bridge.build_flow, "hift": bridge.build_hift}[name]
            self._base[name] = build(self.model_dir, self.family).requires_grad_(False)
        module = self._base[name].to(self.device)
        try:
            yield module
        finally:
            module.to("cpu")

    @contextmanager
    def _as_for_inference(self, model: nn.Module) -> Iterator[None]:
        """No dropout, no gradient, no trace in the random state."""
        modes = [(part, part.training) for part in model.modules()]
        with bridge.keep_random_state(), torch.no_grad():
            model.eval()
            try:
                yield
            finally:
                for part, mode in modes:
                    part.training = mode

    def _long(self, tokens: Any) -> torch.Tensor:
        return torch.tensor([list(tokens)], dtype=torch.long, device=self.device).reshape(1, -1)


@contextmanager
def _scores_checked(llm: Any) -> Iterator[None]:
    """Stop at NaN before upstream draws from it: on a GPU that would end the whole process.

    And where upstream gives up: before 2 speech tokens a text token, 100 draws of the end of speech are an error.
    """
    draw = llm.sampling_ids

    def checked(scores: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        if torch.isnan(scores).any():
            raise _NotDrawn("the scores of the next token are NaN")
        try:
            return draw(scores, *arguments, **named)
        except RuntimeError as failure:
            if _GIVEN_UP not in str(failure):
                raise
            raise _NotDrawn("the LLM ends before it has spoken 2 tokens for each token of the text") from None

    llm.sampling_ids = checked
    try:
        yield
    finally:
        del llm.sampling_ids


def _heed(should_stop: ShouldStop) -> None:
    if should_stop():
        raise _Stopped


def _length(sequence: torch.Tensor) -> torch.Tensor:
    return torch.tensor([sequence.shape[1]], dtype=torch.int32, device=sequence.device)
