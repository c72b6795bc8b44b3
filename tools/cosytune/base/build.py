"""A family and a kind of base -> its model directory, in the layout of the real one.

The directory is written beside its place and renamed: it is there whole or not at all.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import torch

from cosytune import files
from cosytune.base import full, graphs, hyperyaml, manifest, shipped, text, weights
from cosytune.errors import UserError
from cosytune.families import Family
from cosytune.upstream import bridge

Made = Literal["tiny", "random", "full-random"]
"""`tiny` is trained, the others have random weights."""
SEED = 1986
_SIZE_BYTES = {"tiny": 200e6, "random": 80e6, "full-random": 4.2e9}


def build(family: Family, base: Made, model_dir: Path, seed: int = SEED) -> None:
    """Write `model_dir`; nothing happens when another process was faster. Torch's random state stays as it was."""
    started_s = time.monotonic()
    model_dir.parent.mkdir(parents=True, exist_ok=True)
    _need_space(model_dir.parent, _SIZE_BYTES[base])
    with tempfile.TemporaryDirectory(dir=model_dir.parent, prefix=f".{model_dir.name}.") as name:
        made = Path(name) / "model"
        with bridge.keep_random_state(), _one_thread():
            _write_files(made, family, base, seed)
        _write_manifest(made, family, base, seed)
        _put(made, model_dir)
    origin = "from the weights that are shipped" if base == "tiny" else "with random weights"
    print(f"{model_dir.name}: made {origin} in {time.monotonic() - started_s:.1f} s")


def _write_files(made: Path, family: Family, base: Made, seed: int) -> None:
    if base == "tiny":
        shipped.write(made, family)
        return
    shape = family.shape(base)
    files.write_text(made / family.yaml, hyperyaml.render(family, shape))
    special = text.write_tokenizer(made / family.text_tokenizer)
    if base == "random":
        graphs.write_speech_tokenizer(made / family.speech_tokenizer, seed)
        graphs.write_speaker_encoder(made / family.speaker_encoder, family, seed)
    else:
        full.write_speech_tokenizer(made / family.speech_tokenizer, seed)
        full.write_speaker_encoder(made / family.speaker_encoder, family, seed)
    weights.write(made, family, shape, special, seed)


def _write_manifest(made: Path, family: Family, base: str, seed: int) -> None:
    """Last of all: a directory without it is not finished."""
    shape = family.shape(base)
    contents = {
        str(path.relative_to(made)): {"size": path.stat().st_size, "sha256": files.sha256(path)}
        for path in sorted(made.rglob("*"))
        if path.is_file()
    }
    value = {
        "format": manifest.FORMAT,
        "family": family.name,
        "base": base,
        **({"weights": shipped.WHAT, "shipped": shipped.digest()} if base == "tiny" else _random(seed)),
        "shape": {"llm": vars(shape.llm), "flow": vars(shape.flow), "vocoder": vars(shape.vocoder)},
        "files": contents,
    }
    files.write_json(made / manifest.NAME, value)


def _random(seed: int) -> dict[str, Any]:
    return {"weights": "random: it proves the machinery, its voice is noise", "seed": seed}


def _put(made: Path, model_dir: Path) -> None:
    try:
        made.rename(model_dir)
    except OSError:
        if not (model_dir / manifest.NAME).is_file():  # else another process put the same bytes there first
            raise UserError(f"{model_dir}: in the way, and no model that was made here; move it elsewhere") from None


def _need_space(directory: Path, size: float) -> None:
    free = shutil.disk_usage(directory).free
    if free < 1.1 * size:
        raise UserError(
            f"{directory}: {free / 1e9:.1f} GB free, the model needs {1.1 * size / 1e9:.1f} GB; free some disk space"
        )


class _one_thread:  # noqa: N801
    """Sums in one order, whatever the number of cores: the same bytes on every run."""

    def __enter__(self) -> None:
        self._threads = torch.get_num_threads()
        torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self._threads)
