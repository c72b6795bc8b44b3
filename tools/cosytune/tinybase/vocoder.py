"""The corpus -> a vocoder: upstream's HiFTGenerator, small, from Matcha's log-mel back to sound at 24 kHz.

It learns from spectrograms alone, no discriminator: the difference of the log-mels, which is also what it is judged
by, spectrograms at four finer resolutions, and the fundamental frequency that WORLD finds. Which phase a sound has is
left to the sine source, which follows that frequency.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cosytune import files
from cosytune.parallel import Workers
from cosytune.progress import track
from cosytune.tinybase import learn
from cosytune.tinybase.corpus import Corpus, Utterance
from cosytune.tinybase.features import FAMILY
from cosytune.tinybase.learn import Plan
from cosytune.tinybase.vocoder_losses import LogMel, Spectra
from cosytune.upstream import bridge

SHAPE = FAMILY.tiny.vocoder
PLAN = {
    "cpu": Plan(steps=6000, learning_rate=1e-3, batch=6, weight_decay=0.0, grad_clip=10.0, betas=(0.8, 0.99)),
    "cuda": Plan(steps=6000, learning_rate=1e-3, batch=48, weight_decay=0.0, grad_clip=10.0, betas=(0.8, 0.99)),
}
F0 = "f0.npy"
_HOP, _RATE_HZ = FAMILY.mel.hop_size, FAMILY.mel.sampling_rate
_FRAMES = 32
"""Of a crop: 0.64 s."""
_MEL, _CONVERGENCE, _LOGARITHM, _F0 = 45.0, 6.0, 15.0, 0.05
"""Weights of the losses; the first is upstream's, which has a discriminator for the fine structure that 80 bins do not
show. F0 is in Hz, and trains the F0 predictor alone."""
_ON_TAPE, _TAPE = 0.5, (0.85, 1.2)
"""Share of the steps whose crops are played slower or faster: voices between the 48, and a little beyond them."""
_F0_RANGE_HZ = (60.0, 600.0)
_F0_EVERY_MS = 5.0
"""Then every fourth: at 20 ms it takes a tenth of the voiced frames for unvoiced ones."""
_F0_SCALE = 20.0
"""The fresh F0 predictor says a fraction of 1 Hz; times this, it is at home within a few hundred steps."""
_LOUDEST = 10.0
"""e to that is far beyond where upstream cuts magnitudes, so this changes no sound."""
_SLOWER = 8.0
"""How much more slowly the layer turns that sees the mel; the F0 predictor learns best at full pace."""
_GIVEN_SHARE = 0.15
"""Of all steps, the first ones, in which the source follows WORLD's F0: the predictor knows nothing yet."""


@dataclass(frozen=True)
class Sounds:
    """Of all utterances in a row, whole frames each. sound: int16 [480 * frames]; mel: float16 [frames, 80]; f0 in Hz,
    0 where unvoiced: float32 [frames]; starts: int64 [crops], the frames at which a crop within one utterance begins.
    """

    sound: Tensor
    mel: Tensor
    f0: Tensor
    starts: Tensor


def make(corpus: Corpus, directory: Path, device: str, plan: Plan) -> nn.Module:
    """Train; weights.pt is the state_dict of HiFTGenerator. f0.npy is kept beside it."""
    directory.mkdir(parents=True, exist_ok=True)
    if (directory / learn.WEIGHTS).is_file():
        return load(directory).to(device)
    torch.manual_seed(plan.seed)
    hift: Any = new()
    sounds = prepare(corpus, corpus.of("train"), directory / F0, device)
    start_near(hift, sounds)
    hift.stft_window = hift.stft_window.to(device)  # else it is copied there twice a step, and waited for
    torch.backends.cudnn.benchmark = device != "cpu"  # every step has the same shapes
    lesson = Lesson(hift, sounds, plan)
    bound = hift.conv_post.register_forward_hook(_bounded)
    made: nn.Module = learn.fit("vocoder", hift, lesson.loss, plan, directory, device)
    bound.remove()
    return made


def _bounded(_: nn.Module, __: Any, found: Tensor) -> Tensor:
    """Logarithms of magnitudes that upstream cuts at 100: where exp gave infinity, the gradient would be nan."""
    return found.clamp(max=_LOUDEST)


def new() -> nn.Module:
    """Fresh weights, drawn from torch's global generator."""
    return bridge.new_hift(FAMILY, replace(FAMILY.tiny, vocoder=SHAPE))


def load(directory: Path) -> nn.Module:
    """HiFTGenerator on the CPU, in eval mode."""
    hift = new()
    hift.load_state_dict(learn.plain_weights(directory))
    return hift.eval()


