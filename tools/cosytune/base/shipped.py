"""The trained weights that come with the repository -> the files of the tiny base, and of its two judges.

`python -m cosytune.tinybase pack` wrote them, and weights.json, with which each file is compared before it is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cosytune import files
from cosytune.base import hyperyaml, morae
from cosytune.errors import UserError
from cosytune.families import Family
from cosytune.layout import ROOT

DIRECTORY = ROOT / "tools" / "cosytune" / "tinybase" / "weights"
MANIFEST = "weights.json"
FORMAT = 1
LLM, FLOW, VOCODER = "llm.xz", "flow.xz", "vocoder.xz"
SPEECH_TOKENIZER, SPEAKER_ENCODER = "speech_tokenizer.onnx.xz", "speaker_encoder.onnx.xz"
KANA, VERIFIER = "kana.onnx.xz", "verifier.onnx.xz"
NAMES = (LLM, FLOW, VOCODER, SPEECH_TOKENIZER, SPEAKER_ENCODER, KANA, VERIFIER)
KANA_JUDGE, VERIFIER_JUDGE = "judges/kana.onnx", "judges/verifier.onnx"
"""In the model directory: they tell what was said and who said it, and no part of the base has learned from them."""
WHAT = "a small model trained on synthetic speech"
_REMEDY = "it comes with the repository: git checkout -- '{directory}'"


def write(model_dir: Path, family: Family) -> None:
    """Every file of the tiny base but its manifest. Raises UserError when a shipped one is missing or damaged."""
    from cosytune.base import weights
    from cosytune.tinybase import flow, llm, pack

    shipped = contents()
    files.write_text(model_dir / family.yaml, hyperyaml.render(family, family.tiny))
    special = morae.write_tokenizer(model_dir / family.text_tokenizer)
    state = llm.plain(pack.unpack(shipped[LLM]))
    files.write_torch(model_dir / family.llm, state)
    weights.write_text_model(model_dir / family.text_tokenizer, state, family, family.tiny, special)
    files.write_torch(model_dir / family.flow, flow.plain(pack.unpack(shipped[FLOW])))
    vocoder = pack.unpack(shipped[VOCODER])
    files.write_torch(model_dir / family.vocoder, {f"generator.{key}": value for key, value in vocoder.items()})
    places = {SPEECH_TOKENIZER: family.speech_tokenizer, SPEAKER_ENCODER: family.speaker_encoder}
    for name, place in {**places, KANA: KANA_JUDGE, VERIFIER: VERIFIER_JUDGE}.items():
        files.write_bytes(model_dir / place, pack.unpack_onnx(shipped[name]))


def contents() -> dict[str, bytes]:
    """The bytes of every shipped file by its name; raises UserError with a line for each that is not as it was."""
    found: dict[str, bytes] = {}
    errors = []
    for name, entry in description()["files"].items():
        path = DIRECTORY / name
        if not path.is_file():
            errors.append(f"{path}: missing; {_remedy()}")
        elif files.sha256(path) != entry["sha256"]:
            errors.append(f"{path}: damaged; {_remedy()}")
        else:
            found[name] = path.read_bytes()
    if errors:
        raise UserError(*errors)
    return found


def description() -> Mapping[str, Any]:
    """weights.json: `files` with sizes and hashes, `figures` that were measured; raises UserError without it."""
    path = DIRECTORY / MANIFEST
    try:
        value: Mapping[str, Any] = files.read_json(path)
        is_ours = value["format"] == FORMAT and set(value["files"]) == set(NAMES)
    except FileNotFoundError:
        raise UserError(f"{path}: missing; {_remedy()}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        is_ours = False
    if not is_ours:
        raise UserError(f"{path}: damaged, or of another version of cosytune; {_remedy()}")
    return value


def digest() -> str | None:
    """What names the whole set; None when it is not there."""
    path = DIRECTORY / MANIFEST
    return files.sha256(path) if path.is_file() else None


def _remedy() -> str:
    return _REMEDY.format(directory=DIRECTORY)
