"""Stage -1: conf.yaml -> upstream's code at its pinned commit, verified and patched; the base model, there and checked.

python -m cosytune.stages.setup egs/demo/exp/default/config.yaml
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cosytune import base, families
from cosytune.stages.runner import Context, run_stage
from cosytune.upstream import tree


def work(context: Context) -> None:
    """Bring what is missing, then verify everything, every time: a flipped bit in a model loads without a word."""
    config = context.config
    upstream = tree.ensure(config.upstream)
    print(f"upstream: {upstream.name}, verified and patched")
    model_dir = base.locate(config)
    if config.model_dir is None:  # what that names is the user's own
        if config.base == "real":
            base.fetch(config, model_dir)
        elif not model_dir.exists():
            base.make(config, model_dir)
    base.check(model_dir, families.get(config.model))
    print(f"base model: {model_dir.name}, every file as it should be")


def _nothing(_: Context) -> Iterable[Path]:
    return ()


if __name__ == "__main__":
    run_stage("setup", work, inputs=_nothing, outputs=_nothing)
