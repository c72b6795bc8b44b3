"""Several machines that train together: their endpoint, this machine's address on the way there, and what they may run.

What they have in common is a file system with the recipe, and a store by which they speak; no lock reaches from one to
the other. The config is frozen by each of them: renaming makes it one of several equal files at any moment, and the
processes compare what they have read.
"""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import json
import os
import socket
import struct
from collections.abc import MutableMapping

from cosytune.errors import UserError
from cosytune.layout import Layout
from cosytune.schema import Config, TrainConfig
from cosytune.stages import STAGES

_ANYWHERE = "192.0.2.1"
"""For documentation, by RFC 5737: nobody has it, and the way there is the way out of this machine."""


def refuse_other_stages(train: TrainConfig, first: int, last: int) -> None:
    """Raise UserError where each of several nodes would prepare the same data at the same time."""
    if train.launcher != "torchrun" or train.num_nodes in (1, "auto"):
        return
    number = next(stage.number for stage in STAGES if stage.name == "train")
    if first <= number <= last and first != last:
        raise UserError(
            f"train.num_nodes = {train.num_nodes}: each node would run stages {first} to {last}, and write the same "
            f"files; run the others on one node, and --stage {number} --stop_stage {number} on each",
            exit_status=2,
        )


def digest(config: Config) -> str:
    """Of what this process has read in the frozen config."""
    return hashlib.sha256(json.dumps(config.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def meeting_name(config: Config, layout: Layout) -> str:
    """A word of letters and figures, as torchrun makes a file name of it."""
    name = config.train.rdzv_id or f"{layout.recipe.name}/{layout.exp}"
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def split(endpoint: str) -> tuple[str, int]:
    host, _, port = endpoint.rpartition(":")
    return host, int(port)


def require_known(endpoint: str) -> None:
    """Raise UserError for a host that no resolver knows: waiting for it would take as long as for one that is late."""
    host, port = split(endpoint)
    try:
        socket.getaddrinfo(host, port)
    except (OSError, UnicodeError):
        raise UserError(
            f"train.rdzv_endpoint = {endpoint}: no address of a host {host!r} is known here; write its IP address, or "
            "add it to /etc/hosts",
            exit_status=2,
        ) from None


def own_address(host: str) -> str:
    """The address of this machine on the way to `host`, which may be this machine.

    Debian gives a machine's own name an address of the loopback, at which the others do not find it.
    """
    address = _towards(host)
    if _is_loopback(address) and not _is_loopback(host):
        return _towards(_ANYWHERE)
    return address


def is_own(host: str) -> bool:
    """Whether `host` is this machine."""
    for family, _, _, _, place in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as trial:
                trial.bind((place[0], 0))
                return True
        except OSError:  # another machine's, or of a protocol that this one does not speak
            continue
    return False


def is_free(port: int) -> bool:
    """Whether nobody on this machine listens there."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("", port))
        except OSError:
            return False
    return True


def use_interface(environment: MutableMapping[str, str], address: str) -> None:
    """Let gloo speak where the other machines are; it would take the address of this one's name."""
    if "GLOO_SOCKET_IFNAME" not in environment and (name := _interface(address)):
        environment["GLOO_SOCKET_IFNAME"] = name


def _interface(address: str) -> str | None:
    """The network interface that has an IPv4 address."""
    siocgifaddr = 0x8915  # linux/sockios.h
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            try:
                found = fcntl.ioctl(asking, siocgifaddr, struct.pack("256s", os.fsencode(name)[:15]))
            except OSError:
                continue  # it has none
            if socket.inet_ntoa(found[20:24]) == address:
                return name
    return "lo" if _is_loopback(address) else None  # 127.0.0.0/8 is one interface


def _towards(host: str) -> str:
    """By asking the kernel; nothing is sent."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.connect((host, 9))
            return str(asking.getsockname()[0])
    except OSError:
        return "127.0.0.1"  # no way out: then all is on this machine


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
