"""Real speech glued into a long recording and cut again, beside pydub's split_on_silence; skipped without LJSpeech."""

from __future__ import annotations

import pytest

from bench.compare_segmenting import VERSIONS, Long, glue, ours, score, split_on_silence
from cosytune.layout import ROOT
from cosytune.schema import SegmentConfig

LJSPEECH = ROOT.parent / "shared" / "data" / "ljspeech24"

pytestmark = pytest.mark.skipif(not LJSPEECH.is_dir(), reason="../shared/data/ljspeech24 is not there")


def glued(version: str) -> Long:
    noise_dbfs, gain_db = VERSIONS[version]
    return glue(sorted(LJSPEECH.glob("*.wav")), noise_dbfs, gain_db)


@pytest.mark.parametrize("version", VERSIONS)
def test_borders_lie_in_pauses_and_the_speech_is_kept(version: str) -> None:
    found = score(glued(version), ours)
    assert found.kept >= 0.98
    assert found.farthest_s <= 0.3
    lengths_s = [clip.duration_s for clip in found.clips]
    assert min(lengths_s) >= SegmentConfig().min_s - 1e-6
    assert max(lengths_s) <= SegmentConfig().max_s + 1e-6


def test_every_long_pause_is_a_border() -> None:
    """Between the clips of the corpus: what is longer than a clip may carry is in none."""
    recording = glued("clean")
    long = [pause for pause in recording.pauses if pause.duration_s > 2.0]
    clips = ours(recording.samples)
    assert len(long) >= 3
    for pause in long:
        middle_s = (pause.start_s + pause.end_s) / 2
        assert not any(clip.start_s < middle_s < clip.end_s for clip in clips)


def test_more_is_kept_than_split_on_silence_keeps() -> None:
    recording = glued("clean")
    theirs = score(recording, split_on_silence)
    assert 0.5 < theirs.kept < 0.9  # it does what its users know it for
    assert score(recording, ours).kept > theirs.kept + 0.1


@pytest.mark.parametrize("version", ["noisy", "quiet"])
def test_noise_and_a_low_level_leave_nothing_to_split_on_silence(version: str) -> None:
    recording = glued(version)
    assert score(recording, split_on_silence).kept < 0.05
    assert score(recording, ours).kept >= 0.98
