"""A real Slurm on loopback: munged, slurmctld and two slurmd of this session's own, as two nodes of four processors.

    from slurm_cluster import Cluster, slurm_cluster  # noqa: F401 - a fixture

    def test_something(slurm_cluster: Cluster) -> None:
        done = slurm_cluster.run("srun", "--nodes=2", "hostname")

Debian's packages are installed where they lack. Nothing of the machine's own Slurm is used or changed: key, socket,
ports, state and logs are in a directory that goes with the session. The nodes are called node1 and node2, which no
resolver knows; both are at 127.0.0.1. Jobs run as root, there are no cgroups, and starting it takes about a second.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

NODES = ("node1", "node2")
_PROGRAMS = {"munged": "munge", "slurmctld": "slurm-wlm", "slurmd": "slurm-wlm", "srun": "slurm-wlm"}
_PATIENCE_S = 30.0
_SETTINGS = """\
ClusterName=tests
SlurmctldHost=localhost
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthInfo=socket={directory}/munge.sock
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool.%n
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.%n.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd.%n.log
ReturnToService=2
NodeName=node[1-2] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[{ports[1]}-{ports[2]}] CPUs=4 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class Cluster:
    """`directory`: of its slurm.conf and its logs."""

    directory: Path

    @property
    def environment(self) -> dict[str, str]:
        """For every program that is to speak with this cluster, and for submitit."""
        outside = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
        return {**outside, "SLURM_CONF": str(self.directory / "slurm.conf")}

    def run(self, *command: str | Path, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """A client such as sbatch or squeue; its stderr goes with its stdout."""
        return subprocess.run(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
        )


@pytest.fixture(scope="session")
def slurm_cluster(shared_tmp: Path) -> Iterator[Cluster]:
    """A cluster whose two nodes are idle at first; one for each worker of pytest-xdist, as long as it works."""
    _install(shared_tmp)
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as name, ExitStack() as daemons:
        cluster = Cluster(Path(name))
        _configure(cluster.directory)
        for command in _daemons(cluster.directory):
            daemons.enter_context(_daemon(cluster, command))
        _wait_until_idle(cluster)
        yield cluster
        cluster.run("scancel", "--user=root", "--full")


def _install(shared_tmp: Path) -> None:
    with FileLock(shared_tmp / "slurm.lock"):
        packages = sorted({package for name, package in _PROGRAMS.items() if _path(name) is None})
        if os.geteuid() != 0:
            pytest.skip("Slurm's daemons start jobs as root alone")
        if not packages:
            return
        if shutil.which("apt-get") is None:
            pytest.skip(f"no {' and '.join(packages)}, and no apt-get to install them with")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            done = subprocess.run(["apt-get", "-q", *command], env=environment, capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"apt-get {command[0]} failed: {done.stderr.strip()[-200:]}")


def _path(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def _configure(directory: Path) -> None:
    (directory / "state").mkdir()
    key = directory / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    settings = _SETTINGS.format(directory=directory, ports=_free_ports(3))
    (directory / "slurm.conf").write_text(settings, encoding="utf-8")


def _free_ports(count: int) -> list[int]:
    """One after the other, as a range in slurm.conf has to be."""
    for first in range(20000 + os.getpid() % 9000, 32000, count):  # below those that the kernel gives to clients
        with ExitStack() as held:
            try:
                for port in range(first, first + count):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return list(range(first, first + count))
    raise AssertionError("no free ports")


def _daemons(directory: Path) -> list[Sequence[str]]:
    munge = {"key-file": "munge.key", "socket": "munge.sock", "pid-file": "munged.pid", "seed-file": "munged.seed"}
    options = [f"--{option}={directory / name}" for option, name in munge.items()]
    conf = str(directory / "slurm.conf")
    return [
        ["munged", "--foreground", "--force", *options],
        ["slurmctld", "-D", "-f", conf],
        *(["slurmd", "-D", "-N", node, "-f", conf] for node in NODES),
    ]


@contextmanager
def _daemon(cluster: Cluster, command: Sequence[str]) -> Iterator[None]:
    program = _path(command[0])
    assert program
    with (cluster.directory / "output.txt").open("ab") as output:
        process = subprocess.Popen(
            [program, *command[1:]],
            env=cluster.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        if command[0] == "munged":
            _wait_for(cluster, process, cluster.directory / "munge.sock")
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(cluster: Cluster, process: subprocess.Popen[bytes], path: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not path.exists():
        output = cluster.directory / "output.txt"
        assert process.poll() is None and time.monotonic() < deadline, output.read_text(encoding="utf-8")
        time.sleep(0.02)


def _wait_until_idle(cluster: Cluster) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        found = cluster.run("sinfo", "--noheader", "--Node", "--format=%N %T")
        if found.stdout.split() == [word for node in NODES for word in (node, "idle")]:
            return
        assert time.monotonic() < deadline, found.stdout + (cluster.directory / "output.txt").read_text()
        time.sleep(0.05)
