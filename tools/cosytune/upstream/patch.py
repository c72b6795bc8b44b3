"""The pristine files of a checkout + a patch series -> the patched ones, all of them or none; and the way back.

`git apply` does the work: it never guesses (no fuzz), it is there wherever a clone of this repository is, and it reads
the format that `git diff` writes. The libraries of PyPI fall short of it: `unidiff` only parses, `whatthepatch` splits
lines at form feeds and forgets a missing newline at the end, and neither would keep a file's bytes as they are.
It runs in a directory of its own, on copies, and what it wrote is checked by sha256 before the checkout is touched.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from cosytune import files
from cosytune.errors import UserError
from cosytune.upstream import programs
from cosytune.upstream.manifest import Pin, digest


def apply(checkout: Path, pin: Pin) -> None:
    """Patch a pristine checkout."""
    _exchange(checkout, pin.patches, reverse=False, expected={path: pin.patched[path] for path in pin.touched})


def revert(checkout: Path, pin: Pin) -> None:
    """Bring a patched checkout back to upstream's own bytes."""
    _exchange(checkout, pin.patches[::-1], reverse=True, expected={path: pin.pristine[path] for path in pin.touched})


def git_apply(directory: Path, patch: Path, *, reverse: bool = False, only: str | None = None) -> None:
    """Apply one patch below `directory`, the whole patch or nothing; a UserError if it does not fit.

    `only`: leave the hunks for other files out.
    """
    options = ["--reverse"] * reverse + [f"--include={only}"] * (only is not None)
    programs.git(directory, "apply", "--whitespace=nowarn", *options, str(patch.resolve()), settings=False)


def record(pristine: Path, pin: Pin) -> str:
    """The text of `series.sha256`, worked out by applying the series to pristine files."""
    lines = []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        before = dict(pin.pristine)
        _copy(pristine, scratch, tuple(before))
        if wrong := [path for path, expected in before.items() if files.sha256(scratch / path) != expected]:
            raise UserError(
                f"{pristine}: {', '.join(wrong)}: not pristine, and the hashes are taken from pristine files"
            )
        for patch in pin.patches:
            git_apply(scratch, patch)
            after = {path: files.sha256(scratch / path) for path in before}
            lines += [f"{after[path]}  {patch.name}  {path}\n" for path in before if after[path] != before[path]]
            before = after
    return "".join(lines)


def applied_to(checkout: Path, path: str, pin: Pin) -> tuple[str, ...] | None:
    """Which patches of the series are on one file, if taking these off gives upstream's own; else None."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        _copy(checkout, scratch, (path,))
        for patch in reversed(pin.patches):
            before = (scratch / path).read_bytes()
            try:
                git_apply(scratch, patch, reverse=True, only=path)
            except UserError:
                continue
            if (scratch / path).read_bytes() != before:
                found.append(patch.name)
        if files.sha256(scratch / path) != pin.pristine[path]:
            return None
    return tuple(reversed(found))


def _exchange(checkout: Path, patches: Sequence[Path], *, reverse: bool, expected: Mapping[str, str]) -> None:
    """Work on copies of the files, check the result, then put it in place of the checkout's files."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        _copy(checkout, scratch, tuple(expected))
        for patch in patches:
            git_apply(scratch, patch, reverse=reverse)
        results = {path: (scratch / path).read_bytes() for path in expected}
    wrong = [path for path, data in results.items() if digest(data) != expected[path]]
    if wrong:
        raise UserError(
            f"{', '.join(wrong)}: the patches gave other bytes than series.sha256 says; nothing was changed"
        )
    _replace_all({(checkout / path).resolve(): data for path, data in results.items()})


def _replace_all(contents: Mapping[Path, bytes]) -> None:
    """Exchange several files: everything is written beside first, then renamed; a failure brings the old bytes back."""
    before = {path: (path.read_bytes(), path.stat().st_mode) for path in contents}
    try:
        with ExitStack() as renames:
            for path, data in contents.items():
                renames.enter_context(files.atomic_path(path)).write_bytes(data)
        for path, (_, mode) in before.items():
            path.chmod(mode)
    except BaseException:
        for path, (data, mode) in before.items():
            if path.read_bytes() != data:
                files.write_bytes(path, data)
                path.chmod(mode)
        raise


def _copy(source: Path, destination: Path, paths: Sequence[str]) -> None:
    for path in paths:
        (destination / path).parent.mkdir(parents=True, exist_ok=True)
        (destination / path).write_bytes((source / path).read_bytes())
