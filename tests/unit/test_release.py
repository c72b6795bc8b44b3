"""docker/release.sh in a throw-away clone with the real git: what it refuses, what it would do, what it writes down."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path

import pytest

import cosytune
from cosytune.layout import ROOT
from cosytune.upstream import manifest

VERSION = cosytune.__version__
HEADING = r"^## \[(\d[^\]]*)\] - (.+)$"
STEPS = [
    "tests/run.sh",
    "docker/build.sh",
    "docker/build.sh --full",
    "docker/check.sh",
    f"write_dist {VERSION} dist/{VERSION}",
    "check_nothing_moved",
    f"git tag --annotate v{VERSION}",
]
FILES = ("docker/release.sh", "docker/digests.sh", "tools/cosytune/__init__.py", "tools/cosytune/upstream/manifest.py")


def git(clone: Path, *arguments: str) -> str:
    # safe.directory: a checkout that is mounted into a container may be another user's
    who = (
        "-c",
        "safe.directory=*",
        "-c",
        "user.name=A Founder",
        "-c",
        "user.email=founder@example.org",
        "-c",
        "init.defaultBranch=main",
    )
    done = subprocess.run(["git", *who, *arguments], cwd=clone, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def release(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(clone / "docker" / "release.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def commit(clone: Path, **changes: str) -> None:
    for name, text in changes.items():
        path = clone / {"changelog": "CHANGELOG.md", "package": "tools/cosytune/__init__.py"}[name]
        path.write_text(text, encoding="utf-8")
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--message", "a change")


def changelog(heading: str = f"[{VERSION}] - 2026-01-31", left: str = "") -> str:
    return f"# Changelog\n\n## [Unreleased]\n{left}\n## {heading}\n\n### Added\n- A voice.\n\n## [0.0.1] - 2025-01-01\n"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A small repository on main, ready for a release, with the real release scripts."""
    root = tmp_path / "a clone"
    for name in (*FILES, "requirements.lock", ".gitignore"):
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
        target.chmod((ROOT / name).stat().st_mode)
    git(root, "init", "--quiet", "--initial-branch", "main")
    commit(root, changelog=changelog())
    return root


def test_a_dry_run_prints_the_steps_and_does_none_of_them(clone: Path) -> None:
    done = release(clone, "--dry-run")
    said = [line.removeprefix("release: ") for line in done.stderr.splitlines()]
    assert done.returncode == 0, done.stderr
    assert len(said) == len(STEPS) and all(line.startswith(step) for line, step in zip(said, STEPS, strict=True)), said
    assert git(clone, "tag") == "" and not (clone / "dist").exists()


def test_an_unknown_option_is_named(clone: Path) -> None:
    done = release(clone, "--push")
    assert done.returncode == 2
    assert done.stderr == "error: unknown argument '--push'; the options are --dry-run --help\n"


def test_help_says_how_it_is_called(clone: Path) -> None:
    done = release(clone, "--help")
    assert done.returncode == 0 and "docker/release.sh [--dry-run] [--help]" in done.stdout
    assert "set -euo" not in done.stdout


def test_a_dirty_tree_is_refused(clone: Path) -> None:
    (clone / "notes.txt").write_text("for later")
    done = release(clone, "--dry-run")
    assert done.returncode == 1
    assert done.stderr == "error: the tree is not clean; commit these, or put them away:\n?? notes.txt\n"


def test_another_branch_is_refused(clone: Path) -> None:
    git(clone, "switch", "--quiet", "--create", "idea")
    done = release(clone, "--dry-run")
    assert (done.returncode, done.stderr) == (1, "error: on idea; releases are made on main: git switch main\n")
    git(clone, "switch", "--quiet", "--detach")
    assert release(clone, "--dry-run").stderr == "error: on no branch; releases are made on main: git switch main\n"


@pytest.mark.parametrize(
    "heading",
    [f"[{VERSION}] - unreleased", "[99.0.0] - 2026-01-31", f"[{VERSION}]", f"[{VERSION}] - 31.01.2026"],
)
def test_a_heading_that_is_not_this_version_with_a_date_is_refused(clone: Path, heading: str) -> None:
    commit(clone, changelog=changelog(heading))
    done = release(clone, "--dry-run")
    assert done.returncode == 1
    assert f"its first version says '## {heading}'; for this release write '## [{VERSION}] - 20" in done.stderr


def test_entries_left_under_unreleased_are_refused(clone: Path) -> None:
    commit(clone, changelog=changelog(left="\n### Added\n- Something new.\n"))
    done = release(clone, "--dry-run")
    assert done.returncode == 1 and f"[Unreleased] is not empty; move what it says under [{VERSION}]" in done.stderr


def test_a_version_that_is_none_is_refused(clone: Path) -> None:
    commit(clone, package='__version__ = "1.0"\n')
    done = release(clone, "--dry-run")
    assert done.returncode == 1 and "__version__ is '1.0', no semantic version" in done.stderr


def test_a_tag_that_is_there_is_refused(clone: Path) -> None:
    git(clone, "tag", f"v{VERSION}")
    done = release(clone, "--dry-run")
    assert done.returncode == 1 and f"the tag v{VERSION} is there already; raise __version__" in done.stderr


