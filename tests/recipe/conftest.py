"""Shared by the recipe tests: two runs of the demo, one with Japanese letters in its name, and a real browser."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import yaml
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


def copy_random_demo(destination: Path) -> Path:
    """The demo on the base with random weights: all of the machinery in half of the time, and nothing to hear."""
    conf = copy_recipe("demo", destination) / "conf.yaml"
    settings = yaml.safe_load(conf.read_text(encoding="utf-8"))
    few_updates = {"num_train_epochs": 4, "learning_rate": 3e-3}
    settings |= {"base": "random", "train": {"llm": few_updates, "flow": few_updates}}
    del settings["evaluate"]["ablation"]
    conf.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    return destination


@pytest.fixture(scope="session")
def demo(shared_tmp: Path) -> Run:
    """The demo on random weights from stage -1 to 7."""
    return _once(shared_tmp, "demo", copy_random_demo, "デモ 'voice'")


@pytest.fixture(scope="session")
def tiny_demo(shared_tmp: Path) -> Run:
    """The demo as a user runs it, from stage -1 to 7."""
    return _once(shared_tmp, "tiny_demo", partial(copy_recipe, "demo"), "mei")


def _once(shared_tmp: Path, name: str, make: Callable[[Path], Path], directory: str) -> Run:
    """A recipe that one worker makes and runs and all of them read."""
    recipe = shared_tmp / "recipes" / directory
    with FileLock(shared_tmp / f"{name}.lock"):
        log = shared_tmp / f"{name}.log"
        if not log.exists():
            run = run_recipe(make(recipe))
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