class Lesson:
    """The loss of a step: crops from anywhere in the corpus."""

    def __init__(self, hift: Any, sounds: Sounds, plan: Plan) -> None:
        self._hift, self._sounds, self._plan = hift, sounds, plan
        device = sounds.sound.device
        self._log_mel, self._spectra = LogMel(FAMILY.mel).to(device), Spectra().to(device)

    def loss(self, step: int) -> tuple[Tensor, Mapping[str, Any]]:
        draws = learn.generator(self._plan.seed, step, str(self._sounds.sound.device))
        if _draw(draws) < _ON_TAPE:
            real, f0 = on_tape(self._sounds, self._plan.batch, _TAPE[0] + (_TAPE[1] - _TAPE[0]) * _draw(draws), draws)
            mel = self._log_mel(real)
        else:
            real, mel, f0 = crops(self._sounds, self._plan.batch, draws)
        torch.manual_seed(draws.initial_seed())  # the source draws its phases and its noise from the global generator
        found = self._hift.f0_predictor(mel)
        is_given = step < _GIVEN_SHARE * self._plan.steps
        made = speak(self._hift, mel, f0 if is_given else found.detach())
        mel_l1 = F.l1_loss(self._log_mel(made), self._log_mel(real))
        convergence, logarithm = self._spectra(made, real)
        f0_l1 = F.l1_loss(found, f0)
        total = _MEL * mel_l1 + _CONVERGENCE * convergence + _LOGARITHM * logarithm + _F0 * f0_l1
        parts = {"mel_l1": mel_l1, "convergence": convergence, "logarithm": logarithm, "f0_hz": f0_l1}
        return total, {name: part.detach() for name, part in parts.items()}


def speak(hift: Any, mel: Tensor, f0: Tensor) -> Tensor:
    """Mel [rows, 80, frames], f0 in Hz [rows, frames] -> sound [rows, 480 * frames]; `forward`, but with this F0."""
    source, _, _ = hift.m_source(hift.f0_upsamp(f0[:, None]).transpose(1, 2))
    made: Tensor = hift.decode(x=mel, s=source.transpose(1, 2))
    return made


