"""The settings -> the directories of the two models, whole and on this machine; or what to type to get them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosytune import files
from cosytune.errors import UserError
from cosytune.layout import PRETRAINED_MODELS, ROOT
from cosytune.schema import TranscribeConfig

_WHISPER_FILES = ("config.json", "model.bin", "tokenizer.json", ("vocabulary.json", "vocabulary.txt"))
_ALIGN_FILES = ("config.json", "preprocessor_config.json", "vocab.json", ("model.safetensors", "pytorch_model.bin"))
_NEEDS_PREPROCESSOR = ("large", "large-v3", "large-v3.5", "turbo")
"""Models of 128 mel bands: without preprocessor_config.json faster-whisper would make 80."""

ALIGNERS = {
    "ja": "jonatasgrosman/wav2vec2-large-xlsr-53-japanese",
    "zh": "jonatasgrosman/wav2vec2-large-xlsr-53-chinese-zh-cn",
    "ko": "kresnik/wav2vec2-large-xlsr-korean",
    "ru": "jonatasgrosman/wav2vec2-large-xlsr-53-russian",
    "en": "facebook/wav2vec2-base-960h",
    "fr": "facebook/wav2vec2-base-10k-voxpopuli-ft-fr",
    "de": "facebook/wav2vec2-base-10k-voxpopuli-ft-de",
    "es": "facebook/wav2vec2-base-10k-voxpopuli-ft-es",
    "it": "facebook/wav2vec2-base-10k-voxpopuli-ft-it",
}
"""WhisperX's choice for each language of the recipe (none for yue). The last five it takes from torchaudio's bundles:
these are the same models on the Hub, so that every model is a directory."""


@dataclass(frozen=True)
class Models:
    """`align` is None where no word times are wanted, or the languages are not known before they are heard."""

    whisper: Path
    align: Path | None


def find_models(settings: TranscribeConfig, language: str) -> Models:
    """Both directories, checked; `language` is the recipe's. `settings.model` is not none.

    Raises UserError for all that is missing or incomplete, with the commands that fetch it and the other ways out.
    """
    whisper = whisper_directory(settings)
    mistakes = _whisper_mistakes(settings, whisper)
    align = None
    if settings.align_model != "none" and not (settings.language == "detect" and settings.align_model == "auto"):
        align, align_mistakes = _find_aligner(settings, language)
        mistakes += align_mistakes
    if mistakes:
        raise UserError(*mistakes)
    return Models(whisper, align)


def find_aligners(settings: TranscribeConfig, languages: Iterable[str]) -> dict[str, Path]:
    """Language -> directory of its align model, checked. Raises UserError for all that are missing; {} for none."""
    if settings.align_model == "none":
        return {}
    found: dict[str, Path] = {}
    mistakes: list[str] = []
    for language in sorted(set(languages)):
        directory, more = _find_aligner(settings, language)
        mistakes += more
        if directory is not None:
            found[language] = directory
    if mistakes:
        raise UserError(*mistakes)
    return found


def has_aligner(settings: TranscribeConfig, language: str) -> bool:
    """Whether there is a directory of an align model, be it whole or damaged: `find_aligners` tells."""
    directory, _ = _find_aligner(settings, language) if settings.align_model != "none" else (None, [])
    return directory is not None and directory.is_dir()


def is_there(settings: TranscribeConfig) -> bool:
    """Whether Whisper can be asked: for `check_given: auto`."""
    return settings.model != "none" and not _missing(whisper_directory(settings), _whisper_files(settings))


def whisper_directory(settings: TranscribeConfig) -> Path:
    """Where the Whisper model lies or should lie; a relative directory starts at the repository."""
    directory = ROOT / Path(settings.model).expanduser()
    is_name = "/" not in settings.model and not directory.is_dir()
    return PRETRAINED_MODELS / f"faster-whisper-{settings.model}" if is_name else directory


def identity(directory: Path) -> list[str | int]:
    """What tells a model from another one without reading gigabytes: name, config, size of the weights."""
    weights = ("model.bin", "model.safetensors", "pytorch_model.bin")
    sizes = [(directory / name).stat().st_size for name in weights if (directory / name).is_file()]
    return [directory.name, files.sha256(directory / "config.json"), *sizes]


def _whisper_files(settings: TranscribeConfig) -> Sequence[str | tuple[str, ...]]:
    needs_preprocessor = settings.model.endswith(_NEEDS_PREPROCESSOR)
    return (*_WHISPER_FILES, "preprocessor_config.json") if needs_preprocessor else _WHISPER_FILES


def _whisper_mistakes(settings: TranscribeConfig, directory: Path) -> list[str]:
    missing = _missing(directory, _whisper_files(settings))
    if not missing:
        return []
    ways_out = (
        "or put X.txt with its text beside every X.wav; or transcribe.model=none (in conf.yaml, to stay) cuts now and "
        "leaves the clips in quarantine, for a text typed in the review page"
    )
    name = settings.model
    if directory.parent != PRETRAINED_MODELS:
        return [f"transcribe.model: {directory}: {missing}; name a whole faster-whisper directory, {ways_out}"]
    from faster_whisper.utils import _MODELS as REPOSITORIES  # short name -> repository on the Hub

    if name not in REPOSITORIES:
        known = ", ".join(REPOSITORIES)
        return [f"transcribe.model: '{name}' is neither a directory nor one of {known}; {ways_out}"]
    return [f"transcribe.model: {directory}: {missing}; {_fetch(REPOSITORIES[name], directory)}; {ways_out}"]


def _find_aligner(settings: TranscribeConfig, language: str) -> tuple[Path | None, list[str]]:
    """The align model's directory, and what is wrong with it."""
    ways_out = "or transcribe.align_model=none cuts at pauses first and hears clip by clip, without word times"
    if settings.align_model == "auto":
        repository = ALIGNERS.get(language)
        if repository is None:
            return None, [
                f"transcribe.align_model: auto: no usual model for language '{language}'; name the directory of a "
                f"wav2vec 2.0 CTC model of it, {ways_out}"
            ]
        directory = PRETRAINED_MODELS / repository.split("/")[1]
        remedy = f"{_fetch(repository, directory)}; {ways_out}"
    else:
        directory = ROOT / Path(settings.align_model).expanduser()
        remedy = f"name a whole directory of a wav2vec 2.0 CTC model, {ways_out}"
    missing = _missing(directory, _ALIGN_FILES)
    return directory, [f"transcribe.align_model: {directory}: {missing}; {remedy}"] if missing else []


def _fetch(repository: str, directory: Path) -> str:
    return f"fetch it: huggingface-cli download {repository} --local-dir '{directory}' (first: . ./path.sh)"


def _missing(directory: Path, names: Sequence[str | tuple[str, ...]]) -> str:
    """What is not there, in words; "" if all is. A tuple is a choice. An empty file is an interrupted download."""
    if not directory.is_dir():
        return "not there"
    lacks = [
        " or ".join(choice)
        for choice in ((name,) if isinstance(name, str) else name for name in names)
        if not any((directory / name).is_file() and (directory / name).stat().st_size for name in choice)
    ]
    return f"not whole, without {', '.join(lacks)}" if lacks else ""
