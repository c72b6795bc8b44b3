"""Letters and seconds of a speaker's clips -> how unusual the pace of each is: a sign that text and sound differ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MIN_CLIPS = 8
"""From so few there is no telling what is usual."""

_MIN_SPREAD = 0.1  # of the log rate: a very even reader's clips are not unusual because they differ by 10 %


def deviations(letters: Sequence[int], speech_s: Sequence[float]) -> list[float | None]:
    """Signed distance of each clip's log rate from the median, in robust standard deviations (1.4826 MAD).

    Of one speaker and one language. None for all if there are fewer than 8 clips, and for a clip without speech.
    """
    usable = [(count, seconds) for count, seconds in zip(letters, speech_s, strict=True) if count > 0 and seconds > 0]
    if len(usable) < MIN_CLIPS:
        return [None] * len(letters)
    logs = np.log([count / seconds for count, seconds in usable])
    middle = float(np.median(logs))
    spread = max(_MIN_SPREAD, 1.4826 * float(np.median(np.abs(logs - middle))))
    return [
        (float(np.log(count / seconds)) - middle) / spread if count > 0 and seconds > 0 else None
        for count, seconds in zip(letters, speech_s, strict=True)
    ]