def crops(sounds: Sounds, rows: int, draws: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Sound float32 [rows, 480 * frames], and of the same moments mel [rows, 80, frames] and F0 in Hz [rows, frames].

    The sound of frame `i` is the 480 samples from `480 i` on: the frame's window is centred on their middle.
    """
    frames = _drawn(sounds, rows, _FRAMES, draws)
    return _sound(sounds, frames), sounds.mel[frames].float().transpose(1, 2), sounds.f0[frames]


def on_tape(sounds: Sounds, rows: int, speed: float, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sound and F0 as `crops` has them, played `speed` times as fast: higher, of a shorter vocal tract.

    A fast one may end in the silence that the next utterance begins with.
    """
    frames = _drawn(sounds, rows, math.ceil(_FRAMES * speed), draws)
    heard = _sound(sounds, frames)[:, None, None, : round(_FRAMES * _HOP * speed)]
    sound = F.interpolate(heard, (1, _FRAMES * _HOP), mode="bicubic", align_corners=False)[:, 0, 0]
    places = ((torch.arange(_FRAMES, device=frames.device) + 0.5) * speed).long()
    return sound, speed * sounds.f0[frames[:, places]]


def _drawn(sounds: Sounds, rows: int, frames: int, draws: torch.Generator) -> Tensor:
    """The numbers of some frames in a row, int64 [rows, frames]."""
    device = sounds.starts.device
    starts = sounds.starts[torch.randint(0, len(sounds.starts), (rows,), generator=draws, device=device)]
    places = starts.unsqueeze(1) + torch.arange(frames, device=device)
    return places.clamp(max=len(sounds.mel) - 1)


def _sound(sounds: Sounds, frames: Tensor) -> Tensor:
    return sounds.sound.view(-1, _HOP)[frames].flatten(1).float() / 32768


def _draw(draws: torch.Generator) -> float:
    return float(torch.rand(1, generator=draws, device=draws.device))


def prepare(corpus: Corpus, utterances: Sequence[Utterance], cache: Path, device: str) -> Sounds:
    """What a step crops from, on the device; WORLD's F0 is found once and kept in `cache`."""
    whole = [one for one in utterances if one.samples // _HOP >= _FRAMES]
    log_mel = LogMel(FAMILY.mel).to(device)
    sound, mel, starts, done = [], [], [], 0
    for utterance in track(whole, "spectrograms (vocoder)", unit="clip"):
        frames = utterance.samples // _HOP
        samples = torch.from_numpy(np.array(corpus.sound(utterance))).to(device)
        with torch.inference_mode():  # of the whole clip: its last samples belong to no frame but are heard by some
            mel.append(log_mel(samples[None].float() / 32768)[0].T.half())
        sound.append(samples[: frames * _HOP])
        starts.append(torch.arange(done, done + frames - _FRAMES + 1))
        done += frames
    f0 = torch.from_numpy(_cached_f0([corpus.sound(one) for one in whole], done, cache)).to(device)
    return Sounds(torch.cat(sound), torch.cat(mel), f0, torch.cat(starts).to(device))


def _cached_f0(sounds: Sequence[NDArray[np.int16]], frames: int, cache: Path) -> NDArray[np.float32]:
    """float32 [frames]: of all sounds in a row."""
    if cache.is_file():
        known = np.load(cache)
        if len(known) == frames:
            return np.asarray(known, dtype=np.float32)
    with Workers("auto") as workers:
        found = np.concatenate(list(workers.map(f0_of, sounds, "F0 (vocoder)", "clip")))
    with files.atomic_path(cache) as temporary, temporary.open("wb") as file:
        np.save(file, found)
    return found


def f0_of(sound: NDArray[np.int16]) -> NDArray[np.float32]:
    """int16 [samples] -> F0 in Hz at the middle of every frame of the mel, 0 where unvoiced: float32 [frames]."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # its import of pkg_resources
        import pyworld

    frames = len(sound) // _HOP
    samples = np.asarray(sound, dtype=np.float64) / 32768
    later = np.concatenate([samples[_HOP // 2 :], np.zeros(_HOP)])  # WORLD's frame i is centred on its hop times i
    low, high = _F0_RANGE_HZ
    rough, times = pyworld.dio(later, _RATE_HZ, f0_floor=low, f0_ceil=high, frame_period=_F0_EVERY_MS, speed=2)
    every = round(1000 * _HOP / _RATE_HZ / _F0_EVERY_MS)
    return np.asarray(pyworld.stonemask(later, rough, times, _RATE_HZ)[::every][:frames], dtype=np.float32)


@torch.no_grad()
def start_near(hift: Any, sounds: Sounds) -> None:
    """Let fresh weights begin with the loudness of the corpus, and learn from its mel at the pace of other layers.

    A log-mel is about -6: unless the first convolutions begin centred and the decoder's turns slowly, a step of their
    weights, all pushed by that mean, throws over what every later layer has learnt. Weight norm makes it
    easy: a longer `v` is the same weight, and turns more slowly.
    """
    size, hop = hift.istft_params["n_fft"], hift.istft_params["hop_len"]
    some = sounds.sound[: 120 * _RATE_HZ].float().cpu() / 32768
    spectrum = torch.stft(some, size, hop, window=hift.stft_window, return_complex=True)
    hift.conv_post.bias[: size // 2 + 1] = spectrum.abs().clamp(min=1e-4).log().mean(dim=1)
    mean = sounds.mel[: 2000 * _FRAMES].float().mean(dim=0).cpu()
    for first in (hift.conv_pre, hift.f0_predictor.condnet[0]):
        first.bias -= first.weight.sum(dim=2) @ mean
    hift.conv_pre.parametrizations.weight.original1 *= _SLOWER
    hift.f0_predictor.classifier.weight *= _F0_SCALE


@torch.inference_mode()
def evaluate(module: Any, corpus: Corpus, utterances: Sequence[Utterance]) -> dict[str, float]:
    """From real mel to sound, by upstream's `inference`, against the real sound; the means over the utterances.

    mel_l1; f0_semitones: root mean square where both are voiced, nan where nothing is; voicing: share of
    the frames in which only one is; real_time_factor: seconds of computing per second of sound.
    """
    device = next(module.parameters()).device
    log_mel = LogMel(FAMILY.mel).to(device)
    apart, semitones, voicing, spent_s, spoken_s = [], [], [], 0.0, 0.0
    for number, utterance in enumerate(track(utterances, "vocoder, held out", unit="clip")):
        frames = utterance.samples // _HOP
        real = np.array(corpus.sound(utterance))[: frames * _HOP]
        mel = log_mel(torch.from_numpy(real).to(device)[None].float() / 32768)
        torch.manual_seed(number)
        started_s = time.monotonic()
        made = module.inference(mel)[0].cpu()
        spent_s += time.monotonic() - started_s
        spoken_s += len(real) / _RATE_HZ
        apart.append(float(F.l1_loss(log_mel(made.to(device)), mel)))
        ours, theirs = f0_of((made[0].numpy() * 32768).astype(np.int16)), f0_of(real)
        is_both = (ours > 0) & (theirs > 0)
        semitones.append(12 * np.log2(ours[is_both] / theirs[is_both]))
        voicing.append((ours > 0) != (theirs > 0))
    voiced = np.concatenate(semitones)
    return {
        "mel_l1": float(np.mean(apart)),
        "f0_semitones": float(np.linalg.norm(voiced) / np.sqrt(len(voiced))) if len(voiced) else float("nan"),
        "voicing": float(np.mean(np.concatenate(voicing))),
        "real_time_factor": spent_s / spoken_s,
    }
