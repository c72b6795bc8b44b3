"""Shards as an array of Slurm jobs, by submitit.

What travels to the job in submitit's own form is a command line; the work travels in parquet. Whether a job is still
there, squeue says: submitit asks sacct, which knows nothing on a cluster without an accounting database, and would
wait for ever for a job that was killed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import Any

from cosytune.errors import UserError
from cosytune.schema import ShardsConfig
from cosytune.shards.job import Ended, Job, ended, run_here

_POLL_S = {"slurm": 2.0, "local": 0.1}


def run(jobs: Sequence[Job], settings: ShardsConfig, step: str, gpus: int) -> Iterator[Ended]:
    """As they end; when the stage is stopped, so are they."""
    import submitit

    cluster = settings.slurm.cluster
    if cluster == "slurm" and shutil.which("sbatch") is None:
        raise UserError(
            "shards.launcher = slurm: no sbatch on this machine; run this where jobs are submitted, or set "
            "shards.launcher=pool"
        )
    executor = submitit.AutoExecutor(folder=jobs[0].log.parents[1] / "slurm", cluster=cluster)
    executor.update_parameters(**_parameters(settings, step, gpus))
    # Slurm holds back what is too much at a time; without it, that is for us to do.
    size = len(jobs) if cluster == "slurm" else len(os.sched_getaffinity(0))
    for start in range(0, len(jobs), size):
        batch = jobs[start : start + size]
        try:
            submitted = executor.map_array(
                run_here, [job.on(settings.cpus) for job in batch], [str(job.log) for job in batch]
            )
        except submitit.core.utils.FailedJobError as failure:  # sbatch has refused: a partition that is not there
            reason = str(failure).strip().splitlines()[-1].removeprefix("sbatch: error: ")
            remedy = "see shards.slurm.partition, account, time_min, memory_gb, and shards.cpus and gpus"
            raise UserError(f"shards.launcher = slurm: {reason}; {remedy}") from None
        yield from _wait(dict(zip((job.number for job in batch), submitted, strict=True)), cluster)


def _parameters(settings: ShardsConfig, step: str, gpus: int) -> dict[str, Any]:
    """In submitit's names; None: left to the cluster."""
    asked = settings.slurm
    return {
        "name": f"cosytune-{step}",
        "timeout_min": asked.time_min,
        "cpus_per_task": settings.cpus,
        "gpus_per_node": gpus or None,
        "mem_gb": asked.memory_gb,
        "slurm_partition": asked.partition,
        "slurm_account": asked.account,
        "slurm_array_parallelism": settings.at_a_time,
    }


def _wait(waiting: dict[int, Any], cluster: str) -> Iterator[Ended]:
    try:
        while waiting:
            queued = _queued() if cluster == "slurm" else None
            for number, job in list(waiting.items()):
                if job.paths.result_pickle.exists() or (job.done() if queued is None else job.job_id not in queued):
                    del waiting[number]
                    yield _ended(number, job)
            if waiting:
                time.sleep(_POLL_S[cluster])
    finally:
        _cancel(list(waiting.values()), cluster)


class _Everything:
    """What a controller that does not answer has in its queue: for all we know, every job."""

    def __contains__(self, _: object) -> bool:
        return True


def _queued() -> set[str] | _Everything:
    """The ids of this user's jobs that wait or run, those of an array one by one: 17_3."""
    command = ["squeue", "--noheader", "--array", "--format=%i", f"--user={os.getuid()}"]
    done = subprocess.run(command, capture_output=True, text=True)
    return _Everything() if done.returncode else set(done.stdout.split())


def _ended(number: int, job: Any) -> Ended:
    import submitit

    if not job.paths.result_pickle.exists():
        return Ended(number, f"is gone from the queue without a word (see {job.paths.stderr} if it is there)")
    try:
        return ended(number, job.result())
    except (submitit.core.utils.FailedJobError, submitit.core.utils.UncompletedJobError) as failure:
        return Ended(number, f"failed in submitit ({str(failure).strip().splitlines()[-1]})")


def _cancel(jobs: Sequence[Any], cluster: str) -> None:
    if cluster == "slurm" and jobs:
        arrays = sorted({job.job_id.partition("_")[0] for job in jobs})
        subprocess.run(["scancel", *arrays], capture_output=True)
        return
    for job in jobs:
        job.cancel(check=False)
