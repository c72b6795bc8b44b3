"""The transcription queue with a tiny Whisper and a tiny wav2vec 2.0: random weights in the code of the real ones."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_whisper
from cosytune.audio.span import Span
from cosytune.errors import UserError
from cosytune.schema import TranscribeConfig
from cosytune.transcribe import Job, Segment, Transcript, transcribe
from cosytune.transcribe import models as transcribe_models
from tiny_whisper import hiss, job, several, sound, tone


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


def test_a_recording_without_speech_has_no_segments(settings: TranscribeConfig, tmp_path: Path) -> None:
    assert transcribe([job("a", sound(1, 1), 0)], settings, "ja", tmp_path) == {"a": Transcript("ja", ())}
    assert transcribe([], settings, "ja", tmp_path) == {}


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


def test_a_decoder_in_a_loop_is_told_by_how_well_its_text_packs() -> None:
    span = Span(0.0, 30.0)
    sentence = "会議は十月二十五日の午後三時から、いつもの部屋で始まります。遅れる人は早めに知らせてください。"
    assert Segment(span, sentence, -0.3).compression_ratio < 2.4
    assert Segment(span, "ご視聴ありがとうございました。" * 12, -0.3).compression_ratio > 2.4
    assert Segment(span, "", -0.3).compression_ratio == 0
