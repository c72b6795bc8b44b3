"""train.launcher=srun: the stage's processes as tasks of a Slurm allocation, on all of its nodes.

    sbatch --nodes=2 --gpus-per-node=8 --wrap='./run.sh egs/lj train.launcher=srun'

Each task knows from Slurm who it is. Slurm signals the tasks by itself when a job is cancelled, preempted or out of
time; a signal to the stage alone is passed on by srun as SIGUSR1, because srun answers SIGTERM by killing its tasks.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import MutableMapping, Sequence
from pathlib import Path

from cosytune.errors import UserError
from cosytune.layout import Layout
from cosytune.schema import Config
from cosytune.training import nodes, processes, reports, signals, torchrun

_LOOK_S = 0.1
_FELLOWS_S = 60
"""For the other tasks when one has ended: they end by themselves before, or hang."""
_GRACE_S = 60.0
"""For all of them after a signal."""
_FIRST_PORT, _PORTS = 20000, 10000
"""Below those that a kernel gives to clients."""


def is_task() -> bool:
    """Whether this process is one of several that srun has started: by the stage, or by hand."""
    return os.environ.get(torchrun.IS_LAUNCHED) == "srun" or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def join(config: Config, environment: MutableMapping[str, str]) -> None:
    """Give a task what torchrun would have given it, and let it stop by SIGUSR1 as by SIGTERM."""
    signal.signal(signal.SIGUSR1, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    host, port = _master(config, environment)
    environment[torchrun.IS_LAUNCHED] = "srun"
    environment["MASTER_ADDR"], environment["MASTER_PORT"] = host, str(port)
    for name, slurms in (("RANK", "PROCID"), ("LOCAL_RANK", "LOCALID"), ("WORLD_SIZE", "STEP_NUM_TASKS")):
        environment[name] = environment[f"SLURM_{slurms}"]
    nodes.use_interface(environment, nodes.own_address(host))


def train(config: Config, layout: Layout, arguments: Sequence[str]) -> None:
    """Train on the nodes of the allocation; `arguments`: of the stage. Returns when the stage has ended well.

    Raises signals.Stopped after a signal to the stage or its tasks, UserError with the words of what failed.
    """
    if "SLURM_JOB_ID" not in os.environ:
        raise UserError(
            "train.launcher = srun: this is no Slurm allocation; submit the command, as in sbatch --nodes=2 "
            "--gpus-per-node=8 --wrap='./run.sh egs/... train.launcher=srun', or take salloc",
            exit_status=2,
        )
    # Where all tasks can write, which is where they train.
    with tempfile.TemporaryDirectory(prefix=".reports-", dir=layout.exp_dir) as directory:
        environment = {**os.environ, torchrun.IS_LAUNCHED: "srun", reports.DIRECTORY: directory}
        command = [*_srun(config), sys.executable, "-m", "cosytune.stages.train", *arguments]
        with signals.listening() as stop:
            process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
            try:
                _wait(process, stop)
            finally:
                process.kill()
                process.wait()
        found = reports.read(Path(directory))
    failure = _verdict(process.returncode, found, stop)
    if failure is not None:
        raise failure


def _srun(config: Config) -> list[str]:
    hosts, wanted = _hosts(os.environ["SLURM_JOB_NODELIST"]), config.train.num_nodes
    if wanted != "auto" and wanted > len(hosts):
        raise UserError(
            f"train.num_nodes = {wanted}, and the Slurm allocation has {len(hosts)}: {' '.join(hosts)}; leave it out, "
            "or ask for more with sbatch --nodes",
            exit_status=2,
        )
    hosts = hosts if wanted == "auto" else hosts[:wanted]
    per_node = processes.num_processes(config)
    print(f"srun: {per_node} processes on each of {len(hosts)} nodes: {' '.join(hosts)}")
    options = [f"--nodes={len(hosts)}", f"--nodelist={','.join(hosts)}", f"--ntasks={len(hosts) * per_node}"]
    options += [f"--ntasks-per-node={per_node}", "--distribution=block", "--overlap", "--mpi=none"]
    options += ["--kill-on-bad-exit=0", f"--wait={_FELLOWS_S}"]
    if cpus := os.environ.get("SLURM_CPUS_PER_TASK"):  # srun does not take it from sbatch by itself
        options.append(f"--cpus-per-task={cpus}")
    return ["srun", *options]


def _wait(process: subprocess.Popen[bytes], stop: signals.Request) -> None:
    deadline_s = None
    while process.poll() is None:
        time.sleep(_LOOK_S)
        if stop.received and deadline_s is None:
            deadline_s = time.monotonic() + _GRACE_S
            if _is_running():
                process.send_signal(signal.SIGUSR1)
        if deadline_s is not None and time.monotonic() > deadline_s:
            return


def _is_running() -> bool:
    """Whether the job goes on; Slurm itself tells the tasks when it does not, and a second signal ends them at once."""
    asked = subprocess.run(
        ["squeue", "--noheader", f"--jobs={os.environ['SLURM_JOB_ID']}", "--format=%T"], capture_output=True, text=True
    )
    return asked.returncode != 0 or asked.stdout.strip() == "RUNNING"


def _verdict(status: int, found: Sequence[reports.Report], stop: signals.Request) -> signals.Stopped | UserError | None:
    """What the user is told: the first mistake, a wish to stop, who was killed, or what others have seen."""
    mistake = reports.failure(found)
    if mistake is not None and not isinstance(mistake, reports.Aftermath):
        return mistake
    if stop.received:
        return signals.Stopped(stop.received)
    if status == 0:
        return None
    if status == _shell_status(signal.SIGKILL):
        return UserError(
            "a process of this training was killed by SIGKILL, most likely for lack of memory; ask Slurm for more with "
            "--mem, or set train.num_processes=1; the same command goes on from the newest checkpoint"
        )
    if stopped := reports.stopped(found):
        return stopped
    return mistake or UserError(f"srun ended with status {status}; it says more above", exit_status=max(1, status))


def _shell_status(number: signal.Signals) -> int:
    return 128 + number


def _master(config: Config, environment: MutableMapping[str, str]) -> tuple[str, int]:
    """Where the first task is, and a port that no other job of this machine takes."""
    if config.train.rdzv_endpoint:
        return nodes.split(config.train.rdzv_endpoint)
    first = _hosts(environment.get("SLURM_STEP_NODELIST") or environment["SLURM_JOB_NODELIST"])[0]
    return _address(first), _FIRST_PORT + int(environment["SLURM_JOB_ID"]) % _PORTS


def _hosts(listed: str) -> list[str]:
    """`node[1-3]` -> node1, node2, node3."""
    return _scontrol("show", "hostnames", listed).split()


def _address(host: str) -> str:
    """Slurm's own address of a node, whose name need not be one that a resolver knows."""
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        shown = _scontrol("show", "node", host, "--oneliner").split()
        return next((word.partition("=")[2] for word in shown if word.startswith("NodeAddr=")), host)
    return host


def _scontrol(*arguments: str) -> str:
    try:
        asked = subprocess.run(["scontrol", *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError(
            "train.launcher = srun: no scontrol on this machine; run it where Slurm's programs are"
        ) from None
    if asked.returncode:
        raise UserError(f"scontrol {' '.join(arguments)}: {asked.stderr.strip()}; is Slurm at work here?")
    return asked.stdout
