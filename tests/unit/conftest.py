"""Fixtures of the unit tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from cosytune.schema import UpstreamConfig
from cosytune.upstream import patch, tree
from cosytune.upstream.manifest import PINNED


@pytest.fixture(scope="session")
def wheel_tree(shared_tmp: Path) -> Path:
    """A patched tree brought from the wheel, really; read only. The lock in `ensure` makes it once for all workers."""
    return tree.ensure(UpstreamConfig(source="wheel"), directory=shared_tmp / "upstream")


@pytest.fixture(scope="session")
def pristine_tree(wheel_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Upstream's files without our patches; read only."""
    checkout = tmp_path_factory.mktemp("upstream") / "pristine"
    shutil.copytree(wheel_tree, checkout)
    (checkout / ".as_built.json").unlink()
    patch.revert(checkout, PINNED)
    return checkout


@pytest.fixture
def pristine(pristine_tree: Path, tmp_path: Path) -> Path:
    """A checkout of one's own as upstream has it, in a directory whose name has a space and Japanese letters."""
    return shutil.copytree(pristine_tree, tmp_path / "私の CosyVoice")


@pytest.fixture(scope="session")
def training_features(tiny_model: Path, shared_tmp: Path) -> Path:
    """features.arrow of 8 clips of real sound; read only."""
    import training_data  # torch: not for the tests that need none

    path = shared_tmp / "training" / "features.arrow"
    with FileLock(shared_tmp / "training_features.lock"):
        return path if path.exists() else training_data.write_features(path, tiny_model, 8)
