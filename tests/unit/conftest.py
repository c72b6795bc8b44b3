"""Fixtures of the unit tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cosytune.schema import UpstreamConfig
from cosytune.upstream import patch, tree
from cosytune.upstream.manifest import PINNED


@pytest.fixture(scope="session")
def wheel_tree(shared_tmp: Path) -> Path:
    """A patched tree brought from the wheel, really; read only. The lock in `ensure` makes it once for all workers."""
    return tree.ensure(UpstreamConfig(source="wheel"), directory=shared_tmp / "upstream")


@pytest.fixture
def pristine(wheel_tree: Path, tmp_path: Path) -> Path:
    """A checkout as upstream has it, in a directory whose name has a space and Japanese letters."""
    checkout = tmp_path / "私の CosyVoice"
    shutil.copytree(wheel_tree, checkout)
    (checkout / ".as_built.json").unlink()
    patch.revert(checkout, PINNED)
    return checkout
