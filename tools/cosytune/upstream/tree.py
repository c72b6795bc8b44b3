"""config.upstream -> ROOT/upstream/CosyVoice-6e01309: upstream's files, every one verified, with our patches on.

The wheel, git and a checkout of the user's own all give the same bytes, so whichever came first serves every config.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from cosytune import files
from cosytune.errors import UserError
from cosytune.layout import UPSTREAM
from cosytune.schema import Config, UpstreamConfig
from cosytune.upstream import fetch, patch
from cosytune.upstream.manifest import PINNED, Pin
from cosytune.upstream.status import State, inspect

_STAMP = ".as_built.json"
"""What the files hashed to when we built the tree: one that nobody touched since may be replaced."""


def ready(config: Config | UpstreamConfig | None = None, *, directory: Path = UPSTREAM, pin: Pin = PINNED) -> Path:
    """The tree, if every file of it is right; else a UserError. Milliseconds: about 90 small files are hashed.

    `config` is not asked: every source gives the same tree.
    """
    tree = directory / pin.name
    if not _there(tree):
        raise UserError(f"{tree}: upstream's code is not there yet; run stage -1 (setup) first: --stage -1")
    status = inspect(tree, pin)
    if status.state is not State.PATCHED:
        raise UserError(*status.lines, f"{tree}: not the pinned, patched tree; run stage -1 (setup) again: --stage -1")
    return tree


def ensure(config: UpstreamConfig, *, directory: Path = UPSTREAM, pin: Pin = PINNED) -> Path:
    """Bring, verify and patch the tree unless it is ready; it appears whole or not at all."""
    tree = directory / pin.name
    if _is_patched(tree, pin):
        return tree
    directory.mkdir(parents=True, exist_ok=True)
    with FileLock(directory / ".lock"):  # two stages or two test workers may come at once
        if _there(tree) and inspect(tree, pin).state is State.PRISTINE:
            patch.apply(tree, pin)
        if _is_patched(tree, pin):
            return tree
        _refuse_edits(tree, pin)
        for leftover in directory.glob(".building-*"):  # of a killed run: we hold the lock
            shutil.rmtree(leftover)
        with tempfile.TemporaryDirectory(dir=directory, prefix=".building-") as name:
            _put(_build(config, pin, Path(name)), tree)
    return tree


def _is_patched(tree: Path, pin: Pin) -> bool:
    return _there(tree) and inspect(tree, pin).state is State.PATCHED


def _there(tree: Path) -> bool:
    return tree.is_dir() and any(tree.iterdir())


def _refuse_edits(tree: Path, pin: Pin) -> None:
    """What is there may be replaced if it is as we built it, with an older series of patches."""
    stamp = tree / _STAMP
    if _there(tree) and not (stamp.is_file() and _hashes(tree) == files.read_json(stamp)):
        remedy = f"{tree}: keep what you need of it, delete it, and run stage -1 again: --stage -1"
        raise UserError(*inspect(tree, pin).lines, remedy)


def _build(config: UpstreamConfig, pin: Pin, workshop: Path) -> Path:
    """The finished tree, inside `workshop`."""
    failures: list[str] = []
    for source, bring in _sources(config, pin).items():
        built = workshop / source
        built.mkdir()
        print(f"upstream: bringing {pin.name} from {source}", flush=True)
        try:
            bring(built)
            status = inspect(built, pin)
            if not status.fine:
                raise UserError(*(f"not the files of {pin.commit[:7]}: {detail}" for detail in status.details))
        except UserError as failure:
            failures += [f"upstream.source {source}: {message}" for message in failure.messages]
            print(f"upstream: could not bring it from {source}", flush=True)
            continue
        if status.state is State.PRISTINE:
            patch.apply(built, pin)
        files.write_json(built / _STAMP, _hashes(built))
        return built
    raise UserError(
        *failures,
        f"upstream: no {pin.name}; mend one of the above, or give a checkout: upstream.source=path upstream.path=DIR",
    )


def _sources(config: UpstreamConfig, pin: Pin) -> dict[str, Callable[[Path], None]]:
    """The sources to try, in order."""
    if config.source == "path":
        if config.path is None:
            raise UserError("upstream.source = path: upstream.path is not set; give your checkout", exit_status=2)
        checkout = Path(config.path).expanduser()
        return {"path": lambda built: fetch.from_checkout(pin, _fine(checkout, pin), built)}
    sources: dict[str, Callable[[Path], None]] = {
        "wheel": lambda built: fetch.from_wheel(pin, built),
        "git": lambda built: fetch.from_git(pin, config.git_url, built),
    }
    return sources if config.source == "auto" else {config.source: sources[config.source]}


def _fine(checkout: Path, pin: Pin) -> Path:
    """The checkout, if it is pristine or patched."""
    status = inspect(checkout, pin)
    if not status.fine:
        raise UserError(*status.lines)
    return checkout


def _put(built: Path, tree: Path) -> None:
    """Rename the new tree into place; an old one moves into the workshop, and goes with it."""
    if tree.exists():
        tree.rename(built.parent / "replaced")
    built.rename(tree)
    files.fsync(tree.parent)


def _hashes(tree: Path) -> dict[str, str]:
    found = (path for path in sorted(tree.rglob("*")) if path.is_file())
    return {
        path.relative_to(tree).as_posix(): files.sha256(path)
        for path in found
        if path.name != _STAMP and path.parent.name != "__pycache__"
    }
