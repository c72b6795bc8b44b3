"""The report in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from browsing import LOW_CONTRAST, requests, view
from cosytune.voice import ablation, report
from made_report import DROPS, PACK_DROPS, make


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with drops, Japanese names and characters that HTML must escape."""
    return report.write(*make(tmp_path_factory.mktemp("browser") / "報告 & <test>"))


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of a trained base with judges and an ablation: the widest table of all."""
    return report.write(*make(tmp_path_factory.mktemp("browser") / "判定", judged=True))


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


def test_the_ablation_is_a_table_that_the_keyboard_can_scroll(browser: webdriver.Chrome, judged: Path) -> None:
    check_page(browser, judged)
    view(browser, 390, "light")
    browser.get(judged.as_uri())
    rows = browser.execute_script(
        "return [...document.querySelectorAll('#ablation-table tbody tr')].map((row) => row.innerText)"
    )
    assert [row.split("\t")[0].strip() for row in rows] == list(ablation.WHO.values())
    assert all("%" in row for row in rows)
    region = browser.find_element("css selector", "[aria-label='Ablation']")
    region.send_keys(Keys.ARROW_RIGHT * 3)
    scrolled = "const one = arguments[0], done = arguments[1]; setTimeout(() => done(one.scrollLeft), 400)"
    assert browser.execute_async_script(scrolled, region) > 0
    assert browser.execute_script("return document.activeElement === arguments[0]", region)


def test_players_are_reached_in_the_order_in_which_they_are_heard(browser: webdriver.Chrome, judged: Path) -> None:
    view(browser, 1280, "light")
    browser.get(judged.as_uri())
    places = browser.execute_script(
        "return [...document.querySelector('.passage').querySelectorAll('audio')].map((player) => {"
        "  const box = player.getBoundingClientRect(); return [box.left, box.top, player.tabIndex, player.ariaLabel]"
        "})"
    )
    assert [label.split(":")[0] for *_, label in places] == ["Real recording", "Untuned base", "Tuned voice"]
    assert len({top for _, top, *_ in places}) == 1, "side by side"
    assert [left for left, *_ in places] == sorted(left for left, *_ in places)
    assert all(tab_index == 0 for *_, tab_index, _ in places)


def test_every_drop_can_be_read(browser: webdriver.Chrome, made: Path) -> None:
    browser.get(made.as_uri())
    rows = browser.execute_script(
        "return [...document.querySelectorAll('#every-drop tbody tr')].map((row) => row.innerText)"
    )
    expected = [(drop["source"], str(drop["reasons"][0]["reason"]).replace("_", " ")) for drop in DROPS] + [
        (d["utt"], d["reason"]) for d in PACK_DROPS
    ]
    assert len(rows) == len(expected)
    for row, (source, reason) in zip(rows, expected, strict=True):
        assert str(source) in row and str(reason) in row


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 768, 1280])
@pytest.mark.parametrize("page", ["made", "judged"])
def test_it_fits_the_screen_and_can_be_read(
    browser: webdriver.Chrome, request: pytest.FixtureRequest, page: str, width: int, scheme: str
) -> None:
    view(browser, width, scheme)
    browser.get(request.getfixturevalue(page).as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(LOW_CONTRAST) == []
    luminance = browser.execute_script("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g)[0]")
    assert (int(luminance) > 127) == (scheme == "light")


@pytest.mark.parametrize(("run", "said"), [("demo", "random weights"), ("tiny_demo", "synthetic speech")])
def test_the_demos_report(browser: webdriver.Chrome, request: pytest.FixtureRequest, run: str, said: str) -> None:
    path = request.getfixturevalue(run).layout.report / "index.html"
    assert path.stat().st_size < 5_000_000
    check_page(browser, path)
    assert said in browser.execute_script("return document.body.innerText")
