"""What several tests need and what is expensive to make: once a run, whatever the number of pytest-xdist workers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from filelock import FileLock

from cosytune import base, families
from cosytune.schema import Config, UpstreamConfig
from cosytune.upstream import tree


@pytest.fixture(scope="session")
def shared_tmp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporary directory that the workers of pytest-xdist share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


@pytest.fixture(scope="session")
def upstream_tree() -> Path:
    """Upstream's code, pinned and patched, where the stages look for it. `ensure` locks: workers may come at once."""
    return tree.ensure(UpstreamConfig())


@pytest.fixture(scope="session")
def random_model(upstream_tree: Path, shared_tmp: Path) -> Path:
    """The base with random weights, checked, where stage -1 makes it. Read only: alter copies."""
    return _base(Config(base="random"), shared_tmp)


@pytest.fixture(scope="session")
def tiny_model(upstream_tree: Path, shared_tmp: Path) -> Path:
    """The trained base, in the same way."""
    return _base(Config(base="tiny"), shared_tmp)


def _base(config: Config, shared_tmp: Path) -> Path:
    model_dir = base.locate(config)
    with FileLock(shared_tmp / f"{config.base}_model.lock"):
        if not model_dir.exists():
            base.make(config, model_dir)
        base.check(model_dir, families.get(config.model))
    return model_dir


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests have measured (`record_property("figure", line)`), passed or not: figures are read, too."""
    reports = [one for kind in ("passed", "failed") for one in terminalreporter.stats.get(kind, [])]
    if measured := [one for one in reports if any(name == "figure" for name, _ in one.user_properties)]:
        terminalreporter.section("figures")
    for report in measured:
        terminalreporter.line(report.nodeid)
        for name, value in report.user_properties:
            if name == "figure":
                terminalreporter.line(f"    {value}")
