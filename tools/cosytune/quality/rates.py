"""Letters and seconds of a speaker's clips -> how unusual the pace of each is: a sign that text and sound differ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MIN_CLIPS = 8
"""From so few there is no telling what is usual."""

_MIN_SPREAD = 0.1  # of the log rate: a very even reader's clips are not unusual because they differ by 10 %
_BORDERS_S = 0.15  # what the ends of the speech may be off by: it counts in a clip of one second, not of ten


def deviations(letters: Sequence[int], speech_s: Sequence[float]) -> list[float | None]:
    """Signed distance of each clip's log rate from the median, in robust standard deviations (1.4826 MAD).

    Of one speaker and one language. None for all if there are fewer than 8 clips, and for a clip without speech.
    """
    usable = [i for i in range(len(letters)) if letters[i] > 0 and speech_s[i] > 0]
    result: list[float | None] = [None] * len(letters)
    if len(usable) < MIN_CLIPS:
        return result
    seconds = np.array([speech_s[i] for i in usable])
    logs = np.log(np.array([letters[i] for i in usable]) / seconds)
    distance = logs - np.median(logs)
    spread = max(_MIN_SPREAD, 1.4826 * float(np.median(np.abs(distance))))
    for i, value in zip(usable, distance / np.hypot(spread, _BORDERS_S / seconds), strict=True):
        result[i] = float(value)
    return result
