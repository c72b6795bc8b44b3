"""Shards as rows of a Ray dataset: Ray finds machines with room, and tries again where one is lost."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any

from cosytune.errors import UserError
from cosytune.layout import ROOT
from cosytune.schema import ShardsConfig
from cosytune.shards.job import Ended, Job, ended, run_here

_STORE_BYTES = 128 << 20  # Ray would take a third of the memory; what passes through it are command lines


def run(jobs: Sequence[Job], settings: ShardsConfig, gpus: int) -> Iterator[Ended]:
    """As they end; when the stage is stopped, so are they."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    try:
        import ray
        import ray.data
    except ImportError as failure:
        raise UserError(
            f"shards.launcher = ray: {failure}; install it with tools/install.sh --cluster, on every machine of the "
            "cluster, or set shards.launcher=pool"
        ) from None
    _connect(ray, settings)
    try:
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # the stage shows progress itself
        rows = [_row(job, settings) for job in jobs]
        done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _run, num_cpus=settings.cpus, num_gpus=gpus, concurrency=min(settings.at_a_time, len(rows))
        )
        for row in done.iter_rows():
            yield ended(int(row["number"]), int(row["status"]))
    finally:
        ray.shutdown()


def _connect(ray: Any, settings: ShardsConfig) -> None:
    """To the cluster that is named, or to one that is started on this machine and ends with the stage."""
    address = settings.ray.address
    own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": _STORE_BYTES} if address is None else {}
    if address is None:
        own["num_cpus"] = len(os.sched_getaffinity(0))
    variables = {"PYTHONPATH": f"{ROOT / 'tools'}:{os.environ.get('PYTHONPATH', '')}".rstrip(":")}
    try:
        ray.init(
            address="local" if address is None else address,
            log_to_driver=False,
            logging_level="error",
            runtime_env={"env_vars": variables},
            **own,
        )
    except ConnectionError as failure:
        raise UserError(
            f"shards.ray.address = {address}: {str(failure).splitlines()[0]}; start a cluster (ray start --head), or "
            "set shards.ray.address=null"
        ) from None


def _row(job: Job, settings: ShardsConfig) -> dict[str, Any]:
    return {"number": job.number, "command": json.dumps(job.on(settings.cpus)), "log": str(job.log)}


def _run(row: dict[str, Any]) -> dict[str, Any]:
    """On the machine that Ray chose. A process of its own: a shard that is killed takes no worker of Ray's with it."""
    return {"number": row["number"], "status": run_here(json.loads(row["command"]), row["log"])}
