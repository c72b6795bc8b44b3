"""(seed, epoch, utterance id) -> every random draw of training, whatever the batch, the order, the worker or the rank.

Upstream draws from global generators, so that a clip's noise depends on who shares its batch; here each draw has a
Philox generator of its own, keyed by the sha256 of what it is for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_PROMPT_PROBABILITY = 0.5
_PROMPT_MAX_SHARE = 0.3
"""Upstream's CausalMaskedDiffWithXvec.forward: half of the clips keep a prompt of up to 30 % of their frames."""


@dataclass(frozen=True)
class Epoch:
    """Which draws: those of one epoch of one seed.

    `part` of `parts`: the flow times of the parts share the time axis out, which makes a cv loss less noisy.
    """

    seed: int
    number: int
    part: int = 0
    parts: int = 1


@dataclass(frozen=True)
class FlowDraw:
    """What upstream's flow draws for one clip.

    prompt_frames: mel frames at the start that it is shown. time: 0 to 1, before the cosine schedule.
    noise: float32 [frames, 80]. guided: whether it sees text and speaker (guidance drops them for some clips).
    """

    prompt_frames: int
    time: float
    noise: NDArray[np.float32]
    guided: bool


def cv_epochs(parts: int) -> list[Epoch]:
    """The draws of cross-validation: the same ones in every experiment, so that their losses can be compared."""
    return [Epoch(seed=-1, number=0, part=part, parts=parts) for part in range(parts)]


def generator(epoch: Epoch, utt: str, purpose: str) -> np.random.Generator:
    """A generator of its own for one purpose."""
    return np.random.Generator(np.random.Philox(key=_digest(epoch, utt, purpose)))


def torch_seed(epoch: Epoch, update: int) -> int:
    """For `torch.manual_seed` before one update: dropout is a function of it too."""
    return _digest(epoch, str(update), "dropout") % 2**63


def interleaved(epoch: Epoch, utt: str, probability: float) -> bool:
    """Whether a clip that may be interleaved for streaming (more than 3 speech tokens a text token) is."""
    return bool(generator(epoch, utt, "interleaved").random() < probability)


def streaming(epoch: Epoch, utt: str, probability: float) -> bool:
    """Whether the flow sees the clip in chunks. Upstream has one coin a batch: clips of equal coin share batches."""
    return bool(generator(epoch, utt, "streaming").random() < probability)


def flow(epoch: Epoch, utt: str, frames: int, num_mels: int, guidance_dropout: float) -> FlowDraw:
    """The draws of upstream's CausalMaskedDiffWithXvec.forward and ConditionalCFM.compute_loss for one clip."""
    prompt = generator(epoch, utt, "prompt")
    has_prompt = prompt.random() >= _PROMPT_PROBABILITY
    longest = int(_PROMPT_MAX_SHARE * frames)
    time = (epoch.part + generator(epoch, utt, "time").random()) / epoch.parts
    return FlowDraw(
        prompt_frames=int(prompt.integers(0, longest + 1)) if has_prompt else 0,
        time=float(np.float32(time)),
        noise=generator(epoch, utt, "noise").standard_normal((frames, num_mels), dtype=np.float32),
        guided=bool(generator(epoch, utt, "guidance").random() > guidance_dropout),
    )


def order(epoch: Epoch, utts: Sequence[str]) -> NDArray[np.float64]:
    """One number from 0 to 1 for every clip, by which the plan mixes clips of about one length."""
    return np.array([generator(epoch, utt, "order").random() for utt in utts])


def shuffled(epoch: Epoch, count: int) -> list[int]:
    """The order in which an epoch takes its micro-batches."""
    return [int(index) for index in generator(epoch, "", "shuffle").permutation(count)]


def _digest(epoch: Epoch, utt: str, purpose: str) -> int:
    text = f"{epoch.seed}\0{epoch.number}\0{epoch.part}\0{purpose}\0{utt}"
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:16], "little")
