"""The corpus -> a speech tokenizer: Whisper's log-mel -> 25 codes a second that say what was spoken, not by whom.

A finite scalar quantizer like CosyVoice2's: 8 digits of 3 levels. It is trained to hear any speaker and to write down
what the canonical voice would have sounded like at the same moment: words and melody stay, the voice goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cosytune import files
from cosytune.base import exporting
from cosytune.tinybase import learn
from cosytune.tinybase.codes import DIGITS, LEVELS
from cosytune.tinybase.corpus import Corpus, Utterance
from cosytune.tinybase.features import (
    MEL_PER_TOKEN,
    WHISPER_PER_TOKEN,
    Buckets,
    Features,
    extract,
    gather,
    inside,
    of_one_length,
)
from cosytune.tinybase.learn import Plan

PLAN = {
    "cpu": Plan(steps=2500, learning_rate=2e-3, batch=12),
    "cuda": Plan(steps=2450, learning_rate=2e-3, batch=48, precision="bf16"),
}
TOKENS = "tokens.pt"
_MEL_BINS = 128
_WIDTH, _WIDER = 160, 480
_ALMOST_ONE = 0.999
"""Of upstream's quantizer: rounding what tanh gives never leaves the three levels."""
_NOISE = 0.15
"""Added before rounding in training: digits then keep away from the borders between two levels."""
_RETOLD = 7
"""How often each utterance is heard again for the LLM, see `_retold`: with a single rendering of each of a few thousand
sentences it learns those by heart (67 % of their tokens right, and 44 % of other sentences')."""
_TEMPO = 0.08
"""The natural logarithm of how much faster or slower it may be then."""
_AGREE, _SPELL = 1.0, 0.2
"""Weights of the losses beside the spectrogram's: both voices get one code; the kana can be read from the codes."""


class Encoder(nn.Module):
    """What is shipped: float32 [rows, 128, 4 * tokens] -> the digits before rounding, [rows, 8, tokens], -1 to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv1d(_MEL_BINS, _WIDTH, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Conv1d(_WIDTH, _WIDTH, 5, stride=2, padding=2),
        )
        self.blocks = nn.Sequential(*(Block(_WIDTH, _WIDER) for _ in range(5)))
        self.head = nn.Conv1d(_WIDTH, DIGITS, 1)

    def forward(self, whisper: Tensor) -> Tensor:
        digits: Tensor = torch.tanh(self.head(self.blocks(self.stem(whisper))))
        return digits


class Block(nn.Module):
    """ConvNeXt's: a depth-wise convolution, a norm over the channels, two matrices, and the input added."""

    def __init__(self, width: int, wider: int, kernel: int = 5) -> None:
        super().__init__()
        self.along = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.across = nn.Sequential(nn.Linear(width, wider), nn.GELU(), nn.Linear(wider, width))

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.across(self.norm(self.along(x).transpose(1, 2)))
        return x + changed.transpose(1, 2)


class _Listener(nn.Module):
    """What teaches the encoder and is thrown away: digits -> the canonical voice's mel, and the kana."""

    def __init__(self, kana: int) -> None:
        super().__init__()
        self.lift = nn.Conv1d(DIGITS, 256, 3, padding=1)
        self.slow = nn.Sequential(*(Block(256, 512) for _ in range(3)))
        self.fast = nn.Sequential(*(Block(256, 512) for _ in range(2)))
        self.mel = nn.Conv1d(256, 80, 1)
        self.kana = nn.Conv1d(256, kana + 1, 1)

    def forward(self, digits: Tensor) -> tuple[Tensor, Tensor]:
        """[rows, 8, tokens] -> mel [rows, 2 * tokens, 80], kana scores [rows, tokens, kana + 1]."""
        hidden = self.slow(self.lift(digits))
        fast = self.fast(hidden.repeat_interleave(MEL_PER_TOKEN, dim=2))
        return self.mel(fast).transpose(1, 2), self.kana(hidden).transpose(1, 2)


class Tokenizer(nn.Module):
    """Encoder and listener side by side, as they are trained."""

    def __init__(self, kana: str) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.listener = _Listener(len(kana))