def test_a_step_that_fails_ends_it_without_a_tag(clone: Path) -> None:
    for name, text in (("tests/run.sh", "exit 0"), ("docker/build.sh", "echo built; exit 7")):
        path = clone / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{text}\n")
        path.chmod(0o755)
    commit(clone)
    done = release(clone)
    assert (done.returncode, done.stdout) == (7, "built\n")
    assert "error: 'docker/build.sh' failed with status 7; no tag was set." in done.stderr
    assert git(clone, "tag") == "" and not (clone / "dist").exists()


def test_a_release_ends_with_its_digests_and_an_annotated_tag(clone: Path) -> None:
    """The steps are real from the archive on; what tests, builds and the engine would say is said by small scripts."""
    parts = """echo '{"bomFormat": "CycloneDX"}' | tee docker/sbom-slim.json docker/sbom-runtime.json"""
    scripts = {"tests/run.sh": ":", "docker/build.sh": parts, "docker/check.sh": ":", "engine": 'echo "sha256:$5"'}
    for name, text in scripts.items():
        path = clone / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{text}\n")
        path.chmod(0o755)
    (clone / ".gitignore").write_text("/dist/\n/docker/sbom-*.json\n")
    for key, value in (("user.name", "A Founder"), ("user.email", "founder@example.org")):
        git(clone, "config", key, value)
    commit(clone)
    done = subprocess.run(
        [str(clone / "docker" / "release.sh")],
        env={**os.environ, "DOCKER": "./engine"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert git(clone, "cat-file", "-t", f"v{VERSION}") == "tag"
    assert git(clone, "rev-parse", f"v{VERSION}^{{commit}}") == git(clone, "rev-parse", "HEAD")
    digests = (clone / "dist" / VERSION / "digests.txt").read_text().splitlines()
    assert len(digests) == 3 + 4 + 2
    assert digests[-2:] == [
        "image     sha256:cosytune:slim  cosytune:slim",
        "image     sha256:cosytune:runtime  cosytune:runtime",
    ]
    for line in digests[4:7]:
        _, digest, name = line.split()
        assert hashlib.sha256((clone / "dist" / VERSION / name).read_bytes()).hexdigest() == digest
    assert release(clone).returncode == 1  # the tag is there


def sourced(clone: Path, command: str) -> subprocess.CompletedProcess[str]:
    script = f"set -euo pipefail; . docker/digests.sh; {command}"
    return subprocess.run(["bash", "-c", script], cwd=clone, capture_output=True, text=True, timeout=60)


def test_the_digests_are_those_of_the_files_that_a_release_hands_out(clone: Path) -> None:
    dist = clone / "dist"
    dist.mkdir()
    (dist / f"cosytune-{VERSION}.tar.gz").write_bytes(b"an archive")
    for name in ("sbom-runtime.json", "sbom-slim.json"):
        (dist / name).write_bytes(b"{}")
    done = sourced(clone, f"source_digests {VERSION} dist")
    lock = hashlib.sha256((clone / "requirements.lock").read_bytes()).hexdigest()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"version   {VERSION}",
        f"commit    {git(clone, 'rev-parse', 'HEAD')}",
        f"upstream  {manifest.COMMIT}",
        f"sha256    {lock}  requirements.lock",
        f"sha256    {hashlib.sha256(b'an archive').hexdigest()}  cosytune-{VERSION}.tar.gz",
        f"sha256    {hashlib.sha256(b'{}').hexdigest()}  sbom-runtime.json",
        f"sha256    {hashlib.sha256(b'{}').hexdigest()}  sbom-slim.json",
    ]


def test_a_release_without_a_list_of_parts_stops(clone: Path) -> None:
    (clone / "docker" / "sbom-slim.json").write_text("{}")
    done = sourced(clone, f"write_dist {VERSION} dist")
    assert done.returncode == 1 and "docker/sbom-slim.json: no CycloneDX list of parts" in done.stderr
    assert not (clone / "dist" / "digests.txt").exists()


def test_an_archive_of_the_same_commit_has_the_same_bytes_and_all_files(clone: Path) -> None:
    archive = clone / "dist" / f"cosytune-{VERSION}.tar.gz"
    hashes = set()
    for _ in range(2):  # it stops after the archive, for there is no list of parts
        sourced(clone, f"write_dist {VERSION} dist")
        hashes.add(hashlib.sha256(archive.read_bytes()).hexdigest())
    assert len(hashes) == 1
    listed = subprocess.run(["tar", "tzf", str(archive)], check=True, capture_output=True, text=True).stdout.split()
    files = {name.removeprefix(f"cosytune-{VERSION}/") for name in listed if not name.endswith("/")}
    assert files == set(git(clone, "ls-files").splitlines())


def test_the_changelog_the_version_and_the_tags_agree() -> None:
    """The first version in the changelog is the package's; what is tagged v<version> has a date there, newest first."""
    versions = re.findall(HEADING, (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert versions and versions[0][0] == VERSION
    numbers = [tuple(int(part) for part in version.split(".")) for version, _ in versions]
    assert numbers == sorted(numbers, reverse=True) and all(len(number) == 3 for number in numbers)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", date) for _, date in versions[1:])
    dated = {f"v{version}" for version, date in versions if date != "unreleased"}
    if (ROOT / ".git").exists():
        assert set(git(ROOT, "tag", "--list", "v[0-9]*").split()) <= dated
