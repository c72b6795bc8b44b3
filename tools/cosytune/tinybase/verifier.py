"""The corpus -> the second judge of who speaks, which no part of the base has heard: sound -> 128 numbers.

It differs from the speaker encoder in all that matters: whole spectra with their tilt instead of filter banks without
their mean, a residual network over time and frequency with attention instead of a time-delay network, another seed.
Its ear is part of the file.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosytune.base import exporting
from cosytune.features.sound import MODEL_RATE_HZ
from cosytune.tinybase import learn, speakers
from cosytune.tinybase.corpus import Corpus
from cosytune.tinybase.learn import Plan

PLAN = {
    "cpu": Plan(steps=1200, learning_rate=2e-3, batch=32, warmup=100, weight_decay=0.05, ema=0.995, seed=2718),
    "cuda": Plan(steps=3000, learning_rate=2e-3, batch=128, warmup=200, weight_decay=0.05, ema=0.998, seed=2718),
}
EMBEDDING = 128
_BINS, _FFT = 64, 512
_LOWEST_HZ, _HIGHEST_HZ = 50.0, 7600.0
_WIDTHS = (24, 48, 80)
_ATTENTION = 32
_SPEEDS = (0.84, 0.91, 1.0, 1.09, 1.18)
_CLIPS_PER_SPEAKER = 60
_FAINTEST = 1e-8
"""Of mel power: digital silence."""
_FLOOR = 1e-4
"""40 dB below the clip's mean power nothing is heard: no room, no codec."""


class Ear(nn.Module):
    """float32 [rows, samples] at 16 kHz, -1 to 1 -> log mel power [rows, samples // 160 + 1, 64].

    The Fourier transform is a convolution with fixed kernels, so that it is part of the exported file.
    """

    kernels: Tensor
    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        turns = torch.arange(_FFT // 2 + 1).unsqueeze(1) * torch.arange(_FFT) % _FFT
        angles = 2 * math.pi / _FFT * turns
        waves = torch.cat([torch.cos(angles), torch.sin(angles)]) * torch.hann_window(_FFT)
        self.register_buffer("kernels", waves.unsqueeze(1), persistent=False)
        self.register_buffer("filters", _mel_filters().unsqueeze(2), persistent=False)

    def forward(self, sound: Tensor) -> Tensor:
        padded = F.pad(sound.unsqueeze(1), (_FFT // 2, _FFT // 2))
        real, imaginary = F.conv1d(padded, self.kernels, stride=speakers.HOP).chunk(2, dim=1)
        power: Tensor = F.conv1d(real**2 + imaginary**2, self.filters)
        return power.clamp(min=_FAINTEST).log().transpose(1, 2)


def _mel_filters() -> Tensor:
    """float32 [64, 257]: triangles, evenly spaced on the mel scale."""
    low, high = (1127 * math.log1p(hertz / 700) for hertz in (_LOWEST_HZ, _HIGHEST_HZ))
    edges = 700 * torch.expm1(torch.linspace(low, high, _BINS + 2) / 1127)
    bins = torch.linspace(0, MODEL_RATE_HZ / 2, _FFT // 2 + 1)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp(min=0)


class _Residual(nn.Module):
    """Two 3 x 3 convolutions, and the input added; a stride halves both axes."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.change = nn.Sequential(
            nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(),
            nn.Conv2d(outside, outside, 3, padding=1, bias=False),
            nn.BatchNorm2d(outside),
        )
        self.keep = (
            nn.Identity()
            if stride == 1
            else nn.Sequential(nn.Conv2d(inside, outside, 1, stride=stride, bias=False), nn.BatchNorm2d(outside))
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.change(x) + self.keep(x))


class Verifier(nn.Module):
    """float32 [rows, samples] at 16 kHz -> [rows, 128], of length 1."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third = _WIDTHS
        self.ear = Ear()
        self.blocks = nn.Sequential(
            nn.Conv2d(1, first, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            _Residual(first, first, 1),
            _Residual(first, second, 2),
            _Residual(second, second, 1),
            _Residual(second, third, 2),
            _Residual(third, third, 1),
        )
        wide = third * _BINS // 8
        self.attention = nn.Sequential(nn.Conv1d(wide, _ATTENTION, 1), nn.Tanh(), nn.Conv1d(_ATTENTION, 1, 1))
        self.embed = nn.Sequential(nn.BatchNorm1d(2 * wide), nn.Linear(2 * wide, EMBEDDING))

    def forward(self, sound: Tensor) -> Tensor:
        return self.read(self.ear(sound))

    def read(self, heard: Tensor) -> Tensor:
        """Log mel power [rows, frames, 64], of any loudness."""
        x = self.blocks(_levelled(heard.float()).transpose(1, 2).unsqueeze(1)).flatten(1, 2)
        weights = self.attention(x).float().softmax(dim=2)
        x = x.float()
        mean = (weights * x).sum(dim=2)
        spread = (weights * (x - mean.unsqueeze(2)) ** 2).sum(dim=2).clamp(min=1e-4).sqrt()
        return F.normalize(self.embed(torch.cat([mean, spread], dim=1)).float(), dim=1)


def _levelled(heard: Tensor) -> Tensor:
    """Against the clip's mean power, down to a floor; about -1 to 2. The tilt stays."""
    power = heard.exp()
    power = power / power.mean(dim=(1, 2), keepdim=True).clamp(min=10 * _FAINTEST)
    return 0.25 * ((power + _FLOOR).log() + 5)


class _Training(nn.Module):
    """The verifier, and what is thrown away."""

    def __init__(self, likeness: Tensor) -> None:
        super().__init__()
        self.verifier = Verifier()
        self.classes = speakers.Classes(EMBEDDING, likeness)


def make(corpus: Corpus, directory: Path, device: str, plan: Plan) -> Verifier:
    """Train; weights.pt and log.jsonl."""
    chosen = speakers.chosen(corpus, _CLIPS_PER_SPEAKER)
    torch.manual_seed(plan.seed)
    model = _Training(speakers.likeness(corpus.speakers, _SPEEDS)).to(device)
    if not (directory / learn.WEIGHTS).is_file():
        hearing = speakers.Hearing(model.verifier.ear, lambda samples: samples // speakers.HOP + 1)
        clips = speakers.hear(corpus, chosen, hearing, _SPEEDS, device, "spectrograms (verifier)")
        lesson = speakers.Lesson(model.verifier.read, model.classes, clips, plan, device)
        learn.fit("verifier", model, lesson.loss, plan, directory, device)
    return load(directory).to(device)


def load(directory: Path) -> Verifier:
    """The verifier alone, on the CPU, in eval mode."""
    verifier = Verifier()
    state = learn.plain_weights(directory)
    verifier.load_state_dict(
        {key.removeprefix("verifier."): value for key, value in state.items() if key.startswith("verifier.")}
    )
    return verifier.eval()


def export(module: nn.Module, path: Path) -> None:
    """Write ONNX: sound float32 [1, samples] at 16 kHz -> voice float32 [1, 128], of length 1."""
    exporting.export(
        module, (0.1 * torch.randn(1, MODEL_RATE_HZ),), path, ["sound"], "voice", {"sound": {1: "samples"}}
    )