def make(corpus: Corpus, directory: Path, device: str, plan: Plan) -> nn.Module:
    """Train; weights.pt, log.jsonl and tokens.pt, which holds what it says of the corpus. Returns the encoder."""
    utterances = corpus.of("train")
    kana = "".join(sorted({sign for one in utterances for sign in one.kana if _is_sound(sign)}))
    torch.manual_seed(plan.seed)
    model = Tokenizer(kana).to(device)
    lesson = _Lesson(model, corpus, utterances, kana, plan, device)
    learn.fit("tokenizer", model, lesson.loss, plan, directory, device)
    encoder = load(directory).to(device)
    write_tokens(encoder, lesson.own, lesson.canonical, extract(corpus, corpus.of("held_out"), device), directory)
    return encoder


def write_tokens(encoder: nn.Module, own: Features, canonical: Features, held_out: Features, directory: Path) -> None:
    """tokens.pt: of the training utterances (own and canonical voice), again of them as `_retold`, of the held-out."""
    retold = (_retold(own, canonical, seed) for seed in range(_RETOLD))
    heard = {"train": [own], "retold": retold, "held_out": [held_out]}
    files.write_torch(
        directory / TOKENS, {name: [_listened(encoder, one) for one in parts] for name, parts in heard.items()}
    )


def tokens(directory: Path, split: str) -> list[NDArray[np.int64]]:
    """The speech tokens of the utterances `corpus.of(split)`, in that order."""
    return _split(files.read_torch(directory / TOKENS)[split][0])


def renderings(directory: Path) -> list[list[NDArray[np.int64]]]:
    """Of each training utterance, all that was heard: its own tokens first, then those of its retellings."""
    found = files.read_torch(directory / TOKENS)
    return [list(one) for one in zip(*map(_split, [*found["train"], *found["retold"]]), strict=True)]


def _listened(encoder: nn.Module, features: Features) -> dict[str, Tensor]:
    return {"codes": codes(encoder, features).int().cpu(), "lengths": features.lengths.int().cpu()}


def _split(found: Mapping[str, Tensor]) -> list[NDArray[np.int64]]:
    return [one.numpy() for one in found["codes"].long().split(found["lengths"].tolist())]


