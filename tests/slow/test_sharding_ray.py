"""Stages 0 to 2 in shards by a real Ray, from the optional extra's lock: four minutes, most of them Ray's own start."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock

from cosytune.layout import ROOT, Layout
from recipe.test_sharding import copy, whole  # noqa: F401 - a fixture
from shard_runs import STAGES, made, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def ray_packages(shared_tmp: Path) -> Path:
    """What requirements.cluster.lock names, beside .venv and not in it."""
    directory = shared_tmp / "ray"
    with FileLock(shared_tmp / "ray.lock"):
        if not directory.exists():
            install = ["uv", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--target", str(directory)]
            done = subprocess.run(
                [*install, "--requirement", str(ROOT / "requirements.cluster.lock")], capture_output=True, text=True
            )
            if done.returncode:
                shutil.rmtree(directory, ignore_errors=True)
                pytest.skip(f"Ray cannot be installed: {done.stderr.strip()[-200:]}")
    return directory


def test_ray_gives_the_bytes_of_one_run(whole: dict[str, Layout], tmp_path: Path, ray_packages: Path) -> None:  # noqa: F811
    layout = copy(whole["audio"], tmp_path)
    for stage in STAGES:
        done = run(layout, stage, "shards.launcher=ray", "shards.nj=3", packages=(ray_packages,))
        assert done.returncode == 0, done.stderr
        assert "in 3 shards = 0 there + 3 to run (ray)" in done.stdout
    assert made(layout) == made(whole["tokenize"])
