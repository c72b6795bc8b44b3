"""A voice bundle and the base that it was tuned on -> a model directory that upstream's own class loads.

    python -m cosytune.voice assemble egs/demo/voice --out DIR     # then: CosyVoice2("DIR").inference_sft(...)

DIR: links to the base's YAML, vocoder, ONNX models and tokenizer; the voice's llm.pt, flow.pt and spk2info.pt.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from cosytune import base, families, files
from cosytune.errors import UserError
from cosytune.layout import MODULES, PRETRAINED_MODELS
from cosytune.voice import bundle
from cosytune.voice.bundle import Voice

_MARK = "assembled.json"
"""Lies in every directory that was assembled here: such a one may be replaced, any other may not."""


def assemble(voice: Voice, out: Path, base_dir: Path | None = None) -> Path:
    """Make `out`, whole or not at all; return it. Raises UserError for another base or for a directory not ours."""
    _refuse_foreign(out)
    if out.resolve().is_relative_to(voice.root.resolve()):
        raise UserError(f"{out}: inside the voice, which would then not verify; name another --out")
    bundle.require_whole(voice.root)
    base_dir = find_base(voice, base_dir)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        fill(voice, base_dir, Path(temporary) / "model")
        _swap(Path(temporary) / "model", out, Path(temporary) / "former")
    return out


def fill(voice: Voice, base_dir: Path, out: Path, tuned: Collection[str] = MODULES) -> None:
    """Write the model directory `out`, which must not exist yet.

    A module that is not in `tuned` is the base's: () is the untuned base, with the voice's speaker embeddings.
    """
    out.mkdir()
    _link_base(voice, base_dir, out)
    for module in MODULES:
        weights = voice.weights(module) if module in tuned else None
        if weights is not None:
            link(weights, out / weights.name)
        elif module in tuned and voice.adapter(module) is not None:
            _merge(voice, module, base_dir, out / f"{module}.pt")
        else:
            link(base_dir / f"{module}.pt", out / f"{module}.pt")
    # A copy: upstream's save_spkinfo writes through a link, into the voice.
    shutil.copyfile(voice.root / "spk2info.pt", out / "spk2info.pt")
    _mark(out)


def _mark(out: Path) -> None:
    files.write_json(out / _MARK, {"files": sorted(path.name for path in out.iterdir())})


def find_base(voice: Voice, base_dir: Path | None) -> Path:
    """The base that the voice was tuned on, whole and unchanged: `base_dir`, else pretrained_models/<its name>.

    Raises UserError for a base that is missing, damaged or another one: adapters and text tokenizer would not fit,
    and the sound would be noise.
    """
    recorded = voice.versions["base"]
    found = (base_dir or PRETRAINED_MODELS / recorded["name"]).resolve()
    if not found.is_dir():
        raise UserError(f"{found}: not there; this voice was tuned on '{recorded['name']}': name it with --base DIR")
    base.check(found, families.get(voice.versions["family"]))
    now = base.hashes(found)
    other = sorted(name for name, digest in recorded["files"].items() if now.get(name) != digest)
    if other:
        raise UserError(
            f"{found}: not the base that this voice was tuned on ('{recorded['name']}'): "
            f"{', '.join(other[:3])}{' ...' if len(other) > 3 else ''} differ; name the right one with --base DIR"
        )
    return found


def link(source: Path, destination: Path) -> None:
    """A symbolic link to an absolute path; a copy where the file system has no links (FAT, some mounts)."""
    source = source.resolve()
    try:
        destination.symlink_to(source, target_is_directory=source.is_dir())
    except OSError:
        if source.is_dir():
            shutil.copytree(source, destination)
        else:
            shutil.copyfile(source, destination)


def _link_base(voice: Voice, base_dir: Path, out: Path) -> None:
    """Only the files that the family names.

    A real model directory also holds exports made from the base's own flow (`flow.encoder.fp32.zip`,
    `flow.decoder.estimator.fp32.onnx`); upstream's `load_jit` and `load_trt` would put them in the place of the
    tuned flow without a word.
    """
    family = families.get(voice.versions["family"])
    shared = (family.yaml, family.vocoder, family.speaker_encoder, family.speech_tokenizer, family.text_tokenizer)
    for name in shared:
        link(base_dir / name, out / name)


def _merge(voice: Voice, module: str, base_dir: Path, destination: Path) -> None:
    from cosytune.voice import weights

    adapter = voice.adapter(module)
    assert adapter is not None
    weights.write_merged(module, base_dir, families.get(voice.versions["family"]), adapter, destination)


def _refuse_foreign(out: Path) -> None:
    """Raise UserError unless `out` is absent, empty, or holds nothing but what `assemble` wrote."""
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir():
        raise UserError(f"{out}: is a file; name a directory that does not exist yet")
    present = sorted(path.name for path in out.iterdir())
    ours = set(_marked(out))
    foreign = [name for name in present if name not in ours]
    if foreign:
        raise UserError(f"{out}: not empty (it holds '{foreign[0]}'); name another --out")


def _marked(out: Path) -> list[str]:
    try:
        value: Any = files.read_json(out / _MARK)
    except (OSError, ValueError):
        return []
    return [*value["files"], _MARK] if isinstance(value, Mapping) and isinstance(value.get("files"), list) else []


def _swap(made: Path, out: Path, former: Path) -> None:
    """Put `made` in the place of `out`. The former one goes only now, with the temporary directory around it."""
    if out.exists():
        out.rename(former)
    try:
        made.rename(out)
    except OSError:
        if former.exists():
            former.rename(out)
        raise
