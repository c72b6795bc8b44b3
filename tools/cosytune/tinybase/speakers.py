"""The corpus -> who speaks, as both speaker models learn it: frames on the device, crops of them, the loss.

Each clip is heard at several speeds. A voice on a faster tape is another voice, with another pitch and another vocal
tract: speakers times speeds are the classes, so that a model does not learn its few speakers by heart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

from cosytune.features.sound import MODEL_RATE_HZ
from cosytune.progress import track
from cosytune.tinybase import learn, voices
from cosytune.tinybase.corpus import Corpus, Utterance
from cosytune.tinybase.voices import RATE_HZ, Voice

HOP = MODEL_RATE_HZ // 100
_ROWS = 64
"""Clips of about one length that are heard at once."""
_NOISE_DB = (25.0, 65.0)
"""Below the loudest moment of a crop."""
_SCALE = 24.0
_MARGIN = 0.2
"""Radians that an embedding has to be nearer to its own class than to any other one."""
_REACH = 3.0
"""Audible steps (`voices.difference`) over which the likeness of two voices falls to 1 / e."""
_RULER = 60.0
"""Weight of the likeness of voices beside the loss that tells classes apart."""


@dataclass(frozen=True)
class Hearing:
    """Sound float32 [rows, samples] at 16 kHz -> log power [rows, frames, bins], and how many frames samples have."""

    hear: Callable[[Tensor], Tensor]
    frames: Callable[[int], int]


@dataclass(frozen=True)
class Clips:
    """All clips at all speeds, in a row.

    frames: float16 [all frames, bins], 100 frames/s; starts, lengths: int64 [clips], in frames; classes: int64 [clips].
    """

    frames: Tensor
    starts: Tensor
    lengths: Tensor
    classes: Tensor


def chosen(corpus: Corpus, per_speaker: int) -> list[Utterance]:
    """At most so many training utterances of each speaker, spread over the corpus."""
    found = []
    for speaker in corpus.speakers:
        own = [one for one in corpus.of("train") if one.speaker == speaker]
        take = min(per_speaker, len(own))
        found += [own[number * len(own) // take] for number in range(take)]
    return found


def hear(
    corpus: Corpus, utterances: Sequence[Utterance], hearing: Hearing, speeds: Sequence[float], device: str, label: str
) -> Clips:
    """The clips of one speed after those of another, each speed in the order of the utterances."""
    names = sorted({one.speaker for one in utterances})
    order = sorted(range(len(utterances)), key=lambda number: utterances[number].samples)
    batches = [order[first : first + _ROWS] for first in range(0, len(order), _ROWS)]
    tapes = [(number, _tape(speed).to(device)) for number, speed in enumerate(speeds)]
    rows: dict[int, Tensor] = {}
    for batch in track(batches, label, unit="batch"):
        sounds = [torch.from_numpy(corpus.sound(utterances[one]).astype(np.float32) / 32768) for one in batch]
        padded = nn.utils.rnn.pad_sequence(sounds, batch_first=True).to(device)
        for number, tape in tapes:
            # Silence behind a clip is what resampling a clip alone takes for granted: padding changes nothing.
            heard = hearing.hear(tape(padded)).half()
            for row, one in enumerate(batch):
                samples = -(-tape.new_freq // tape.gcd * len(sounds[row]) // (tape.orig_freq // tape.gcd))
                rows[number * len(utterances) + one] = heard[row, : hearing.frames(samples)]
    ordered = [rows.pop(key) for key in range(len(rows))]
    lengths = torch.tensor([len(one) for one in ordered])
    speakers = torch.tensor([names.index(one.speaker) for one in utterances])
    classes = torch.cat([speakers + number * len(names) for number in range(len(speeds))])
    starts = lengths.cumsum(0) - lengths
    return Clips(torch.cat(ordered), starts.to(device), lengths.to(device), classes.to(device))


def likeness(speakers: Sequence[str], speeds: Sequence[float]) -> Tensor:
    """Of every class with every other, float32 [classes, classes]: 1 for itself, and less the farther apart.

    Raises KeyError for a speaker whom the corpus never has.
    """
    known = {voice.name: voice for voice in voices.cast(len(speakers), 0)}
    heard = [_on_tape(known[name], speed) for speed in speeds for name in speakers]
    steps = torch.tensor([[voices.difference(one, other) for other in heard] for one in heard])
    return torch.exp(-steps / _REACH)


def _on_tape(voice: Voice, speed: float) -> Voice:
    return replace(
        voice,
        warp_low=voice.warp_low * speed,
        warp_high=voice.warp_high * speed,
        pitch_hz=voice.pitch_hz * speed,
    )


def _tape(speed: float) -> Any:
    """24 kHz -> 16 kHz, played faster or slower."""
    return torchaudio.transforms.Resample(round(RATE_HZ * speed), MODEL_RATE_HZ)


class Classes(nn.Module):
    """AAM-softmax: an embedding belongs to the class whose direction it is nearest to, by a margin.

    And a ruler: its cosine with the other classes is their likeness, float32 [classes, classes], so that a voice on its
    way to another one comes steadily nearer, and a voice that was never heard has its place between its neighbours.
    """

    likeness: Tensor

    def __init__(self, width: int, likeness: Tensor) -> None:
        super().__init__()
        self.directions = nn.Parameter(torch.randn(len(likeness), width))
        self.register_buffer("likeness", likeness, persistent=False)

    def forward(self, embeddings: Tensor, classes: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """[rows, width], [rows] -> the loss with this share of the margin, and how many are right."""
        cosine = F.normalize(embeddings.float(), dim=1) @ F.normalize(self.directions, dim=1).T
        own = cosine.gather(1, classes.unsqueeze(1)).clamp(-0.9999, 0.9999)
        # Beyond the half circle a cosine would rise again.
        wanted = torch.cos((torch.arccos(own) + share * _MARGIN).clamp(max=torch.pi))
        scores = cosine.scatter(1, classes.unsqueeze(1), wanted)
        right = (cosine.argmax(dim=1) == classes).float().mean()
        ruler = ((cosine - self.likeness[classes]) ** 2).mean()
        return F.cross_entropy(_SCALE * scores, classes) + _RULER * ruler, right


class Lesson:
    """The loss of a step: crops of one length, noisy, each to be told from all other classes."""

    def __init__(
        self, read: Callable[[Tensor], Tensor], classes: Classes, clips: Clips, plan: learn.Plan, device: str
    ) -> None:
        self._read, self._classes, self._clips = read, classes, clips
        self._plan, self._device = plan, device

    def loss(self, step: int) -> tuple[Tensor, Mapping[str, Any]]:
        """`read` hears log power, float32 [rows, frames, bins]."""
        torch.manual_seed(self._plan.seed + step)  # dropout draws from the common generator
        frames = (60, 100, 150, 200, 250)[step * 7 % 5]
        generator = learn.generator(self._plan.seed, step, self._device)
        clips, size = self._clips, (self._plan.batch, 1)
        rows = torch.randint(len(clips.starts), size, generator=generator, device=self._device)
        first = torch.rand(size, generator=generator, device=self._device) * (clips.lengths[rows] - frames).clamp(min=1)
        places = first.long() + torch.arange(frames, device=self._device)
        crops = clips.frames[clips.starts[rows] + places % clips.lengths[rows]].float()  # a short clip begins again
        with torch.autocast(self._device.split(":")[0], enabled=False):
            crops = _disturbed(crops, generator)
        embeddings = self._read(crops)
        with torch.autocast(self._device.split(":")[0], enabled=False):
            share = min(1.0, 2 * step / self._plan.steps)  # at full margin from the start nothing would be learned
            value, right = self._classes(embeddings, clips.classes[rows[:, 0]], share)
        return value, {"right": right.detach()}


def _disturbed(crops: Tensor, generator: torch.Generator) -> Tensor:
    """Log power [rows, frames, bins] -> louder or softer, smeared, tilted a little, over noise."""
    rows, _, bins = crops.shape

    def between(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand((rows, *(shape or (1, 1))), generator=generator, device=crops.device)

    axis = torch.linspace(-0.5, 0.5, bins, device=crops.device)
    along = F.avg_pool1d(crops.transpose(1, 2), 3, stride=1, padding=1, count_include_pad=False).transpose(1, 2)
    across = F.avg_pool1d(crops, 3, stride=1, padding=1, count_include_pad=False)
    crops = torch.lerp(crops, along, between(-1, 1).clamp(min=0))
    crops = torch.lerp(crops, across, between(-1, 0.8).clamp(min=0))
    crops = crops + between(-1.5, 1.5) + axis * between(-0.7, 0.7)
    to_log = float(np.log(10)) / 10
    level = crops.amax(dim=(1, 2), keepdim=True) - between(*_NOISE_DB) * to_log + axis * between(-4, 4)
    noise = level + torch.log(-torch.log(between(1e-6, 1 - 1e-6, *crops.shape[1:])))
    return torch.where(between(0, 1) < 0.6, torch.logaddexp(crops, noise), crops)
