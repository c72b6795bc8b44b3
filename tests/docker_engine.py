"""A Docker engine for tests: the one that answers, else one of our own from Debian's packages; a base to build on.

Ours needs root and apt, and neither a bridge nor iptables: it works inside a container, too. Its data, socket and
process id lie in a temporary directory, and it ends with the tests.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cosytune.layout import ROOT

_PACKAGES = {
    "/usr/sbin/dockerd": "docker.io",
    "/usr/sbin/debootstrap": "debootstrap",
    "/usr/bin/docker-compose": "docker-compose",
}
_START_S = 30
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True)
class Engine:
    """`program`: the docker command with what leads to the engine. `is_ours`: started here, nothing of it is kept."""

    program: tuple[str, ...]
    is_ours: bool

    def run(self, *arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.program, *arguments], capture_output=True, text=True, timeout=timeout_s, check=False
        )

    def ask(self, *arguments: str, timeout_s: float = 120) -> str:
        """What the command prints; an error of it is the test's."""
        done = self.run(*arguments, timeout_s=timeout_s)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def missing() -> str | None:
    """Why no engine can be had here; None if one can."""
    if _answers(("docker",)):
        return None
    if os.geteuid() != 0:
        return "no Docker engine answers, and to start one takes root"
    if shutil.which("apt-get") is None:
        return "no Docker engine answers, and there is no apt to install one"
    return None


@contextmanager
def running(directory: Path) -> Iterator[Engine]:
    """An engine. Skips the test where none can be had; fails where ours ought to start and does not."""
    if reason := missing():
        pytest.skip(reason)
    if _answers(("docker",)):
        yield Engine(("docker",), is_ours=False)
        return
    _install()
    socket = directory / "docker.sock"
    command = [
        *("/usr/sbin/dockerd", "--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"),
        *("--data-root", str(directory / "data"), "--exec-root", str(directory / "exec")),
        *("--pidfile", str(directory / "pid"), "-H", f"unix://{socket}"),
    ]
    log = directory / "dockerd.log"
    with log.open("wb") as output:
        daemon = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    # Debian's own: another client on PATH may lack BuildKit
    engine = Engine(("/usr/bin/docker", "-H", f"unix://{socket}"), is_ours=True)
    try:
        deadline_s = time.monotonic() + _START_S
        while not _answers(engine.program):
            if daemon.poll() is not None or time.monotonic() > deadline_s:
                words = log.read_text(errors="replace")
                if re.search(r"[Pp]ermission denied|[Oo]peration not permitted", words):
                    pytest.skip(f"this machine lets no Docker engine start: {words.splitlines()[-1]}")
                pytest.fail(f"dockerd did not start: {words[-2000:]}")
            time.sleep(0.2)
        yield engine
    finally:
        daemon.terminate()
        daemon.wait(timeout=60)
        shutil.rmtree(directory / "data", ignore_errors=True)  # some hundred MB to some GB


def compose(engine: Engine) -> list[str]:
    """The compose program: the plugin of a newer engine, or the one that Debian has."""
    if engine.run("compose", "version").returncode == 0:
        return [*engine.program, "compose"]
    if shutil.which("docker-compose") is None:
        pytest.skip("the engine of this machine has no compose")
    return ["docker-compose"]


def base(engine: Engine, directory: Path) -> str:
    """The base that the Dockerfile pins, if a registry gives it; else Debian's own by debootstrap, with what this
    machine knows of mirrors and certificates.
    """
    pinned = re.search(r"^ARG BASE_IMAGE=(\S+)$", (ROOT / "docker" / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert pinned is not None
    if engine.run("pull", "--quiet", pinned[1], timeout_s=300).returncode == 0:
        return pinned[1]
    if not engine.is_ours:
        pytest.skip("no registry gives the base, and making one takes root")
    root = directory / "base"
    mirror, sources = _mirror()
    subprocess.run(
        ["debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", str(root), *mirror],
        check=True,
        capture_output=True,
        timeout=600,
    )
    (root / "etc/apt/sources.list").write_text("")
    for source in sources:
        shutil.copy(source, root / "etc/apt/sources.list.d")
    if _CERTIFICATES.is_file():
        shutil.copy(_CERTIFICATES, root / "etc/ssl/host.pem")
        (root / "etc/pip.conf").write_text("[global]\ncert = /etc/ssl/host.pem\n")
    with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run([*engine.program, "import", "-", "cosytune-base"], stdin=tar.stdout, check=True)
    shutil.rmtree(root)
    return "cosytune-base"


def _mirror() -> tuple[list[str], list[Path]]:
    """Where this machine's apt finds bookworm, for debootstrap; and the files that say so."""
    places = [path for path in sorted(Path("/etc/apt").rglob("*")) if path.suffix in (".list", ".sources")]
    sources = [path for path in places if "bookworm" in path.read_text()]
    for text in map(Path.read_text, sources):
        if found := re.search(r"^(?:URIs:|deb(?: \[[^]]*\])?) *(\S+)", text, flags=re.MULTILINE):
            return [found[1]], sources
    return [], []


def _install() -> None:
    wanted = [package for file, package in _PACKAGES.items() if not Path(file).exists()]
    if not wanted:
        return
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *wanted]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for before in ([], ["apt-get", "update"]):
        if before:
            subprocess.run(before, check=True, capture_output=True, timeout=300)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode == 0:
            return
    pytest.fail(f"apt could not install {', '.join(wanted)}: {done.stderr}")


def _answers(program: tuple[str, ...]) -> bool:
    if shutil.which(program[0]) is None:
        return False
    return subprocess.run([*program, "version"], capture_output=True, check=False).returncode == 0
