"""A model directory -> nothing, or an error that names every file that is missing or not as it was.

What we made carries its hashes (`cosytune_model.json`). The published model is compared with the published hashes. A
model of the user's own, and a published file whose hash is not known, is recorded at the first check and compared ever
after.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from cosytune import files
from cosytune.base import hyperyaml, manifest, shipped
from cosytune.errors import UserError
from cosytune.families import Family
from cosytune.layout import PRETRAINED_MODELS

RECORD = ".cosytune.sha256.json"
_AGAIN = "delete {directory} and run stage -1 (setup), which makes it again: --stage -1"
_FETCH = "delete the file and run stage -1 (setup), which downloads it again: --stage -1"
_RESTORE = "restore {directory} from where it came; what model_dir names is never made again"
_LARGE, _SMALLEST = 1_000_000, 10_000
"""Bytes. In the place of a large file, less than the smallest is a page of HTML or the pointer of a missing git-lfs."""


def check(model_dir: Path, family: Family) -> None:
    """Hash every file of the base model; raises one UserError with a line for each that is wrong."""
    if not model_dir.is_dir():
        raise _absent(model_dir, family)
    try:
        made = manifest.read(model_dir)
    except json.JSONDecodeError:
        raise UserError(f"{model_dir / manifest.NAME}: damaged; {_again(model_dir)}") from None
    if made is not None:
        _check_made(model_dir, family, made)
    else:
        _check_found(model_dir, family)


def hashes(model_dir: Path) -> dict[str, str]:
    """`{file: sha256}` of the base as it was checked last; raises UserError when it never was."""
    made = manifest.read(model_dir)
    if made is not None:
        return {name: entry["sha256"] for name, entry in made["files"].items()}
    record = model_dir / RECORD
    if not record.is_file():
        raise UserError(f"{model_dir}: never checked; run stage -1 (setup) first: --stage -1")
    return dict(files.read_json(record))


def _check_made(model_dir: Path, family: Family, made: Mapping[str, object]) -> None:
    again = _again(model_dir)
    if (made.get("format"), made.get("family")) != (manifest.FORMAT, family.name):
        raise UserError(f"{model_dir}: made by another version of cosytune or for another family; {again}")
    expected = made.get("files")
    if not isinstance(expected, Mapping) or made.get("base") not in ("random", "tiny", "full-random"):
        raise UserError(f"{model_dir / manifest.NAME}: damaged; {again}")
    if _is_in_its_place(model_dir) and made.get("shipped") not in (None, shipped.digest()):
        raise UserError(f"{model_dir}: made from other weights than this version of cosytune brings; {again}")
    errors = _compare(model_dir, {name: entry["sha256"] for name, entry in expected.items()}, again)
    if not errors and hyperyaml.known_shape(model_dir / family.yaml, family) is None:
        errors = [f"{model_dir / family.yaml}: written by another version of cosytune; {again}"]
    if errors:
        raise UserError(*errors)


def known(model_dir: Path, family: Family) -> dict[str, str]:
    """`{file: sha256}` of the published files: as the family says, else as the directory's record does, if it does."""
    record = model_dir / RECORD
    recorded = files.read_json(record) if record.is_file() else {}
    hashes = {name: file.sha256 or recorded.get(name) for name, file in family.published.items()}
    return {name: digest for name, digest in hashes.items() if digest is not None}


def _check_found(model_dir: Path, family: Family) -> None:
    """The published model, in its own place or elsewhere, or one of the user's own with the same files."""
    is_downloaded = model_dir.resolve() == (PRETRAINED_MODELS / family.title).resolve()
    remedy = _FETCH if is_downloaded else f"download it again: {download_command(model_dir, family)}"
    errors = [f"{model_dir / name}: missing; {remedy}" for name in family.published if not (model_dir / name).is_file()]
    errors = errors or [
        f"{model_dir / name}: {(model_dir / name).stat().st_size} bytes are no model; {remedy}"
        for name, file in family.published.items()
        if file.size > _LARGE and (model_dir / name).stat().st_size < _SMALLEST
    ]
    if errors:
        raise UserError(*errors)
    record = model_dir / RECORD
    recorded = files.read_json(record) if record.is_file() else {}
    now = {name: files.sha256(model_dir / name) for name in family.published}
    expected = known(model_dir, family)
    if not is_downloaded and _differences(model_dir, now, expected, remedy):  # a model of the user's own
        expected = {name: digest for name, digest in recorded.items() if name in now}
        remedy = f"restore it, or delete {record} if you changed it yourself"
    if errors := _differences(model_dir, now, expected, remedy):
        raise UserError(*errors)
    if now != recorded:
        files.write_json(record, now)


def _again(model_dir: Path) -> str:
    """The remedy for a directory that we made: in its own place it can be made anew, a copy elsewhere is the user's."""
    return (_AGAIN if _is_in_its_place(model_dir) else _RESTORE).format(directory=model_dir)


def _is_in_its_place(model_dir: Path) -> bool:
    return model_dir.parent.resolve() == PRETRAINED_MODELS.resolve()


def _compare(model_dir: Path, expected: Mapping[str, str], remedy: str) -> list[str]:
    missing = [name for name in expected if not (model_dir / name).is_file()]
    if missing:
        return [f"{model_dir / name}: missing; {remedy}" for name in missing]
    return _differences(model_dir, {name: files.sha256(model_dir / name) for name in expected}, expected, remedy)


def _differences(model_dir: Path, now: Mapping[str, str], expected: Mapping[str, str], remedy: str) -> list[str]:
    return [
        f"{model_dir / name}: not as it was (sha256 {now[name][:12]}, expected {digest[:12]}); {remedy}"
        for name, digest in expected.items()
        if now[name] != digest
    ]


def _absent(model_dir: Path, family: Family) -> UserError:
    if model_dir.parent == PRETRAINED_MODELS and f"{model_dir.name}-".startswith(f"{family.title}-"):
        brings = "downloads" if model_dir.name == family.title else "makes"
        return UserError(f"{model_dir}: not there; run stage -1 (setup), which {brings} it: --stage -1")
    return UserError(
        f"{model_dir}: the base model is not there; leave model_dir out and stage -1 downloads it (4 GB); or download "
        f"it yourself: {download_command(model_dir, family)} ; or try everything with a small base that is here: "
        "base=tiny speaks Japanese, base=random takes every language and makes noise"
    )


def download_command(model_dir: Path, family: Family) -> str:
    """What to type to get the published files, from Hugging Face or from ModelScope."""
    return (
        f"huggingface-cli download {family.huggingface} --revision {family.revision} --local-dir '{model_dir}' "
        f"(or: modelscope download --model {family.modelscope} --local_dir '{model_dir}')"
    )
