"""Speech of the tuned voice, of the untuned base, and real clips -> numbers that can be compared, honestly labelled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mel = NDArray[np.float32]


@dataclass(frozen=True)
class Metric:
    """How one number is shown: `short` beside a player, `label` and `meaning` in the table."""

    label: str
    short: str
    meaning: str
    form: str

    def show(self, value: float | None) -> str:
        return "–" if value is None else self.form.format(value).replace("-", "−")


METRICS: Mapping[str, Metric] = {
    "speaker_similarity": Metric(
        "Speaker similarity",
        "similarity",
        "Cosine between the CAM++ embedding of the speech and the mean of the training clips; 1 is the same. It "
        "flatters: CAM++ also steers the flow. The real clips show how high an unseen clip of the speaker gets.",
        "{:.3f}",
    ),
    "duration_ratio": Metric(
        "Length against the real clip",
        "length",
        "Seconds spoken divided by the seconds of the real clip with the same text; 1 is the speaker's own pace.",
        "{:.2f}×",
    ),
    "mel_distance": Metric(
        "Distance to the real clip",
        "distance",
        "Mean absolute difference of log-mel values (natural logarithm) along the best alignment (dynamic time "
        "warping) with the real clip of the same text; 0 is the same. Another reading of the text is not worse speech.",
        "{:.2f}",
    ),
    "ran_on": Metric(
        "Ran to the length limit",
        "ran on",
        "Share of the sentences that were cut at 20 speech tokens per text token because the model did not stop.",
        "{:.0%}",
    ),
}


def similarity(embedding: Sequence[float], reference: Sequence[float]) -> float:
    """Cosine of two embeddings."""
    a, b = np.asarray(embedding, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def mel_distance(spoken: Mel, real: Mel) -> float:
    """float32 [frames, bins] twice -> mean absolute log difference along the cheapest alignment.

    Steps: both one on, or one of them alone; the mean is over the steps of the path that was taken.
    """
    from scipy.spatial.distance import cdist

    cost = cdist(spoken, real, "cityblock") / spoken.shape[1]
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    steps = np.zeros((rows + 1, columns + 1))
    total[0, 0] = 0.0
    # Cells of one anti-diagonal do not depend on each other, so each diagonal is one numpy operation.
    for diagonal in range(2, rows + columns + 1):
        i = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        j = diagonal - i
        before = np.stack([total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]])
        best = before.argmin(axis=0)
        total[i, j] = before.min(axis=0) + cost[i - 1, j - 1]
        steps[i, j] = np.choose(best, [steps[i - 1, j - 1], steps[i - 1, j], steps[i, j - 1]]) + 1
    return float(total[rows, columns] / steps[rows, columns])


def means(takes: Iterable[Mapping[str, object]]) -> dict[str, float | None]:
    """The mean of every metric over the takes that have it."""
    listed = list(takes)
    result: dict[str, float | None] = {}
    for key in METRICS:
        values = [value for take in listed if isinstance(value := take.get(key), (int, float))]
        result[key] = float(np.mean(values)) if values else None
    return result
