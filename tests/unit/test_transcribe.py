"""The transcription queue with a tiny Whisper and a tiny wav2vec 2.0: random weights in the code of the real ones."""

from __future__ import annotations

import shutil
import socket
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_whisper
from cosytune.audio.span import Span
from cosytune.errors import UserError
from cosytune.schema import TranscribeConfig
from cosytune.transcribe import Job, Segment, Transcript, align_given, chunk, join, transcribe
from cosytune.transcribe import models as transcribe_models

RATE_HZ = 16000


@pytest.fixture(scope="module")
def settings(shared_tmp: Path) -> TranscribeConfig:
    return tiny_whisper.settings(shared_tmp)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that Whisper decodes while a test runs."""
    from whisperx.asr import WhisperModel

    sizes: list[int] = []
    decode = WhisperModel.generate_segment_batched

    def counted(self: Any, features: Any, *others: Any) -> Any:
        sizes.append(len(features))
        return decode(self, features, *others)

    monkeypatch.setattr(WhisperModel, "generate_segment_batched", counted)
    return sizes


def sound(seed: int, seconds: float) -> np.ndarray:
    """Noise that swells, float32 [n]; another one for each seed."""
    draw = np.random.default_rng(seed)
    samples = draw.standard_normal(round(seconds * RATE_HZ))
    swelling = np.sin(np.arange(len(samples)) * (seed + 1) / 3000)
    return (0.1 * samples * swelling).astype(np.float32)


def tone(hz: float, seconds: float = 3.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)).astype(np.float32)


def hiss(seed: int, seconds: float = 3.0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE_HZ))).astype(np.float32)


def job(name: str, samples: np.ndarray, chunks: int = 1) -> Job:
    """A recording in so many chunks of equal length."""
    length_s = len(samples) / RATE_HZ / max(1, chunks)
    spans = tuple(Span(index * length_s, (index + 1) * length_s) for index in range(chunks))
    return Job(name, f"digest of {name}", spans, lambda span: cut(samples, span))


def cut(samples: np.ndarray, span: Span) -> np.ndarray:
    return samples[round(span.start_s * RATE_HZ) : round(span.end_s * RATE_HZ)]


def several() -> list[Job]:
    """Five recordings of 1, 2, 3, 1 and 2 chunks: nine."""
    return [job(f"audio/{n}.wav", sound(n, 2 * chunks), chunks) for n, chunks in enumerate((1, 2, 3, 1, 2))]


def test_one_queue_fills_its_batches_with_chunks_of_several_recordings(
    settings: TranscribeConfig,
    batches: list[int],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket.socket, "connect", no_network)
    jobs = several()
    transcripts = transcribe(jobs, settings, "ja", tmp_path)
    assert batches == [4, 4, 1]
    assert list(transcripts) == [job.name for job in jobs]
    for one in jobs:
        transcript = transcripts[one.name]
        assert transcript.language == "ja"
        assert [segment.span for segment in transcript.segments] == list(one.chunks)
    texts = [segment.text for transcript in transcripts.values() for segment in transcript.segments]
    assert len(set(texts)) > 3, "another text for another sound"
    assert set("".join(texts)) <= set("".join(tiny_whisper.WORDS))
    said = capfd.readouterr()
    assert said.out == ""
    assert "9/9" in said.err
    assert not [line for line in said.err.splitlines() if "warning" in line.lower()]


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_a_text_does_not_depend_on_its_neighbours_in_the_batch(
    settings: TranscribeConfig, tmp_path: Path, batch_size: int
) -> None:
    jobs = several()
    alone = transcribe(jobs, settings, "ja", tmp_path / "in fours")
    other = settings.model_copy(update={"batch_size": batch_size})
    mixed = transcribe(jobs[::-1], other, "ja", tmp_path / "otherwise")
    for name, transcript in alone.items():
        for one, same in zip(transcript.segments, mixed[name].segments, strict=True):
            assert (one.text, one.words) == (same.text, same.words)
            assert one.avg_logprob == pytest.approx(same.avg_logprob, abs=1e-3)


def test_what_is_cached_loads_no_model(
    settings: TranscribeConfig, batches: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = transcribe(several(), settings, "ja", tmp_path)
    monkeypatch.setattr("whisperx.asr.load_model", no_model)
    monkeypatch.setattr("whisperx.alignment.load_align_model", no_model)
    batches.clear()
    assert transcribe(several(), settings, "ja", tmp_path) == first
    assert transcribe(several()[::-1], settings.model_copy(update={"batch_size": 1}), "ja", tmp_path) == first
    assert batches == []


def no_network(*_: Any) -> None:
    raise AssertionError("something was asked of the network")


def no_model(*_: Any, **__: Any) -> None:
    raise AssertionError("a model was loaded")


@pytest.mark.parametrize(
    "change",
    [{"beam_size": 1}, {"compute_type": "int8"}, "language", "digest", "chunks"],
    ids=lambda change: str(change),
)
def test_what_matters_is_heard_again(
    settings: TranscribeConfig, batches: list[int], tmp_path: Path, change: Any
) -> None:
    samples = sound(1, 4)
    one = job("a", samples, 2)
    transcribe([one], settings, "ja", tmp_path)
    batches.clear()
    if isinstance(change, dict):
        settings = settings.model_copy(update=change)
    elif change == "digest":
        one = Job(one.name, "another digest", one.chunks, one.read)
    elif change == "chunks":
        one = job("a", samples, 1)
    transcribe([one], settings, "en" if change == "language" else "ja", tmp_path)
    assert sum(batches) == len(one.chunks)


def test_a_stopped_run_goes_on_where_it_was(settings: TranscribeConfig, batches: list[int], tmp_path: Path) -> None:
    jobs = [job("short", sound(0, 2)), job("long", sound(1, 14), 7), job("last", sound(2, 2))]
    whole = transcribe(jobs, settings, "ja", tmp_path / "whole")
    heard_before_s = 10.0

    def read(span: Span) -> np.ndarray:
        if span.end_s > heard_before_s:
            raise SystemExit(143)  # as SIGTERM does
        return jobs[1].read(span)

    broken = Job(jobs[1].name, jobs[1].digest, jobs[1].chunks, read)
    pairs = settings.model_copy(update={"batch_size": 2})
    batches.clear()
    with pytest.raises(SystemExit):
        transcribe([jobs[0], broken, jobs[2]], pairs, "ja", tmp_path / "stopped")
    assert batches == [2, 2, 2], "the short one and five chunks of the long one, four of which are kept"
    batches.clear()
    resumed = transcribe(jobs, pairs, "ja", tmp_path / "stopped")
    assert batches == [2, 2]
    for name, transcript in whole.items():
        assert [one.text for one in resumed[name].segments] == [one.text for one in transcript.segments]
        assert resumed[name].words == transcript.words


@pytest.mark.parametrize("damage", ["", "{", "null", "[]", '{"language": "ja", "texts": ["a"], "scores": []}'])
def test_a_damaged_cache_file_is_made_again(
    settings: TranscribeConfig, batches: list[int], tmp_path: Path, damage: str
) -> None:
    jobs = [job("a", sound(1, 4), 2)]
    whole = transcribe(jobs, settings, "ja", tmp_path)
    written = sorted(tmp_path.iterdir())
    assert len(written) == 2
    for path in written:
        path.write_text(damage, encoding="utf-8")
    batches.clear()
    assert transcribe(jobs, settings, "ja", tmp_path) == whole
    assert sum(batches) == 2
    assert sorted(tmp_path.iterdir()) == written


def test_languages_are_detected_and_batches_stay_full(
    settings: TranscribeConfig, batches: list[int], tmp_path: Path
) -> None:
    tones = [job(f"tone {hz}", tone(hz)) for hz in (200, 2000)]
    noises = [job(f"noise {seed}", hiss(seed)) for seed in range(3)]
    mixed = [tones[0], noises[0], tones[1], *noises[1:]]
    detect = settings.model_copy(update={"language": "detect", "batch_size": 2})
    found = transcribe(mixed, detect, "zh", tmp_path)
    languages = {name: transcript.language for name, transcript in found.items()}
    assert languages == {one.name: "ja" if one.name.startswith("tone") else "en" for one in mixed}
    assert sorted(batches) == [1, 2, 2], "two in Japanese, three in English"
    batches.clear()
    assert transcribe(mixed, detect, "zh", tmp_path) == found
    assert batches == []


def test_a_missing_align_model_of_a_detected_language_is_said_before_anything_is_heard(
    settings: TranscribeConfig, batches: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcribe_models, "PRETRAINED_MODELS", tmp_path)
    detect = settings.model_copy(update={"language": "detect", "align_model": "auto"})
    with pytest.raises(UserError, match="wav2vec2-large-xlsr-53-japanese"):
        transcribe([job("tone", tone(200))], detect, "en", tmp_path / "cache")
    assert batches == []


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


def test_a_recording_without_speech_has_no_segments(settings: TranscribeConfig, tmp_path: Path) -> None:
    assert transcribe([job("a", sound(1, 1), 0)], settings, "ja", tmp_path) == {"a": Transcript("ja", ())}
    assert transcribe([], settings, "ja", tmp_path) == {}


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


def test_damaged_models_are_a_line_and_no_traceback(settings: TranscribeConfig, tmp_path: Path) -> None:
    for key, weights in (("model", "model.bin"), ("align_model", "model.safetensors")):
        broken = tmp_path / key
        shutil.copytree(getattr(settings, key), broken)
        (broken / weights).write_bytes((broken / weights).read_bytes()[:1000])
        with pytest.raises(UserError, match=f"transcribe.{key}: {broken}: cannot be loaded.*move it away and fetch it"):
            transcribe(
                [job("a", sound(1, 2))], settings.model_copy(update={key: str(broken)}), "ja", tmp_path / "cache"
            )


def test_what_the_model_is_not_made_for_is_said(
    settings: TranscribeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [job("a", sound(1, 2))]
    with pytest.raises(UserError, match="does not know the language 'yue'"):
        transcribe(jobs, settings, "yue", tmp_path / "cache")
    other = tmp_path / "other"
    shutil.copytree(settings.model, other)
    (other / "preprocessor_config.json").write_text('{"feature_size": 128}', encoding="utf-8")
    with pytest.raises(UserError, match=r"preprocessor_config.json: the model wants 80 mel bands, not 128"):
        transcribe(jobs, settings.model_copy(update={"model": str(other)}), "ja", tmp_path / "cache")


def test_what_the_machine_cannot_do_is_said(settings: TranscribeConfig, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    for change, message in (({"device": "cuda"}, "no GPU"), ({"compute_type": "float16"}, "not on this cpu")):
        with pytest.raises(UserError, match=message):
            transcribe([job("a", sound(1, 2))], settings.model_copy(update=change), "ja", tmp_path)


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


def test_a_decoder_in_a_loop_is_doubtful() -> None:
    span = Span(0, 30)
    sentence = "昨日の夜は遅くまで本を読んでいたので、今朝は少し寝坊をしてしまいました。"
    assert not Segment(span, sentence, -0.3).is_doubtful
    assert Segment(span, sentence, -1.4).is_doubtful
    assert Segment(span, "ご視聴ありがとうございました。" * 12, -0.3).is_doubtful
    assert Segment(span, "", 0.0).compression_ratio == 0.0
