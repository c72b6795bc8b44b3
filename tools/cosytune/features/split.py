"""Clips -> disjoint train, cv and test sets, the same ones for the same seed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from cosytune.errors import UserError
from cosytune.schema import SplitConfig

_TEST_FROM_CLIPS = 10
"""With fewer clips than this every one is worth more in training than in the report."""


def assign(audio_hashes: Mapping[str, str], settings: SplitConfig, seed: int) -> dict[str, list[str]]:
    """`{utt: sha256 of its audio}` -> `{"train": [utt], "cv": [utt], "test": [utt]}`, each sorted.

    Clips with the same audio stay together, so that no set knows another's sound. Raises UserError when cv would
    leave nothing to train on.
    """
    groups: dict[str, list[str]] = {}
    for utt, digest in audio_hashes.items():
        groups.setdefault(digest, []).append(utt)
    total = len(audio_hashes)
    if len(groups) < 2:
        raise UserError(f"{total} clips with {len(groups)} different sounds: training needs 2 or more; add recordings")
    order = sorted(groups.values(), key=lambda utts: _draw(seed, min(utts)))
    test_clips = max(1, round(total * settings.test_fraction)) if total >= _TEST_FROM_CLIPS else 0
    cv_clips = max(1, round(total * settings.cv_fraction))
    sets: dict[str, list[str]] = {"test": [], "cv": [], "train": []}
    for position, utts in enumerate(order):
        left = len(order) - position  # whatever the fractions say, one is left for cv and one to train on
        name = "train"
        if left > 2 and len(sets["test"]) < test_clips:
            name = "test"
        elif left > 1 and len(sets["cv"]) < cv_clips:
            name = "cv"
        sets[name] += utts
    return {name: sorted(sets[name]) for name in ("train", "cv", "test")}


def _draw(seed: int, utt: str) -> str:
    return hashlib.sha256(f"{seed} {utt}".encode()).hexdigest()
