"""Fixtures of the unit tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

from cosytune.schema import UpstreamConfig
from cosytune.upstream import patch, tree
from cosytune.upstream.manifest import PINNED

if TYPE_CHECKING:
    from cosytune.training.job import Job


@pytest.fixture(scope="session")
def wheel_tree(shared_tmp: Path) -> Path:
    """A patched tree brought from the wheel, really; read only. The lock in `ensure` makes it once for all workers."""
    return tree.ensure(UpstreamConfig(source="wheel"), directory=shared_tmp / "upstream")


@pytest.fixture(scope="session")
def pristine_tree(upstream_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Upstream's files without our patches; read only."""
    checkout = tmp_path_factory.mktemp("upstream") / "pristine"
    shutil.copytree(upstream_tree, checkout, ignore=shutil.ignore_patterns("__pycache__", ".as_built.json"))
    patch.revert(checkout, PINNED)
    return checkout


@pytest.fixture
def pristine(pristine_tree: Path, tmp_path: Path) -> Path:
    """A checkout of one's own as upstream has it, in a directory whose name has a space and Japanese letters."""
    return shutil.copytree(pristine_tree, tmp_path / "私の CosyVoice")


@pytest.fixture(scope="session")
def training_features(random_model: Path, shared_tmp: Path) -> Path:
    """features.arrow of 8 clips of real sound; read only."""
    import training_data  # torch: not for the tests that need none

    path = shared_tmp / "training" / "features.arrow"
    with FileLock(shared_tmp / "training_features.lock"):
        return path if path.exists() else training_data.write_features(path, random_model, 8)


@pytest.fixture
def job(random_model: Path, training_features: Path, tmp_path: Path) -> Callable[..., Job]:
    """Six clips to train on and two for cross-validation; the flow, which is slow, gets the short ones."""
    import training_data

    chosen = {"llm": ([0, 1, 2, 3, 4, 5], [6, 7]), "flow": ([1, 4, 7], [1])}
    sets = {
        name: [
            training_data.write_subset(training_features, tmp_path / f"{name}-{number}.arrow", part)
            for number, part in parts
        ]
        for name, parts in ((name, enumerate(parts)) for name, parts in chosen.items())
    }

    def make(name: str, directory: str, **settings: Any) -> Job:
        defaults = {"learning_rate": 0.003, "num_train_epochs": 3, "logging_steps": 2, "save_total_limit": 10}
        return training_data.make_job(name, random_model, tmp_path / directory, *sets[name], **defaults | settings)

    return make
