"""A plugin for an environment that has a part of the lock alone, such as the slim image: pytest -p partial.

What fails for lack of a package of requirements.lock is skipped and says which one; everything else has to pass.
"""

from __future__ import annotations

import re
from collections.abc import Generator

import pytest

_LACKS = re.compile(r"No module named '([\w.]+)'")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A file whose imports fail."""
    report = yield
    lacks = _LACKS.search(str(report.longrepr)) if report.outcome == "failed" else None
    if lacks:
        report.outcome, report.longrepr = "skipped", (str(collector.path), 1, f"lacks {lacks[1]}")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test, or a fixture, that imports something itself."""
    report = yield
    if report.failed and call.excinfo is not None and call.excinfo.errisinstance(ModuleNotFoundError):
        report.outcome, report.longrepr = "skipped", (str(item.path), 1, f"lacks {call.excinfo.value.name}")
    return report
