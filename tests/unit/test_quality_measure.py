"""What is measured of a clip: real speech passes, spoilt in any of the ways that recordings are, it does not."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

import quality_speech as speech
from cosytune.audio.span import Span
from cosytune.quality.clipping import clipped_samples
from cosytune.quality.measure import Original, measure
from cosytune.schema import GatesConfig
from quality_speech import Clip

GATES = GatesConfig()
NOTHING = Original(0.0, 0.0, -6.0)

needs_ljspeech = pytest.mark.skipif(not speech.LJSPEECH.is_dir(), reason="../shared/data/ljspeech24 is not there")
needs_common_voice = pytest.mark.skipif(not speech.COMMON_VOICE.is_dir(), reason="../shared/data/cv_ja4 is not there")


def some_clips() -> list[Clip]:
    """Tight and loose, of a person and of Open JTalk."""
    ljspeech = speech.read(speech.LJSPEECH) if speech.LJSPEECH.is_dir() else []
    return [*(ljspeech[i] for i in (0, 1, 6, 17) if ljspeech), *speech.demo(3)]


def test_noise_shows_in_the_snr_of_clips_with_pauses_and_without() -> None:
    for clip in some_clips():
        clean, noisy, bearable = (
            speech.measured(version).snr_db
            for version in (clip, speech.with_noise(clip, 5), speech.with_noise(clip, 20))
        )
        assert clean and noisy and bearable and GATES.min_snr_db
        assert noisy < GATES.min_snr_db < bearable < clean, clip.name
        assert noisy == pytest.approx(5, abs=5.5)  # the clip's level counts its pauses too, so it is above 5


def test_silence_that_was_added_does_not_hide_the_noise() -> None:
    noisy = speech.with_noise(speech.demo(1)[0], 5)
    silence = np.zeros(noisy.rate_hz, np.float32)
    inserted = noisy.changed(np.concatenate([silence, noisy.samples, silence]))
    measured = speech.measured(inserted)
    assert measured.snr_db == pytest.approx(speech.measured(noisy).snr_db, abs=2)
    assert measured.silence_share > 0.4


def test_a_telephone_recording_is_narrow_however_it_was_resampled() -> None:
    for clip in some_clips():
        narrow, wide = speech.measured(speech.telephone(clip)), speech.measured(clip)
        assert narrow.bandwidth_hz and wide.bandwidth_hz and GATES.min_bandwidth_hz
        assert 3500 < narrow.bandwidth_hz < 4200 < GATES.min_bandwidth_hz < 10000 < wide.bandwidth_hz


@needs_common_voice
def test_mp3_at_16_khz_is_not_narrow() -> None:
    for clip in speech.read(speech.COMMON_VOICE):
        assert (speech.measured(clip).bandwidth_hz or 0) > 7000


@pytest.mark.parametrize("fade_s", [0.0, 0.005, 0.01])
def test_a_cut_in_a_vowel_shows_at_both_ends_even_faded(fade_s: float) -> None:
    for clip in some_clips():
        whole, cut = speech.measured(clip), speech.measured(speech.cut_in_vowels(clip, fade_s))
        limit = GATES.max_edge_level_db
        assert limit is not None and cut.start_level_db is not None and cut.end_level_db is not None
        assert min(cut.start_level_db, cut.end_level_db) > limit + 4, clip.name
        assert whole.start_level_db is not None and whole.end_level_db is not None
        assert max(whole.start_level_db, whole.end_level_db) < limit - 4, clip.name


def test_steady_noise_is_no_cut() -> None:
    limit = GATES.max_edge_level_db
    for clip in some_clips():
        noisy = speech.measured(speech.with_noise(clip, 14))
        assert limit is not None and noisy.start_level_db is not None and noisy.start_level_db < limit


def test_silence_share_and_speech_come_from_the_spans() -> None:
    clip = speech.demo(1)[0]
    spans = speech.speech(clip)
    padded = speech.measured(speech.padded(clip, 6.0, 7.0))
    assert padded.silence_share > 0.8 > 0.5 > speech.measured(clip).silence_share
    assert padded.speech_s == pytest.approx(sum(span.duration_s for span in spans), abs=0.15)


def test_an_offset_changes_nothing_but_the_offset() -> None:
    for clip in some_clips():
        shifted = clip.changed(clip.samples * 0.5 + 0.1)
        plain, offset = speech.measured(clip.changed(clip.samples * 0.5)), speech.measured(shifted)
        assert offset.dc_offset == pytest.approx(0.1, abs=0.005)
        assert plain.snr_db and offset.snr_db == pytest.approx(plain.snr_db, abs=2)
        assert offset.bandwidth_hz == pytest.approx(plain.bandwidth_hz, abs=100)


@pytest.mark.parametrize("samples", [0, 1, 100, 2400, 24000])
def test_silence_and_crumbs_have_no_figures_instead_of_wrong_ones(samples: int) -> None:
    silent = measure(np.zeros(samples, np.float32), 24000, [], NOTHING)
    assert silent.silence_share == 1
    assert {silent.loudness_lufs, silent.snr_db, silent.bandwidth_hz, silent.start_level_db} == {None}
    held = measure(np.zeros(samples, np.float32), 24000, [Span(0, samples / 24000)], NOTHING)
    assert {held.snr_db, held.start_level_db} == {None}


def test_the_report_is_plain_and_finite_and_a_known_loudness_is_taken() -> None:
    clip = speech.demo(1)[0]
    measured = measure(clip.at(24000), 24000, speech.speech(clip), NOTHING, loudness_lufs=-17.123)
    report = measured.as_dict()
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["loudness_lufs"] == -17.12
    assert set(report) == {field.name for field in dataclasses.fields(measured)}
    assert speech.measured(clip).loudness_lufs == pytest.approx(-19, abs=4)


# -- clipping


@pytest.mark.parametrize("turned_down", [1.0, 0.3, 0.02])
def test_clipped_speech_is_found_also_when_it_was_turned_down(turned_down: float) -> None:
    for clip in some_clips():
        shares = [speech.original(speech.clipped(clip, over, turned_down)).clipped_share for over in (0, 3, 6, 12)]
        assert shares[0] < 5e-5 < shares[1] < shares[2] < shares[3], clip.name
        assert GATES.max_clipped_share and shares[2] > GATES.max_clipped_share


@needs_ljspeech
def test_recordings_that_are_not_clipped_are_not_flagged() -> None:
    for clip in [*speech.read(speech.LJSPEECH), *speech.demo(12)]:
        assert speech.original(clip).clipped_share < 5e-4


@pytest.mark.parametrize("hz", [50, 100, 440, 1000])
@pytest.mark.parametrize("level", [0.02, 0.5, 1.0])
def test_round_tops_are_not_flat(hz: int, level: float) -> None:
    time_s = np.arange(44100) / 44100
    for wave in (np.sin(2 * np.pi * hz * time_s), np.tanh(3 * np.sin(2 * np.pi * hz * time_s)) / math.tanh(3)):
        clean = np.rint(wave * level * 32767).astype(np.float32)[:, None] / 32768
        assert len(clipped_samples(clean, level)) < 0.001 * len(clean)


def test_float_beyond_full_scale_is_clipped_only_where_it_is_flat() -> None:
    time_s = np.arange(44100, dtype=np.float32) / 44100
    wave = 1.7 * np.sin(2 * np.pi * 440 * time_s)[:, None]
    assert len(clipped_samples(wave, 1.7)) == 0
    cut = np.clip(wave, -1.3, 1.3)  # 440 Hz above 1.3 for 23 samples each half period
    found, height = set(clipped_samples(cut, 1.3)), np.abs(cut[:, 0])
    assert set(np.flatnonzero(height == np.float32(1.3))) <= found <= set(np.flatnonzero(height > 1.2998))


def test_one_clipped_channel_of_two_whole_or_block_by_block() -> None:
    time_s = np.arange(30000, dtype=np.float32) / 24000
    good = 0.2 * np.sin(2 * np.pi * 300 * time_s)
    bad = np.where(time_s > 1, np.clip(3 * good, -0.5, 0.5), good)
    both = np.stack([good, bad], axis=1).astype(np.float32)
    whole = clipped_samples(both, 0.5)
    assert whole.min() > 24000
    blocks = [start + clipped_samples(both[start : start + 1000], 0.5) for start in range(0, len(both), 1000)]
    assert set(np.concatenate(blocks)) <= set(whole)
    assert len(np.concatenate(blocks)) > 0.95 * len(whole)
