"""The corpus -> a speaker encoder in CAM++'s place: Kaldi's filter banks -> 192 numbers that say who speaks.

A small time-delay network that pools means and spreads over time, trained to tell the corpus's speakers, at several
speeds, from each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.compliance import kaldi

from cosytune.base import exporting
from cosytune.features.sound import MODEL_RATE_HZ
from cosytune.features.speech import MIN_SAMPLES
from cosytune.tinybase import learn, speakers
from cosytune.tinybase.corpus import Corpus, Utterance
from cosytune.tinybase.learn import Plan

PLAN = {
    "cpu": Plan(steps=1500, learning_rate=2e-3, batch=48, warmup=100, weight_decay=0.05, ema=0.995, seed=19),
    "cuda": Plan(steps=3000, learning_rate=2e-3, batch=192, warmup=200, weight_decay=0.05, ema=0.998, seed=19),
}
EMBEDDING = 192
_BANKS, _FFT, _PREEMPHASIS = 80, 512, 0.97
_WIDTH, _POOLED = 192, 384
_SPEEDS = (0.86, 0.93, 1.0, 1.075, 1.16)
_CLIPS_PER_SPEAKER = 60
_ROWS = 128


class _Delay(nn.Module):
    """What was and will be heard some frames away, added."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.along = nn.Conv1d(_WIDTH, _WIDTH, 3, padding=dilation, dilation=dilation)
        self.norm = nn.BatchNorm1d(_WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.norm(F.relu(self.along(x)))
        return x + changed


class SpeakerEncoder(nn.Module):
    """float32 [rows, frames, 80], each clip's mean over time removed -> [rows, 192], as long as 192 ones."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(_BANKS, _WIDTH, 5, stride=2, padding=2), nn.ReLU(), nn.BatchNorm1d(_WIDTH))
        self.delays = nn.Sequential(*(_Delay(dilation) for dilation in (1, 2, 3)))
        self.widen = nn.Sequential(nn.Conv1d(_WIDTH, _POOLED, 1), nn.ReLU(), nn.BatchNorm1d(_POOLED))
        self.embed = nn.Sequential(nn.Linear(2 * _POOLED, EMBEDDING), nn.BatchNorm1d(EMBEDDING))

    def forward(self, banks: Tensor) -> Tensor:
        heard = self.widen(self.delays(self.stem(0.3 * banks.transpose(1, 2)))).float()
        mean = heard.mean(dim=2)
        spread = ((heard - mean.unsqueeze(2)) ** 2).mean(dim=2).clamp(min=1e-4).sqrt()
        found: Tensor = self.embed(torch.cat([mean, spread], dim=1)).float()
        return F.normalize(found, dim=1) * math.sqrt(EMBEDDING)

    def read(self, banks: Tensor) -> Tensor:
        """Banks whose mean was not removed yet."""
        found: Tensor = self(banks - banks.mean(dim=1, keepdim=True))
        return found


class _Training(nn.Module):
    """The encoder, and what is thrown away."""

    def __init__(self, likeness: Tensor) -> None:
        super().__init__()
        self.encoder = SpeakerEncoder()
        self.classes = speakers.Classes(EMBEDDING, likeness)


def make(corpus: Corpus, directory: Path, device: str, plan: Plan) -> SpeakerEncoder:
    """Train; weights.pt and log.jsonl."""
    chosen = speakers.chosen(corpus, _CLIPS_PER_SPEAKER)
    torch.manual_seed(plan.seed)
    model = _Training(speakers.likeness(corpus.speakers, _SPEEDS)).to(device)
    if not (directory / learn.WEIGHTS).is_file():
        clips = speakers.hear(corpus, chosen, hearing(device), _SPEEDS, device, "filter banks (speaker encoder)")
        lesson = speakers.Lesson(model.encoder.read, model.classes, clips, plan, device)
        learn.fit("speaker encoder", model, lesson.loss, plan, directory, device)
    return load(directory).to(device)


def load(directory: Path) -> SpeakerEncoder:
    """The encoder alone, on the CPU, in eval mode."""
    encoder = SpeakerEncoder()
    state = learn.plain_weights(directory)
    encoder.load_state_dict(
        {key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")}
    )
    return encoder.eval()


@torch.inference_mode()
def embed(module: SpeakerEncoder, corpus: Corpus, utterances: Sequence[Utterance], device: str) -> Tensor:
    """Each utterance as a whole: float32 [utterances, 192], on the device, in their order."""
    module = module.to(device).eval()
    clips = speakers.hear(corpus, utterances, hearing(device), (1.0,), device, "filter banks (embeddings)")
    found = torch.zeros(len(utterances), EMBEDDING, device=device)
    for length in clips.lengths.unique().tolist():  # no padding: it would be heard
        for rows in (clips.lengths == length).nonzero()[:, 0].split(_ROWS):
            places = clips.starts[rows].unsqueeze(1) + torch.arange(length, device=device)
            found[rows] = module.read(clips.frames[places].float())
    return found


def export(module: nn.Module, path: Path) -> None:
    """Write campplus.onnx, with the names and shapes of the published one."""
    exporting.export(module, (torch.randn(1, 200, _BANKS),), path, ["input"], "output", {"input": {1: "frames"}})


def hearing(device: str) -> speakers.Hearing:
    """`kaldi.fbank` of many clips at once, on any device; its arithmetic, with its defaults."""
    window = torch.hann_window(MIN_SAMPLES, periodic=False).pow(0.85).to(device)  # Povey's
    filters = kaldi.get_mel_banks(_BANKS, _FFT, float(MODEL_RATE_HZ), 20.0, 0.0, 100.0, -500.0, 1.0)[0]
    filters = F.pad(filters, (0, 1)).T.to(device)

    def hear(sound: Tensor) -> Tensor:
        sound = F.pad(sound, (0, max(0, MIN_SAMPLES - sound.shape[1])))
        frames = sound.unfold(1, MIN_SAMPLES, speakers.HOP)
        frames = frames - frames.mean(dim=2, keepdim=True)
        before = torch.cat([frames[:, :, :1], frames[:, :, :-1]], dim=2)
        spectrum = torch.fft.rfft((frames - _PREEMPHASIS * before) * window, n=_FFT)
        power: Tensor = spectrum.abs().pow(2) @ filters
        return power.clamp(min=torch.finfo(torch.float32).eps).log()

    return speakers.Hearing(hear, lambda samples: max(1, 1 + (samples - MIN_SAMPLES) // speakers.HOP))
