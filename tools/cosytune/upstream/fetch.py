"""A source (wheel, git, a checkout) -> upstream's files of the pinned commit, in an empty directory.

Nothing here is trusted: the caller compares every file with the manifest.
"""

from __future__ import annotations

import io
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cosytune.errors import UserError
from cosytune.upstream import patch, programs
from cosytune.upstream.manifest import COSYVOICE, MATCHA, MATCHA_SUBMODULE, Pin

_IN_WHEEL = {COSYVOICE: "xinference/thirdparty/cosyvoice", MATCHA: "xinference/thirdparty/matcha"}


def from_wheel(pin: Pin, destination: Path) -> None:
    """Download the wheel by its sha256, take upstream's files out, and bring Matcha back to upstream's version."""
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".wheel-") as name:
        options = ("--python", sys.executable, "--target", name, "--no-deps", "--require-hashes", "--quiet")
        programs.uv("pip", "install", *options, "-r", str(pin.directory / "wheel.txt"))
        _copy_packages({package: Path(name) / inside for package, inside in _IN_WHEEL.items()}, pin, destination)
    patch.git_apply(destination, pin.directory / "wheel-matcha.patch")


def from_git(pin: Pin, url: str, destination: Path) -> None:
    """Fetch the pinned commit and the commit of Matcha-TTS that it names, from the address that it names."""
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".git-") as name:
        repository = Path(name)
        _git(repository, "init", "--quiet", "--bare")
        _fetch_commit(repository, url, pin.commit)
        _extract(_git(repository, "archive", pin.commit, COSYVOICE), destination, pin)
        url_key = f"submodule.{MATCHA_SUBMODULE}.url"
        matcha_url = _git(repository, "config", f"--blob={pin.commit}:.gitmodules", url_key).decode().strip()
        matcha_commit = _git(repository, "rev-parse", f"{pin.commit}:{MATCHA_SUBMODULE}").decode().strip()
        _fetch_commit(repository, matcha_url, matcha_commit)
        archive = _git(repository, "archive", f"--prefix={MATCHA_SUBMODULE}/", matcha_commit, Path(MATCHA).name)
        _extract(archive, destination, pin)


def from_checkout(pin: Pin, checkout: Path, destination: Path) -> None:
    """Copy the files out of a checkout, which is only read."""
    _copy_packages({package: checkout / package for package in _IN_WHEEL}, pin, destination)


def _fetch_commit(repository: Path, url: str, commit: str) -> None:
    """That one commit; a server that gives out branches only is asked for all of them."""
    try:
        _git(repository, "fetch", "--quiet", "--depth=1", url, commit)
    except UserError:
        _git(repository, "fetch", "--quiet", url, "+refs/heads/*:refs/heads/*")
        _git(repository, "cat-file", "-e", f"{commit}^{{commit}}")


def _copy_packages(sources: Mapping[str, Path], pin: Pin, destination: Path) -> None:
    """Copies, never links: uv links into its cache, and the files are patched later."""
    for path in pin.pristine:
        package = next(package for package in sources if path.startswith(f"{package}/"))
        source = sources[package] / Path(path).relative_to(package)
        if source.is_file():  # what is missing, the manifest will tell
            (destination / path).parent.mkdir(parents=True, exist_ok=True)
            (destination / path).write_bytes(source.read_bytes())


def _extract(archive: bytes, destination: Path, pin: Pin) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            stream = tar.extractfile(member) if member.name in pin.pristine else None
            if stream is not None:
                (destination / member.name).parent.mkdir(parents=True, exist_ok=True)
                (destination / member.name).write_bytes(stream.read())


def _git(repository: Path, *arguments: str) -> bytes:
    # no conversion of line endings, whatever the user's settings are: the bytes are hashed
    return programs.git(repository, "-c", "core.autocrlf=false", *arguments)
