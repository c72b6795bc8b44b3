"""Shards as an array of jobs of a real Slurm: the same bytes; a job that Slurm kills is run again alone."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from cosytune.layout import Layout
from shard_runs import command, environment, made, make, run
from slurm_cluster import Cluster, slurm_cluster  # noqa: F401 - a fixture

BY_SLURM = ("shards.nj=2", "shards.launcher=slurm", "shards.slurm.partition=all", "shards.slurm.time_min=5")


def start(layout: Layout, cluster: Cluster, *overrides: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(layout, "embed", *overrides),
        env={**environment(), "SLURM_CONF": cluster.environment["SLURM_CONF"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_an_array_of_jobs(slurm_cluster: Cluster, random_model: Path, tmp_path: Path) -> None:  # noqa: F811
    layout = make(tmp_path)
    done = run(layout, "prepare")
    assert done.returncode == 0, done.stderr
    refused = start(layout, slurm_cluster, *BY_SLURM[:2], "shards.slurm.partition=nowhere")
    complaint = refused.communicate()[1]
    assert refused.returncode == 1
    assert "error: shards.launcher = slurm: Batch job submission failed: Invalid partition name" in complaint
    assert "Traceback" not in complaint

    stage = start(layout, slurm_cluster, *BY_SLURM)
    job = second_job(slurm_cluster)
    assert slurm_cluster.run("scancel", "--signal=KILL", "--full", job).returncode == 0
    said, complaint = stage.communicate()
    assert stage.returncode == 1 and "in 2 shards = 0 there + 2 to run (slurm)" in said
    assert "shard 2 of 2 of 'embed' " in complaint and "shard 1 of 2" not in complaint
    first = layout.shards / "embed" / "1-of-2.parquet"
    before = first.stat()

    stage = start(layout, slurm_cluster, *BY_SLURM)
    said, complaint = stage.communicate()
    assert stage.returncode == 0, complaint
    assert "in 2 shards = 1 there + 1 to run (slurm)" in said
    assert (first.stat().st_ino, first.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    by_slurm = made(layout)
    again = [*command(layout, "embed", "shards.launcher=pool", "shards.nj=1"), "--again"]
    assert subprocess.run(again, env=environment(), capture_output=True).returncode == 0
    assert made(layout) == by_slurm


def second_job(cluster: Cluster) -> str:
    """The id of shard 2's, once it runs."""
    until_s = time.monotonic() + 30
    while time.monotonic() < until_s:
        lines = cluster.run("squeue", "--noheader", "--array", "--states=RUNNING", "--format=%i").stdout.split()
        if found := [one for one in lines if one.endswith("_1")]:
            return found[0]
        time.sleep(0.05)
    return pytest.fail("no job came")
