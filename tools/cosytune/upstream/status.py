"""A checkout -> what it is: pristine, patched, half-applied, hand-edited, another version; and which files say so."""

from __future__ import annotations

import enum
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosytune.errors import UserError
from cosytune.upstream import patch
from cosytune.upstream.manifest import COSYVOICE, MATCHA, PACKAGES, Pin, digest

_NAMED_FILES = 12
_MANY = 5
"""From so many foreign files in cosyvoice/ on it is another version: its neighbours differ in 13 and more."""


class State(enum.Enum):
    PRISTINE = "pristine"
    PATCHED = "patched"
    HALF_APPLIED = "half-applied"
    HAND_EDITED = "hand-edited"
    UNKNOWN_VERSION = "unknown version"
    WINDOWS_LINE_ENDINGS = "Windows line endings"


@dataclass(frozen=True)
class Status:
    """`details`: one line each, naming the files. `fine`: the patches can be applied or taken off."""

    checkout: Path
    state: State
    details: tuple[str, ...]

    @property
    def fine(self) -> bool:
        return self.state in (State.PRISTINE, State.PATCHED)

    @property
    def lines(self) -> tuple[str, ...]:
        return tuple(f"{self.checkout}: {self.state.value}: {detail}" for detail in self.details)


@dataclass(frozen=True)
class _Findings:
    """What the files are: `counts` are the numbers of patches that a file may have on; the rest does not fit."""

    counts: dict[str, frozenset[int]]
    crlf: list[str]
    changed: list[str]
    missing: list[str]
    extra: list[str]


def inspect(checkout: Path, pin: Pin) -> Status:
    """Compare every file of the manifest. A UserError if there is no checkout at all."""
    if not (checkout / COSYVOICE).is_dir():
        raise UserError(f"{checkout}: no CosyVoice checkout there (no {COSYVOICE}/); give its top with --dir")
    findings = _look(checkout, pin)
    if findings.changed or findings.missing or findings.extra:
        return _foreign(checkout, pin, findings)
    if findings.crlf:
        detail = (
            f"{_names(findings.crlf)}: upstream's text, but its lines end in CRLF; check it out again with "
            f"git config core.autocrlf false && git rm -rq --cached . && git reset --hard, or inside WSL2"
        )
        return Status(checkout, State.WINDOWS_LINE_ENDINGS, (detail,))
    everywhere = frozenset[int].intersection(*findings.counts.values())
    total = len(pin.patches)
    if 0 in everywhere:
        return Status(checkout, State.PRISTINE, (f"{pin.name}, none of the {total} patches applied",))
    if total in everywhere:
        return Status(checkout, State.PATCHED, (f"{pin.name}, all {total} patches applied",))
    return Status(checkout, State.HALF_APPLIED, _half_applied(pin, findings.counts))


def _look(checkout: Path, pin: Pin) -> _Findings:
    findings = _Findings({}, [], [], [], _extra_files(checkout, pin))
    for path, history in pin.histories.items():
        if not (checkout / path).is_file():
            findings.missing.append(path)
            continue
        data = (checkout / path).read_bytes()
        if counts := _counts(digest(data), history):
            findings.counts[path] = counts
        elif _counts(digest(data.replace(b"\r\n", b"\n")), history):
            findings.crlf.append(path)
        else:
            findings.changed.append(path)
    return findings


def _counts(found: str, history: Sequence[str]) -> frozenset[int]:
    return frozenset(count for count, expected in enumerate(history) if expected == found)


def _extra_files(checkout: Path, pin: Pin) -> list[str]:
    """Python files that upstream does not have (they can shadow or be imported), and what a failed `patch` leaves."""
    found = (
        path.relative_to(checkout).as_posix()
        for package in PACKAGES
        for suffix in ("py", "rej", "orig")
        for path in (checkout / package).rglob(f"*.{suffix}")
    )
    return sorted(path for path in found if path not in pin.pristine)


def _foreign(checkout: Path, pin: Pin, findings: _Findings) -> Status:
    """Files that are none of ours: some patches on, an edit, or another version altogether."""
    partly = {} if findings.missing or findings.extra else _partly_patched(checkout, pin, findings.changed)
    if partly:
        details = [f"{path}: only {', '.join(names)} applied" for path, names in partly.items()]
        return Status(checkout, State.HALF_APPLIED, (*details, _restore(partly)))
    details = [
        f"{_names(paths)}: {what}"
        for paths, what in (
            (findings.changed, f"not as upstream has it at {pin.commit[:7]}, with or without our patches"),
            ([path for path in findings.missing if not path.startswith(MATCHA)], "missing"),
            (_matcha(findings.missing, pin), "missing; git submodule update --init --recursive brings it"),
            (findings.extra, "not upstream's"),
        )
        if paths
    ]
    head = _head(checkout)
    in_cosyvoice = [p for p in (*findings.changed, *findings.missing) if p.startswith(f"{COSYVOICE}/")]
    if (head not in (None, pin.commit)) or (head is None and len(in_cosyvoice) >= _MANY):
        where = f"HEAD is {head[:7]}" if head else f"{len(in_cosyvoice)} files of {COSYVOICE}/ differ"
        remedy = f"{where}; only {pin.commit[:7]} is known: git checkout {pin.commit}"
        return Status(checkout, State.UNKNOWN_VERSION, (remedy, *details))
    return Status(checkout, State.HAND_EDITED, (*details, _restore((*findings.changed, *findings.missing))))


def _partly_patched(checkout: Path, pin: Pin, changed: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """File -> the patches that it has; empty unless every changed file is upstream's plus some of our patches."""
    partly = {}
    for path in changed:
        names = patch.applied_to(checkout, path, pin) if path in pin.touched else None
        if names is None:
            return {}
        partly[path] = names
    return partly


def _half_applied(pin: Pin, counts: dict[str, frozenset[int]]) -> tuple[str, ...]:
    total = len(pin.patches)
    details = []
    for path in pin.touched:
        if 0 in counts[path]:
            details.append(f"{path}: pristine")
        elif total in counts[path]:
            details.append(f"{path}: patched")
        else:
            details.append(f"{path}: patched up to {pin.patches[max(counts[path]) - 1].name}")
    return (*details, _restore(path for path in pin.touched if 0 not in counts[path]))


def _restore(paths: Iterable[str]) -> str:
    names = " ".join(paths)
    return f"nothing was changed; keep your edits elsewhere and bring upstream's files back: git checkout -- {names}"


def _matcha(missing: Sequence[str], pin: Pin) -> list[str]:
    """The files of Matcha that are missing; one name if it is all of them, as in a clone without its submodules."""
    gone = [path for path in missing if path.startswith(MATCHA)]
    return [MATCHA] if len(gone) == sum(path.startswith(MATCHA) for path in pin.pristine) else gone


def _names(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - _NAMED_FILES} more" if len(paths) > _NAMED_FILES else ""
    return ", ".join(paths[:_NAMED_FILES]) + more


def _head(checkout: Path) -> str | None:
    """The commit that a git checkout stands on; None if it is none."""
    if not (checkout / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(checkout), "rev-parse", "--verify", "--quiet", "HEAD"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