def _retold(own: Features, canonical: Features, seed: int) -> Features:
    """The utterances again, each in one of its two voices, a little faster or slower, and cut into tokens elsewhere."""
    rng = np.random.default_rng(seed)
    whisper, lengths = [], []
    for start, length in zip(own.starts.tolist(), own.lengths.tolist(), strict=True):
        voice = (own, canonical)[int(rng.integers(2))]
        pace, first = float(np.exp(rng.uniform(-_TEMPO, _TEMPO))), float(rng.uniform(0, WHISPER_PER_TOKEN))
        frames = voice.whisper[start * WHISPER_PER_TOKEN : (start + length) * WHISPER_PER_TOKEN].float()
        lengths.append(max(1, int((len(frames) - 1 - first) / pace) // WHISPER_PER_TOKEN))
        places = first + pace * torch.arange(lengths[-1] * WHISPER_PER_TOKEN, device=frames.device)
        before = places.long().clamp(max=len(frames) - 2)
        share = (places - before).clamp(max=1).unsqueeze(1)
        whisper.append(torch.lerp(frames[before], frames[before + 1], share).half())
    counts = torch.tensor(lengths, device=own.lengths.device)
    return Features(torch.cat(whisper), own.mel[:0], counts.cumsum(0) - counts, counts)


def load(directory: Path) -> Encoder:
    """The encoder alone, on the CPU, in eval mode."""
    encoder = Encoder()
    encoder.load_state_dict(_under(learn.plain_weights(directory), "encoder."))
    return encoder.eval()


@torch.inference_mode()
def codes(encoder: nn.Module, features: Features) -> Tensor:
    """The tokens of all utterances in a row, int64 [tokens], each utterance heard by itself."""
    found = torch.zeros(int(features.lengths.sum()), dtype=torch.long, device=features.starts.device)
    for starts, length in of_one_length(features.starts, features.lengths):
        heard = gather(features.whisper, starts, length, WHISPER_PER_TOKEN).float()
        places = starts.unsqueeze(1) + torch.arange(length, device=starts.device)
        found[places] = code(encoder(heard.transpose(1, 2)))
    return found


def code(digits: Tensor) -> Tensor:
    """[rows, 8, tokens] in -1..1 -> int64 [rows, tokens], 0 to 6560."""
    levels = torch.round(digits * _ALMOST_ONE) + 1
    powers = float(LEVELS) ** torch.arange(DIGITS, device=digits.device)
    found: Tensor = (levels * powers.view(1, -1, 1)).sum(dim=1).long()
    return found


class _Graph(nn.Module):
    """The file's inputs and outputs: feats [1, 128, T], feats_length [1] -> indices [1, ceil(T / 4)] int32."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, feats: Tensor, feats_length: Tensor) -> Tensor:
        return code(self.encoder(feats[:, :, : feats_length[0].long()])).int()


def export(encoder: Encoder, path: Path) -> None:
    """Write speech_tokenizer_v2.onnx, with the names and types of the published one."""
    exporting.export(
        _Graph(encoder),
        (
            torch.zeros(1, _MEL_BINS, 402),
            torch.tensor([402], dtype=torch.int32),
        ),
        path,
        ["feats", "feats_length"],
        "indices",
        {"feats": {2: "T"}, "indices": {1: "tokens"}},
    )


class _Lesson:
    """The loss of a step: whole utterances, each in its speaker's voice and in the canonical one."""

    def __init__(
        self,
        model: Tokenizer,
        corpus: Corpus,
        utterances: Sequence[Utterance],
        kana: str,
        plan: Plan,
        device: str,
    ) -> None:
        self._model, self._plan, self._device = model, plan, device
        self.own = extract(corpus, utterances, device)
        self.canonical = extract(corpus, utterances, device, "canonical")
        self._lengths = self.own.lengths.tolist()
        self._buckets = Buckets(self._lengths, plan.batch)
        index = {sign: number for number, sign in enumerate(kana, start=1)}
        self._spelled = [torch.tensor([index[sign] for sign in one.kana if sign in index]) for one in utterances]

    def loss(self, step: int) -> tuple[Tensor, Mapping[str, Any]]:
        chosen = self._buckets.draw(learn.generator(self._plan.seed, step))
        rows, longest = torch.from_numpy(chosen).to(self._device), max(self._lengths[row] for row in chosen)
        starts, lengths = self.own.starts[rows], self.own.lengths[rows]
        is_heard = inside(lengths * WHISPER_PER_TOKEN, longest * WHISPER_PER_TOKEN).unsqueeze(2)
        own, canonical = (
            (gather(one.whisper, starts, longest, WHISPER_PER_TOKEN) * is_heard).float().transpose(1, 2)
            for one in (self.own, self.canonical)
        )
        digits = self._model.encoder(torch.cat([own, canonical])).float()
        noise = torch.rand(digits.shape, generator=self._generator(step), device=self._device)
        mel, spelled = self._model.listener(_rounded(digits, _NOISE * (2 * noise - 1)))
        wanted = gather(self.canonical.mel, starts, longest, MEL_PER_TOKEN).float().repeat(2, 1, 1)
        is_own = inside(lengths * MEL_PER_TOKEN, longest * MEL_PER_TOKEN).repeat(2, 1).unsqueeze(2).float()
        heard = ((mel.float() - wanted).abs() * is_own).sum() / (is_own.sum() * wanted.shape[2])
        ours, theirs = digits.chunk(2)
        within = inside(lengths, longest).unsqueeze(1).float()
        agree = ((ours - theirs) ** 2 * within).sum() / (within.sum() * DIGITS)
        spell = self._spelling(spelled.float(), chosen, lengths)
        same = ((code(ours) == code(theirs)).float() * within[:, 0]).sum() / within.sum()
        total = heard + _AGREE * agree + _SPELL * spell
        return total, {"mel_l1": heard.detach(), "agree": agree.detach(), "spell": spell.detach(), "same": same}

    def _spelling(self, scores: Tensor, chosen: NDArray[np.int64], lengths: Tensor) -> Tensor:
        texts = [self._spelled[row] for row in chosen] * 2
        return F.ctc_loss(
            scores.log_softmax(dim=2).transpose(0, 1),
            torch.cat(texts).to(self._device),
            lengths.repeat(2),
            torch.tensor([len(text) for text in texts]).to(self._device),
            zero_infinity=True,
        )

    def _generator(self, step: int) -> torch.Generator:
        return learn.generator(self._plan.seed, step, self._device)


def _rounded(digits: Tensor, noise: Tensor) -> Tensor:
    """The levels after noise, -1, 0 or 1; the gradient passes as if nothing had been rounded."""
    levels = torch.round((digits + noise).clamp(-1, 1) * _ALMOST_ONE)
    return digits + (levels - digits).detach()


def _is_sound(sign: str) -> bool:
    """Katakana and the long-vowel mark; no punctuation, no spaces."""
    return "ァ" <= sign <= "ヴ" or sign == "ー"


def _under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
