"""The corpus -> a kana recogniser, the first judge: sound at 16 kHz -> a score for each kana, 33 times a second.

Convolutions and CTC, 1.3 million parameters. It hears less than a second around each frame, so that it writes down
what is there and not what the sentence wants. Nothing that speaks is trained with it; `cosytune.voice.kana` hears
through the exported file. Its training sees the train split alone, bent in ways that leave the words: other tempo and
other formants, noise, a dull or blurred spectrum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosytune.base import exporting
from cosytune.progress import track
from cosytune.tinybase import learn
from cosytune.tinybase.corpus import Corpus, Utterance
from cosytune.tinybase.features import Buckets, inside
from cosytune.tinybase.learn import Plan
from cosytune.tinybase.voices import RATE_HZ
from cosytune.voice import kana
from cosytune.voice.kana import UNITS

PLAN = {
    "cpu": Plan(steps=3000, learning_rate=2e-3, batch=16, ema=0.998),
    "cuda": Plan(steps=8350, learning_rate=2e-3, batch=64, precision="bf16"),
}
_BINS, _HOP, _WINDOW, _FFT = 80, 160, 400, 512
_STRIDE = 3
_WIDTH, _WIDER, _BLOCKS, _KERNEL = 192, 448, 6, 9
_DROPOUT = 0.1
_LOWEST_HZ, _HIGHEST_HZ = 20.0, 7600.0
_SLOWEST = 1.15
"""The tempo is changed by up to this factor, either way."""
_SILENCE = 30
"""Frames; at most so much silence is put before and behind a clip."""
_FLOOR = 1e-4
"""Of mel power: about -80 dBFS. What is fainter is silence, however much of it there is."""
_RANGE = 6 * math.log(10)
"""60 dB: what is fainter than that below the loudest moment of a clip is not heard."""


class Ear(nn.Module):
    """float32 [rows, samples] at 16 kHz, -1 to 1 -> log mel power, [rows, 80, samples // 160 + 1], 60 dB deep.

    The Fourier transform is a convolution with fixed kernels, so that it is part of the exported file.
    """

    kernels: Tensor
    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        angles = 2 * math.pi / _FFT * torch.arange(_FFT // 2 + 1).unsqueeze(1) * torch.arange(_WINDOW)
        window = torch.hann_window(_WINDOW, periodic=True)
        waves = torch.cat([torch.cos(angles), torch.sin(angles)]) * window
        self.register_buffer("kernels", waves.unsqueeze(1), persistent=False)
        self.register_buffer("filters", _mel_filters().unsqueeze(2), persistent=False)

    def forward(self, sound: Tensor) -> Tensor:
        padded = F.pad(sound.unsqueeze(1), (_WINDOW // 2, _WINDOW // 2))
        real, imaginary = F.conv1d(padded, self.kernels, stride=_HOP).chunk(2, dim=1)
        heard = F.conv1d(real**2 + imaginary**2, self.filters).clamp(min=_FLOOR).log()
        return torch.maximum(heard, heard.amax(dim=(1, 2), keepdim=True) - _RANGE)


def _mel_filters() -> Tensor:
    """float32 [80, 257]: triangles, evenly spaced on the mel scale."""
    edges = _hertz(torch.linspace(_mel(_LOWEST_HZ), _mel(_HIGHEST_HZ), _BINS + 2))
    bins = torch.linspace(0, kana.RATE_HZ / 2, _FFT // 2 + 1)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp(min=0)


def _mel(hertz: float) -> float:
    return 1127 * math.log1p(hertz / 700)


def _hertz(mel: Tensor) -> Tensor:
    return 700 * torch.expm1(mel / 1127)


class _Block(nn.Module):
    """A depth-wise convolution, a norm over the channels, two matrices, and the input added."""

    def __init__(self) -> None:
        super().__init__()
        self.along = nn.Conv1d(_WIDTH, _WIDTH, _KERNEL, padding=_KERNEL // 2, groups=_WIDTH)
        self.norm = nn.LayerNorm(_WIDTH)
        self.across = nn.Sequential(
            nn.Linear(_WIDTH, _WIDER), nn.GELU(), nn.Dropout(_DROPOUT), nn.Linear(_WIDER, _WIDTH), nn.Dropout(_DROPOUT)
        )

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.across(self.norm(self.along(x).transpose(1, 2)))
        return x + changed.transpose(1, 2)


class Recogniser(nn.Module):
    """float32 [rows, samples] at 16 kHz -> logits [rows, frames, 1 + units]; a frame is 30 ms, output 0 the blank."""

    def __init__(self) -> None:
        super().__init__()
        self.ear = Ear()
        self.stem = nn.ModuleList(
            [nn.Conv1d(_BINS, _WIDTH, 5, padding=2), nn.Conv1d(_WIDTH, _WIDTH, 5, stride=_STRIDE, padding=2)]
        )
        self.blocks = nn.ModuleList(_Block() for _ in range(_BLOCKS))
        self.head = nn.Sequential(nn.LayerNorm(_WIDTH), nn.Dropout(_DROPOUT), nn.Linear(_WIDTH, 1 + len(UNITS)))

    def forward(self, sound: Tensor) -> Tensor:
        heard: Tensor = self.ear(sound)
        return self.read(normalised(heard, torch.ones_like(heard[:, :1])), None)

    def read(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """Normalised log-mel [rows, 80, frames], 0 beyond the rows' `lengths` -> logits, as of each row alone."""
        x = F.gelu(self.stem[0](x))
        x = self.stem[1](x if lengths is None else x * inside(lengths, x.shape[2]).unsqueeze(1))
        is_own = None if lengths is None else inside(outputs(lengths), x.shape[2]).unsqueeze(1)
        for block in self.blocks:
            x = block(x if is_own is None else x * is_own)
        scores: Tensor = self.head(x.transpose(1, 2))
        return scores


def outputs(frames: Tensor) -> Tensor:
    """How many frames of 30 ms there are of frames of 10 ms."""
    found: Tensor = (frames - 1) // _STRIDE + 1
    return found


def normalised(heard: Tensor, is_own: Tensor) -> Tensor:
    """Log-mel [rows, 80, frames] -> each bin's mean over the row's own frames 0, their spread 1; 0 elsewhere.

    A clip that hardly changes stays small: silence is not blown up to speech. is_own: [rows, 1, frames], 0 or 1.
    """
    count = is_own.sum(dim=2, keepdim=True)
    centred = (heard - (heard * is_own).sum(dim=2, keepdim=True) / count) * is_own
    spread = ((centred**2).sum(dim=(1, 2), keepdim=True) / (count * _BINS)).sqrt()
    return centred / spread.clamp(min=1.0)


def make(corpus: Corpus, directory: Path, device: str, plan: Plan) -> nn.Module:
    """Train on the train split; weights.pt and log.jsonl."""
    torch.manual_seed(plan.seed)
    model = Recogniser().to(device)
    lesson = _Lesson(model, corpus, corpus.of("train"), plan, device)
    return learn.fit("recogniser", model, lesson.loss, plan, directory, device)


def load(directory: Path) -> Recogniser:
    """On the CPU, in eval mode."""
    model = Recogniser()
    model.load_state_dict(learn.plain_weights(directory))
    return model.eval()


def export(module: nn.Module, path: Path) -> None:
    """Write ONNX: sound float32 [1, samples] at 16 kHz -> logits float32 [1, samples // 160 // 3 + 1, 1 + units]."""
    exporting.export(
        module, (torch.randn(1, 16000),), path, ["sound"], "logits", {"sound": {1: "samples"}, "logits": {1: "frames"}}
    )


@dataclass(frozen=True)
class _Clips:
    """Log-mel of all clips end to end, float16 [frames, 80]; starts, lengths: int64 [clips], in frames of 10 ms."""

    heard: Tensor
    starts: Tensor
    lengths: Tensor


def _clips(ear: Ear, corpus: Corpus, utterances: Sequence[Utterance], device: str) -> _Clips:
    import soxr

    heard, lengths = [], []
    with torch.inference_mode():
        for utterance in track(utterances, "spectrograms (recogniser)", unit="clip"):
            sound = soxr.resample(corpus.sound(utterance).astype(np.float32) / 32768, RATE_HZ, kana.RATE_HZ)
            heard.append(ear(torch.from_numpy(sound)[None].to(device))[0].T.half())
            lengths.append(len(heard[-1]))
    counts = torch.tensor(lengths, device=device)
    return _Clips(torch.cat(heard), counts.cumsum(0) - counts, counts)


class _Lesson:
    """The CTC loss of a step: whole clips of about one length, bent."""

    def __init__(
        self, model: Recogniser, corpus: Corpus, utterances: Sequence[Utterance], plan: Plan, device: str
    ) -> None:
        self._model, self._plan, self._device = model, plan, device
        self._clips = _clips(model.ear, corpus, utterances, device)
        self._lengths = self._clips.lengths.tolist()
        self._buckets = Buckets(self._lengths, plan.batch)
        index = {unit: number for number, unit in enumerate(UNITS, start=1)}
        spelled = [[index[unit] for unit in kana.phrases(one.kana)] for one in utterances]
        self._counts = torch.tensor([len(one) for one in spelled])
        self._units = nn.utils.rnn.pad_sequence([torch.tensor(one) for one in spelled], batch_first=True).to(device)

    def loss(self, step: int) -> tuple[Tensor, Mapping[str, Any]]:
        torch.manual_seed(self._plan.seed + step)  # dropout draws from the common generator
        chosen = torch.from_numpy(self._buckets.draw(learn.generator(self._plan.seed, step)))
        rows, draw = chosen.to(self._device), _Draw(learn.generator(self._plan.seed, step, self._device), len(chosen))
        longest = math.ceil(max(self._lengths[row] for row in chosen.tolist()) * _SLOWEST) + 2 * _SILENCE
        with torch.autocast(self._device.split(":")[0], enabled=False):
            heard, lengths = _stretched(self._clips, rows, longest, draw)
            is_own = inside(lengths, longest).unsqueeze(1)
            heard = _masked(normalised(_bent(heard, draw), is_own.float()), draw) * is_own
        scores = self._model.read(heard, lengths).float().log_softmax(dim=2)
        counts = self._counts[chosen]
        units = self._units[rows, : int(counts.max())]
        value = F.ctc_loss(scores.transpose(0, 1), units, outputs(lengths), counts.to(self._device), zero_infinity=True)
        return value, {}


class _Draw:
    """Random numbers of one step: [rows, *shape]."""

    def __init__(self, generator: torch.Generator, rows: int) -> None:
        self._generator, self._rows = generator, rows

    def between(self, low: float, high: float, *shape: int) -> Tensor:
        size = (self._rows, *(shape or (1, 1)))
        return low + (high - low) * torch.rand(size, generator=self._generator, device=self._generator.device)

    def often(self, share: float, *shape: int) -> Tensor:
        """1 with this probability, else 0."""
        return (self.between(0, 1, *shape) < share).float()


def _stretched(clips: _Clips, rows: Tensor, longest: int, draw: _Draw) -> tuple[Tensor, Tensor]:
    """The rows' log-mel [rows, 80, longest] at another tempo, between silences; and their lengths [rows]."""
    tempo, before, behind = (draw.between(*both, 1) for both in ((1 / _SLOWEST, _SLOWEST), *((0, _SILENCE),) * 2))
    starts, own = clips.starts[rows].unsqueeze(1), clips.lengths[rows].unsqueeze(1)
    places = (torch.arange(longest, device=rows.device) - before) / tempo
    low = places.floor()
    # Before its start and behind its end a clip stays as it is there: silent.
    first, second = (clips.heard[starts + (low.long() + step).clamp(min=0).minimum(own - 1)].float() for step in (0, 1))
    heard = torch.lerp(first, second, (places - low).unsqueeze(2))
    return heard.transpose(1, 2), (own * tempo + before + behind)[:, 0].long()


def _bent(heard: Tensor, draw: _Draw) -> Tensor:
    """Log-mel [rows, 80, frames] as of another throat, through another line: formants moved, blurred, dull, noisy."""
    bins = torch.arange(_BINS, device=heard.device)
    read_at = _bin(_centres(heard.device) * draw.between(0.88, 1.14)).transpose(1, 2)
    blur = 1 + draw.between(0, 1) * draw.often(0.5)
    mixing = (1 - (read_at.clamp(0, _BINS - 1) - bins).abs() / blur).clamp(min=0)
    heard = torch.bmm(mixing / mixing.sum(dim=2, keepdim=True), heard)
    slowed = F.avg_pool1d(heard, 3, stride=1, padding=1, count_include_pad=False)
    heard = torch.lerp(heard, slowed, draw.between(0, 1) * draw.often(0.5))
    dull = (
        (bins.view(1, -1, 1) - draw.between(_BINS * 0.7, _BINS)).clamp(min=0) * draw.between(0.2, 1.5) * draw.often(0.4)
    )
    loudest = heard.amax(dim=(1, 2), keepdim=True)
    tilt = (bins.view(1, -1, 1) / _BINS - 0.5) * draw.between(-5, 5)
    level = loudest - draw.between(28, 60) * math.log(10) / 10 + tilt
    noise = level.exp() * -draw.between(1e-6, 1, *heard.shape[1:]).log() * draw.often(0.7)
    return torch.maximum(((heard - dull).exp() + noise).log(), loudest - _RANGE)


def _centres(device: torch.device) -> Tensor:
    """Hz of the filters' peaks, [80]."""
    return _hertz(torch.linspace(_mel(_LOWEST_HZ), _mel(_HIGHEST_HZ), _BINS + 2, device=device)[1:-1])


def _bin(hertz: Tensor) -> Tensor:
    """The other way round, between two filters, too."""
    step = (_mel(_HIGHEST_HZ) - _mel(_LOWEST_HZ)) / (_BINS + 1)
    return (1127 * torch.log1p(hertz / 700) - _mel(_LOWEST_HZ)) / step - 1


def _masked(heard: Tensor, draw: _Draw) -> Tensor:
    """SpecAugment: two stripes of up to 8 bins and three of up to 40 ms, less than a kana, at the mean."""
    for dimension, stripes, widest in ((1, 2, 8), (2, 3, 4)):
        size = heard.shape[dimension]
        places = torch.arange(size, device=heard.device)
        first, width = draw.between(0, size, stripes, 1), draw.between(0, widest, stripes, 1)
        kept = ((places < first) | (places >= first + width)).all(dim=1)
        heard = heard * (kept.unsqueeze(2) if dimension == 1 else kept.unsqueeze(1))
    return heard
