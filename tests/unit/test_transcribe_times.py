"""The times of words through the queue, with the tiny wav2vec 2.0."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import tiny_whisper
from cosytune.audio.span import Span
from cosytune.schema import TranscribeConfig
from cosytune.transcribe import Job, align_given, chunk, join, transcribe
from tiny_whisper import RATE_HZ, cut, job, several, sound


@pytest.fixture(scope="module")
def settings(shared_tmp: Path) -> TranscribeConfig:
    return tiny_whisper.settings(shared_tmp)


@pytest.mark.parametrize("language", ["ja", "en"])
def test_words_are_in_order_and_in_their_chunk_and_give_the_text_back(
    settings: TranscribeConfig, tmp_path: Path, language: str
) -> None:
    for transcript in transcribe(several(), settings, language, tmp_path).values():
        for segment in transcript.segments:
            assert segment.words
            spans = [word.span for word in segment.words]
            assert segment.span.start_s <= spans[0].start_s
            assert spans[-1].end_s <= segment.span.end_s
            assert all(span.start_s < span.end_s for span in spans)
            assert all(one.end_s <= other.start_s + 1e-9 for one, other in pairwise(spans))
            assert join(segment.words, language) == segment.text
        assert transcript.words is not None
        assert join(transcript.words, language) == transcript.text


def test_without_an_align_model_the_times_are_unknown(settings: TranscribeConfig, tmp_path: Path) -> None:
    without = settings.model_copy(update={"align_model": "none"})
    heard = transcribe([job("a", sound(1, 4), 2)], without, "ja", tmp_path)["a"]
    aligned = transcribe([job("a", sound(1, 4), 2)], settings, "ja", tmp_path)["a"]
    assert heard.words is None
    assert [segment.words for segment in heard.segments] == [None, None]
    assert heard.text == aligned.text


def test_a_chunk_whose_text_does_not_fit_its_sound_is_the_only_one_without_times(
    settings: TranscribeConfig, tmp_path: Path
) -> None:
    samples = sound(1, 4)
    spans = (Span(0.0, 2.0), Span(2.0, 2.03), Span(2.1, 4.0))
    one = Job("a", "digest", spans, lambda span: cut(samples, span))
    heard = transcribe([one], settings, "ja", tmp_path)["a"]
    assert [segment.words is None for segment in heard.segments] == [False, True, False]
    assert heard.segments[1].text
    assert heard.words is None


def test_a_given_text_is_aligned_with_a_recording_of_more_than_30_s(settings: TranscribeConfig, tmp_path: Path) -> None:
    jobs = [job("long", sound(1, 70), 3), job("too long", sound(2, 301), 11), job("silent", sound(3, 40), 0)]
    text = "こんにちは、日本の「本」。 2024 OK!"
    found = align_given(jobs, dict.fromkeys((one.name for one in jobs), text), settings, "ja", tmp_path)
    assert found["too long"] is None
    assert found["silent"] is None
    words = found["long"]
    assert words is not None
    assert [word.text for word in words] == [*"こんにち", "は、", *"日本の", "「本」。 ", *"202", "4 ", "O", "K!"]
    assert join(words, "ja") == text
    assert words[-1].span.end_s <= 70


def test_a_text_in_a_script_that_the_model_cannot_read_is_not_aligned(
    settings: TranscribeConfig, tmp_path: Path
) -> None:
    one = job("a", sound(1, 40), 2)
    assert align_given([one], {"a": "Привет, мир"}, settings, "ja", tmp_path) == {"a": None}
    assert align_given([one], {"a": "。。。"}, settings, "ja", tmp_path) == {"a": None}


def test_open_jtalk_speaks_and_the_queue_hears(settings: TranscribeConfig, tmp_path: Path) -> None:
    import pyopenjtalk
    import soxr

    wave, rate_hz = pyopenjtalk.tts("こんにちは。今日は良い天気ですね。")
    samples = soxr.resample(wave / 32768, rate_hz, RATE_HZ).astype(np.float32)
    speech = (Span(0.2, len(samples) / RATE_HZ),)
    one = Job("声.wav", "digest", chunk(speech), lambda span: cut(samples, span), speech)
    heard = transcribe([one], settings, "ja", tmp_path)["声.wav"]
    assert heard.text
    assert heard.words is not None
    assert heard.words[-1].span.end_s == speech[0].end_s
