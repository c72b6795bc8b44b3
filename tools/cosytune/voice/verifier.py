"""Two sounds -> how alike their speakers are, by a judge whom the base never heard in its training.

The judge is a file of our own making (`cosytune.tinybase.verifier`), heard through onnxruntime on the CPU. It knows
synthetic Japanese speech alone: it ranks voices of the tiny base, and says nothing about people.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosytune.errors import UserError

RATE_HZ = 16000
Embedding = NDArray[np.float32]


class Verifier:
    """The exported verifier, on one thread."""

    def __init__(self, path: Path) -> None:
        from cosytune.features.onnx import open_session

        if not path.is_file():
            raise UserError(f"{path}: missing; make it: python -m cosytune.tinybase make --only verifier")
        self._session: Any = open_session(path, "cpu", threads=1)

    def embed(self, samples: NDArray[np.float32], rate_hz: int) -> Embedding:
        """float32 [samples], -1 to 1, mono -> who speaks: float32 [128], of length 1."""
        import soxr

        sound = np.asarray(samples, dtype=np.float32)
        if sound.ndim != 1 or not sound.size:
            raise ValueError(f"sound of shape {sound.shape}: one channel is heard, [samples], at least one")
        if rate_hz != RATE_HZ:
            sound = soxr.resample(sound, rate_hz, RATE_HZ)
        return np.asarray(self._session.run(None, {"sound": sound[None]})[0][0], dtype=np.float32)


def similarity(one: Embedding, other: Embedding) -> float:
    """-1 to 1, 1 for the same; embeddings, or means of some."""
    return float(one @ other / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-9))


def equal_error_rate(embeddings: Sequence[Embedding], speakers: Sequence[str]) -> float:
    """Over all pairs of clips: the share of wrong answers at the threshold where both kinds of them are as frequent.

    Raises UserError when no two clips are of one speaker, or none are of two.
    """
    table = np.stack(list(embeddings))
    table = table / np.linalg.norm(table, axis=1, keepdims=True)
    names = np.asarray(speakers)
    above = np.triu_indices(len(table), 1)
    scores, same = (table @ table.T)[above], (names[:, None] == names[None])[above]
    if not same.any() or same.all():
        raise UserError("equal error rate: give at least two speakers, and of one of them two clips")
    order = np.argsort(scores, kind="stable")
    missed = np.cumsum(same[order]) / same.sum()
    accepted = 1 - np.cumsum(~same[order]) / (~same).sum()
    at = int(np.abs(missed - accepted).argmin())
    return float((missed[at] + accepted[at]) / 2)
