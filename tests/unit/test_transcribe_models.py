"""Which models are asked for, and what is said when they are not there; chunks; the distance between two texts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cosytune.audio.span import Span
from cosytune.errors import UserError
from cosytune.layout import ROOT
from cosytune.schema import TranscribeConfig
from cosytune.transcribe import Models, cer, chunk, find_models, is_there, models

WHISPER = ("config.json", "model.bin", "tokenizer.json", "vocabulary.json", "preprocessor_config.json")
ALIGNER = ("config.json", "preprocessor_config.json", "vocab.json", "pytorch_model.bin")


@pytest.fixture
def pretrained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(models, "PRETRAINED_MODELS", tmp_path)
    return tmp_path


def fill(directory: Path, names: tuple[str, ...]) -> Path:
    directory.mkdir(parents=True)
    for name in names:
        (directory / name).write_text("{}", encoding="utf-8")
    return directory


def test_both_models_are_found_by_their_names(pretrained: Path) -> None:
    whisper = fill(pretrained / "faster-whisper-large-v3", WHISPER)
    align = fill(pretrained / "wav2vec2-large-xlsr-53-japanese", ALIGNER)
    assert find_models(TranscribeConfig(), "ja") == Models(whisper, align)
    assert find_models(TranscribeConfig(align_model="none"), "yue") == Models(whisper, None)
    assert find_models(TranscribeConfig(language="detect"), "ja") == Models(whisper, None)
    assert is_there(TranscribeConfig())


def test_both_models_are_found_by_their_directories(pretrained: Path) -> None:
    whisper = fill(pretrained / "my models" / "w", (*WHISPER[:3], "vocabulary.txt"))
    align = fill(pretrained / "my models" / "a", (*ALIGNER[:3], "model.safetensors"))
    given = TranscribeConfig(model=str(whisper), align_model=str(align))
    assert find_models(given, "yue") == Models(whisper, align)


def test_missing_models_are_all_named_with_their_commands(pretrained: Path) -> None:
    with pytest.raises(UserError) as caught:
        find_models(TranscribeConfig(), "ja")
    whisper, align = caught.value.messages
    fetch = "huggingface-cli download {} --local-dir '{}' (first: . ./path.sh)"
    assert fetch.format("Systran/faster-whisper-large-v3", pretrained / "faster-whisper-large-v3") in whisper
    for way_out in ("X.txt", "transcribe.model=none", "quarantine"):
        assert way_out in whisper
    japanese = "jonatasgrosman/wav2vec2-large-xlsr-53-japanese"
    assert fetch.format(japanese, pretrained / "wav2vec2-large-xlsr-53-japanese") in align
    assert "transcribe.align_model=none" in align


@pytest.mark.parametrize("name", WHISPER)
@pytest.mark.parametrize("how", ["missing", "empty"])
def test_a_download_that_was_interrupted_is_not_whole(pretrained: Path, name: str, how: str) -> None:
    directory = fill(pretrained / "faster-whisper-large-v3", WHISPER)
    (directory / name).unlink()
    if how == "empty":
        (directory / name).touch()
    assert not is_there(TranscribeConfig())
    with pytest.raises(UserError, match=rf"not whole, without {name}.*huggingface-cli download Systran"):
        find_models(TranscribeConfig(align_model="none"), "ja")


def test_an_unknown_name_is_said_with_those_that_are_known(pretrained: Path) -> None:
    with pytest.raises(UserError, match=r"'lage-v3' is neither a directory nor one of tiny.*large-v3-turbo"):
        find_models(TranscribeConfig(model="lage-v3", align_model="none"), "ja")


def test_a_directory_that_is_not_there_is_the_users_own(pretrained: Path) -> None:
    given = TranscribeConfig(model="my/whisper", align_model="my/aligner")
    with pytest.raises(UserError) as caught:
        find_models(given, "ja")
    whisper, align = caught.value.messages
    assert f"{ROOT / 'my/whisper'}: not there" in whisper
    assert f"{ROOT / 'my/aligner'}: not there" in align
    assert "huggingface-cli" not in whisper + align


def test_a_language_without_a_usual_align_model_says_so(pretrained: Path) -> None:
    fill(pretrained / "faster-whisper-large-v3", WHISPER)
    with pytest.raises(UserError, match=r"no usual model for language 'yue'.*align_model=none"):
        find_models(TranscribeConfig(), "yue")


def test_nothing_is_asked_of_model_none(pretrained: Path) -> None:
    assert not is_there(TranscribeConfig(model="none"))


def test_the_align_models_are_those_of_whisperx() -> None:
    from whisperx.alignment import DEFAULT_ALIGN_MODELS_HF, DEFAULT_ALIGN_MODELS_TORCH

    for language, repository in models.ALIGNERS.items():
        bundle = DEFAULT_ALIGN_MODELS_TORCH.get(language)
        if bundle is None:
            assert DEFAULT_ALIGN_MODELS_HF[language] == repository
        elif language == "en":
            assert (bundle, repository) == ("WAV2VEC2_ASR_BASE_960H", "facebook/wav2vec2-base-960h")
        else:
            assert bundle == f"VOXPOPULI_ASR_BASE_10K_{language.upper()}"
            assert repository == f"facebook/wav2vec2-base-10k-voxpopuli-ft-{language}"


def test_the_package_and_its_errors_need_no_heavy_library(pretrained: Path) -> None:
    """`import` and a missing align model, in a process of its own: whisperx alone takes ten seconds."""
    program = (
        "import sys; from cosytune.transcribe import find_models; from cosytune.schema import TranscribeConfig\n"
        "try: find_models(TranscribeConfig(model='my/model'), 'ja')\n"
        "except Exception as mistake: print(mistake)\n"
        "print(sorted({'torch', 'whisperx', 'transformers', 'ctranslate2', 'pyannote'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "transcribe.align_model" in done.stdout


@pytest.mark.parametrize(
    ("speech", "chunks"),
    [
        ([], []),
        ([(1, 4)], [(1, 4)]),
        ([(0, 10), (12, 20), (25, 30)], [(0, 30)]),
        ([(0, 10), (12, 20), (25, 30.1)], [(0, 20), (25, 30.1)]),
        ([(5, 15), (20, 35), (36, 60)], [(5, 35), (36, 60)]),
        ([(0, 50)], [(0, 25), (25, 50)]),
        ([(0, 5), (6, 106), (107, 110)], [(0, 5), (6, 31), (31, 56), (56, 81), (81, 110)]),
    ],
)
def test_chunks_hold_as_much_speech_as_fits(
    speech: list[tuple[float, float]], chunks: list[tuple[float, float]]
) -> None:
    assert chunk([Span(*span) for span in speech]) == tuple(Span(*span) for span in chunks)


@pytest.mark.parametrize(
    ("language", "reference", "heard", "expected"),
    [
        ("en", "Hello, world!", "hello world", 0.0),
        ("en", "abcd", "abxd", 0.25),
        ("en", "abcd", "", 1.0),
        ("en", "ab", "ab and much more of it", 7.5),
        ("en", "", "", 0.0),
        ("en", "...", "hm", 1.0),
        ("en", "Ｈｅｌｌｏ [laughter] you", "hello you", 0.0),
        ("zh", "你好，世界。", "你好世界", 0.0),
        ("ja", "こんにちは、世界！", "こんにちは世界", 0.0),
        ("ja", "今日は、いい天気です。", "きょうは、いい天気です", 0.0),
        ("ja", "猫です", "犬です", 0.5),
    ],
)
def test_the_distance_of_what_was_heard(language: str, reference: str, heard: str, expected: float) -> None:
    assert cer(reference, heard, language) == pytest.approx(expected)
