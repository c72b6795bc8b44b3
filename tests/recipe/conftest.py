"""Shared by the recipe tests: one run of the demo, whose name has a space and Japanese letters, and a real browser."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from cosytune.layout import ROOT, Layout

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio"),
    "--autoplay-policy=no-user-gesture-required",
)
PROGRAMS = ("chromium", "chromedriver")


@dataclass(frozen=True)
class Run:
    """A recipe that went through its stages, and what the run printed."""

    layout: Layout
    output: str


def run_recipe(recipe: Path, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """`./run.sh RECIPE ARGUMENTS` as a user calls it; stderr goes with stdout."""
    command: Sequence[str | Path] = [ROOT / "run.sh", recipe, *arguments]
    return subprocess.run(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL
    )


def copy_recipe(name: str, destination: Path) -> Path:
    """`egs/<name>` without what runs have made in it."""
    shutil.copytree(
        ROOT / "egs" / name, destination, ignore=shutil.ignore_patterns("data", "parquet", "exp", "voice", "report")
    )
    return destination


@pytest.fixture(scope="session")
def demo(shared_tmp: Path) -> Run:
    """The demo from stage -1 to 7."""
    recipe = shared_tmp / "recipes" / "デモ 'voice'"
    with FileLock(shared_tmp / "demo.lock"):
        log = shared_tmp / "demo.log"
        if not log.exists():
            copy_recipe("demo", recipe)
            run = run_recipe(recipe)
            assert run.returncode == 0, run.stdout
            log.write_text(run.stdout)
    return Run(Layout(recipe), log.read_text())


@pytest.fixture(scope="session")
def chromium(shared_tmp: Path) -> tuple[str, str]:
    """Paths of the browser and its driver; Debian's packages are installed when that is allowed."""
    with FileLock(shared_tmp / "chromium.lock"):
        if any(shutil.which(program) is None for program in PROGRAMS):
            if os.geteuid() != 0 or shutil.which("apt-get") is None:
                pytest.skip("no chromium and chromedriver, and no right to install them with apt-get")
            environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            for command in (["update"], ["install", "-y", "--no-install-recommends", "chromium", "chromium-driver"]):
                done = subprocess.run(["apt-get", "-q", *command], env=environment, capture_output=True, text=True)
                if done.returncode:
                    pytest.skip(f"apt-get {command[0]} failed: {done.stderr.strip()[-200:]}")
    paths = [shutil.which(program) for program in PROGRAMS]
    assert paths[0] and paths[1]
    return paths[0], paths[1]


@pytest.fixture
def browser(chromium: tuple[str, str], tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """Chromium, headless, with a fresh profile and no way out."""
    options = webdriver.ChromeOptions()
    options.binary_location = chromium[0]
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromium[1]))
    driver.set_script_timeout(30)
    driver.get("about:blank")
    driver.get_log("performance")  # forget what the browser's own start page asked for
    yield driver
    driver.quit()
