"""The base model: where it lies, whether every file is as it should be, the real one's download, the others' making.

    python -c "from cosytune import base, schema; print(base.locate(schema.Config(base='random')))"

Four kinds, one loading path: `real` is downloaded; `tiny` is small and trained, its weights come with the repository;
`random` and `full-random` have random weights. All have the layout of the real one, file by file.
"""

from __future__ import annotations

from pathlib import Path

from cosytune import families, files
from cosytune.base.verify import check, hashes
from cosytune.errors import UserError
from cosytune.layout import PRETRAINED_MODELS, ROOT
from cosytune.schema import Config

__all__ = ["check", "fetch", "file", "hashes", "locate", "make"]


def locate(config: Config) -> Path:
    """The directory of the base model, whether or not it is there; a relative `model_dir` starts at the repository."""
    if config.model_dir is not None:
        return ROOT / Path(config.model_dir).expanduser()
    title = families.get(config.model).title
    return PRETRAINED_MODELS / (title if config.base == "real" else f"{title}-{config.base}")


def file(config: Config, name: str) -> Path:
    """One file of the base model, hashed; raises UserError when it is missing, or not as stage -1 checked it.

    A stage that reads a weight file asks here: a flipped bit loads without a word and trains a wrong voice.
    """
    model_dir = locate(config)
    path = model_dir / name
    if not path.is_file():
        raise UserError(f"{path}: missing; run stage -1 (setup) first: --stage -1")
    if files.sha256(path) != hashes(model_dir).get(name):
        raise UserError(f"{path}: not as it was when stage -1 checked it; run --stage -1, which says how to mend it")
    return path


def fetch(config: Config, model_dir: Path) -> None:
    """Download what `model_dir` lacks of the real model; raises UserError when that cannot be had whole and right."""
    from cosytune.base import download  # the hubs' libraries

    download.fetch(families.get(config.model), config.download, model_dir)


def make(config: Config, model_dir: Path) -> None:
    """Write a model that is not downloaded. The same bytes every time, whatever `config.seed` is.

    It stands for a downloaded model, which all recipes share and no recipe's seed changes. Raises UserError for
    `base: real`, which cannot be made, and when the disk is too small.
    """
    from cosytune.base.build import build  # torch, onnx and upstream's classes

    family = families.get(config.model)
    if config.base == "real":
        check(model_dir, family)
        return
    build(family, config.base, model_dir)
