"""The report in a real browser: Chromium, headless, with a fresh profile and no way out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from cosytune.voice import report
from made_report import DROPS, PACK_DROPS, make
from recipe.conftest import Run

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio"),
    "--autoplay-policy=no-user-gesture-required",
)
PROGRAMS = ("chromium", "chromedriver")

# Every piece of text against the nearest background that is painted: the contrast that WCAG AA asks for.
LOW_CONTRAST = """
const luminance = (c) => {
  const [r, g, b] = c.map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const background = (element) => {
  for (let one = element; one; one = one.parentElement) {
    const colour = parse(getComputedStyle(one).backgroundColor);
    if (colour.length === 3 || colour[3] > 0) return colour.slice(0, 3);
  }
  return [255, 255, 255];
};
const found = [];
for (const element of document.body.querySelectorAll("*")) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own || element.closest("script, .skip") || !element.getClientRects().length) continue;
  const style = getComputedStyle(element);
  const colour = parse(element.closest("svg") ? style.fill : style.color).slice(0, 3);
  const pair = [luminance(colour), luminance(background(element))].sort((a, b) => b - a);
  const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
  if (ratio < 4.5) found.push([element.textContent.trim().slice(0, 40), ratio]);
}
return found;
"""


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


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with drops, Japanese names and characters that HTML must escape."""
    return report.write(*make(tmp_path_factory.mktemp("browser") / "報告 & <test>"))


def requests(browser: webdriver.Chrome) -> list[str]:
    """Addresses of everything that the browser asked for since it was last asked, data in the page itself aside."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [url for url in urls if not url.startswith(("data:", "blob:"))]


def view(browser: webdriver.Chrome, width: int, scheme: str) -> None:
    screen: dict[str, Any] = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def check_page(browser: webdriver.Chrome, path: Path) -> None:
    """What must hold for every report: it loads alone, shows its plots and plays its sounds."""
    browser.get(path.as_uri())
    durations = browser.execute_async_script(
        """
        const done = arguments[0], players = [...document.querySelectorAll("audio")];
        Promise.all(players.map((player) => new Promise((resolve) => {
          const answer = () => resolve([player.readyState, player.duration, player.error && player.error.message]);
          if (player.readyState >= 1 || player.error) answer();
          else { player.onloadedmetadata = answer; player.onerror = answer; }
        }))).then(done);
        """
    )
    assert durations
    for ready_state, duration_s, error in durations:
        assert error is None and ready_state >= 1 and duration_s > 0.1
    played_to_s = browser.execute_async_script(
        """
        const done = arguments[0], player = document.querySelector("audio");
        player.ontimeupdate = () => { if (player.currentTime > 0) done(player.currentTime); };
        player.play().catch((reason) => done(String(reason)));
        """
    )
    assert played_to_s > 0
    plots = browser.execute_script(
        "return [...document.querySelectorAll('.plot svg')].map((svg) => {"
        "  const box = svg.getBoundingClientRect();"
        "  return [box.width, box.height, svg.querySelectorAll('path').length];"
        "})"
    )
    assert len(plots) >= 6
    assert all(width > 150 and height > 60 and paths > 2 for width, height, paths in plots)
    images = browser.execute_async_script(
        "const done = arguments[0];"
        "Promise.all([...document.querySelectorAll('.take svg image')].map((image) => image.decode()))"
        "  .then((all) => done(all.length)).catch((reason) => done(String(reason)))"
    )
    assert images == len(durations)
    assert requests(browser) == [path.as_uri()]
    assert browser.get_log("browser") == []


def test_the_page_loads_alone_and_everything_in_it_works(browser: webdriver.Chrome, made: Path) -> None:
    check_page(browser, made)


def test_every_drop_can_be_read(browser: webdriver.Chrome, made: Path) -> None:
    browser.get(made.as_uri())
    rows = browser.execute_script(
        "return [...document.querySelectorAll('#every-drop tbody tr')].map((row) => row.innerText)"
    )
    expected = [(drop["source"], str(drop["reason"]).replace("_", " ")) for drop in DROPS] + [
        (d["utt"], d["reason"]) for d in PACK_DROPS
    ]
    assert len(rows) == len(expected)
    for row, (source, reason) in zip(rows, expected, strict=True):
        assert str(source) in row and str(reason) in row


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 768, 1280])
def test_it_fits_the_screen_and_can_be_read(browser: webdriver.Chrome, made: Path, width: int, scheme: str) -> None:
    view(browser, width, scheme)
    browser.get(made.as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(LOW_CONTRAST) == []
    luminance = browser.execute_script("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g)[0]")
    assert (int(luminance) > 127) == (scheme == "light")


def test_the_demos_report(browser: webdriver.Chrome, demo: Run) -> None:
    path = demo.layout.report / "index.html"
    assert path.stat().st_size < 5_000_000
    check_page(browser, path)
    assert "random weights" in browser.execute_script("return document.body.innerText")
