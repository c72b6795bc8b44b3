"""What several tests need and what is expensive to make: once a run, whatever the number of pytest-xdist workers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from filelock import FileLock

from cosytune import base, families
from cosytune.schema import Config, UpstreamConfig
from cosytune.upstream import tree


@pytest.fixture(scope="session")
def shared_tmp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporary directory that the workers of pytest-xdist share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


@pytest.fixture(scope="session")
def upstream_tree() -> Path:
    """Upstream's code, pinned and patched, where the stages look for it. `ensure` locks: workers may come at once."""
    return tree.ensure(UpstreamConfig())


@pytest.fixture(scope="session")
def random_model(upstream_tree: Path, shared_tmp: Path) -> Path:
    """The random base model, checked, where stage -1 makes it. Read only: a test that alters it works on a copy."""
    config = Config(base="random")
    model_dir = base.locate(config)
    with FileLock(shared_tmp / "random_model.lock"):
        if not model_dir.exists():
            base.make(config, model_dir)
        base.check(model_dir, families.get(config.model))
    return model_dir
