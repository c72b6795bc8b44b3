"""Checkouts of upstream for the tests: what their files hold, and git repositories made of them."""

from __future__ import annotations

import subprocess
from pathlib import Path


def snapshot(directory: Path) -> dict[str, bytes]:
    """Every file below, git's own apart: relative path -> bytes."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and ".git" not in path.relative_to(directory).parts
    }


def commit_all(directory: Path) -> str:
    """Make the directory a git repository with one commit of all of its files; its id."""
    git(directory, "init", "-q")
    git(directory, "add", "--all", "--force")
    git(directory, "commit", "-q", "-m", "everything")
    return git(directory, "rev-parse", "HEAD")


def git(directory: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "core.autocrlf=false")
    command = ["git", "-C", str(directory), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
