"""Speech of the tuned voice, of the untuned base, and real clips -> numbers that can be compared, honestly labelled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mel = NDArray[np.float32]


@dataclass(frozen=True)
class Metric:
    """How one number is shown: `short` beside a player, `label` and `meaning` in the table.

    `weight`: the score that says how much a take counts in a mean; without it all count the same. `judged`: by a file
    that few base models bring; where there is none, the number is not spoken of.
    """

    label: str
    short: str
    meaning: str
    form: str
    weight: str | None = None
    judged: bool = False

    def show(self, value: float | None) -> str:
        return "–" if value is None else self.form.format(value).replace("-", "−")


METRICS: Mapping[str, Metric] = {
    "kana_error_rate": Metric(
        "Kana error rate",
        "kana errors",
        "Edits that turn what a recogniser heard into the kana of the text, for each of these kana; all sentences "
        "together, so that a long one counts for more. 0 is: every sound can be understood. No part of the base and "
        "no tuning has learned from the recogniser; its own errors show with the real clips.",
        "{:.1%}",
        weight="kana_units",
        judged=True,
    ),
    "voice_similarity": Metric(
        "Voice similarity",
        "voice",
        "Cosine between the speech and the mean of the training clips by a second model for speakers, which steers "
        "nothing and which no training has seen; 1 is the same. The real clips show how high an unseen clip gets.",
        "{:.3f}",
        judged=True,
    ),
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
    """The mean of every metric over the takes that have it; a judged one is left out where no take was judged."""
    listed = list(takes)
    result: dict[str, float | None] = {}
    for key, metric in METRICS.items():
        pairs = [pair for take in listed if (pair := weighed(take, metric, key)) is not None]
        if pairs or not metric.judged:
            result[key] = sum(v * w for v, w in pairs) / sum(w for _, w in pairs) if pairs else None
    return result


def weighed(take: Mapping[str, object], metric: Metric, key: str) -> tuple[float, float] | None:
    """The score of a take and its weight in a mean; None where it was not measured."""
    value, weight = take.get(key), take.get(metric.weight) if metric.weight else 1.0
    if not isinstance(value, (int, float)) or not isinstance(weight, (int, float)):
        return None
    return float(value), float(weight)
