"""A checkout -> what it is: pristine, patched, half-applied, hand-edited, another version; and which files say so."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosytune.errors import UserError
from cosytune.upstream import patch, programs
from cosytune.upstream.manifest import COSYVOICE, MATCHA, MATCHA_SUBMODULE, PACKAGES, Pin, digest

_NAMED_FILES = 12
_MANY = 5
"""From so many foreign files in cosyvoice/ on it is another version: its neighbours differ in 13 and more."""


class State(enum.Enum):
    PRISTINE = "pristine"
    PATCHED = "patched"
    HALF_APPLIED = "half-applied"
    HAND_EDITED = "hand-edited"
    INCOMPLETE = "incomplete"
    UNKNOWN_VERSION = "unknown version"
    WINDOWS_LINE_ENDINGS = "Windows line endings"


@dataclass(frozen=True)
class Status:
    """`details`: what the files are, a line for each kind, naming them. `fine`: patches can be applied or taken off."""

    checkout: Path
    state: State
    details: tuple[str, ...]
    remedy: str = ""

    @property
    def fine(self) -> bool:
        return self.state in (State.PRISTINE, State.PATCHED)

    @property
    def lines(self) -> tuple[str, ...]:
        lines = (*self.details, self.remedy) if self.remedy else self.details
        return tuple(f"{self.checkout}: {self.state.value}: {line}" for line in lines)


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
    if findings.crlf and not findings.changed:
        detail = f"{_names(findings.crlf)}: upstream's text, but its lines end in CRLF"
        remedy = (
            "nothing was changed; check it out again with LF, inside WSL2 or after git config core.autocrlf false: "
            "git rm -rq --cached . && git reset --hard"
        )
        return Status(checkout, State.WINDOWS_LINE_ENDINGS, (detail,), remedy)
    if findings.changed or findings.missing or findings.extra:
        return _foreign(checkout, pin, findings)
    everywhere = frozenset[int].intersection(*findings.counts.values())
    total = len(pin.patches)
    if 0 in everywhere:
        return Status(checkout, State.PRISTINE, (f"{pin.name}, none of the {total} patches applied",))
    if total in everywhere:
        return Status(checkout, State.PATCHED, (f"{pin.name}, all {total} patches applied",))
    remedy = _restore(_not_pristine(pin, findings.counts))
    return Status(checkout, State.HALF_APPLIED, _half_applied(pin, findings.counts), remedy)


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
        half = tuple(f"{path}: only {', '.join(names)} applied" for path, names in partly.items())
        return Status(checkout, State.HALF_APPLIED, half, _restore(_not_pristine(pin, findings.counts)))
    details = tuple(
        f"{_names(paths)}: {what}"
        for paths, what in (
            (findings.changed, f"not as upstream has it at {pin.commit[:7]}, with or without our patches"),
            ([path for path in findings.missing if not path.startswith(MATCHA)], "missing"),
            (_matcha(findings.missing, pin), "missing"),
            (findings.extra, "not upstream's"),
            (findings.crlf, "upstream's text, but its lines end in CRLF"),
        )
        if paths
    )
    head = _head(checkout)
    in_cosyvoice = [p for p in (*findings.changed, *findings.missing) if p.startswith(f"{COSYVOICE}/")]
    if in_cosyvoice and head != pin.commit and (head is not None or len(in_cosyvoice) >= _MANY):
        where = f"HEAD is {head[:7]}" if head else f"{len(in_cosyvoice)} files of {COSYVOICE}/ differ"
        remedy = f"nothing was changed; {where}, and only {pin.commit[:7]} is known: git checkout {pin.commit}"
        return Status(checkout, State.UNKNOWN_VERSION, details, remedy)
    state = State.HAND_EDITED if findings.changed or findings.extra else State.INCOMPLETE
    return Status(checkout, state, details, _restore((*findings.changed, *findings.missing, *findings.crlf)))


def _partly_patched(checkout: Path, pin: Pin, changed: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """File -> the patches that it has; empty unless every changed file is upstream's plus some of our patches."""
    partly = {}
    for path in changed:
        names = patch.applied_to(checkout, path, pin) if path in pin.touched else None
        if names is None:
            return {}
        partly[path] = names
    return partly


def _half_applied(pin: Pin, counts: Mapping[str, frozenset[int]]) -> tuple[str, ...]:
    """One line for each file that the patches are about."""
    total = len(pin.patches)
    details = []
    for path in pin.touched:
        if 0 in counts[path]:
            details.append(f"{path}: pristine")
        elif total in counts[path]:
            details.append(f"{path}: patched")
        else:
            details.append(f"{path}: patched up to {pin.patches[max(counts[path]) - 1].name}")
    return tuple(details)


def _not_pristine(pin: Pin, counts: Mapping[str, frozenset[int]]) -> list[str]:
    return [path for path in pin.touched if 0 not in counts.get(path, frozenset())]


def _restore(paths: Sequence[str]) -> str:
    """How to get upstream's files back; a file that upstream does not have can just go."""
    in_cosyvoice = [path for path in paths if not path.startswith(MATCHA)]
    commands = [f"git checkout -- {' '.join(in_cosyvoice)}"] * bool(in_cosyvoice)
    commands += [f"git submodule update --init --force {MATCHA_SUBMODULE}"] * (len(in_cosyvoice) < len(paths))
    remedy = "nothing was changed; keep your edits elsewhere, then bring upstream's files back"
    return f"{remedy}: {' && '.join(commands)}" if commands else f"{remedy}: delete what is not upstream's"


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
        return programs.git(checkout, "rev-parse", "--verify", "HEAD").decode().strip()
    except UserError:  # no git, no commit, or not a checkout of git's after all
        return None
