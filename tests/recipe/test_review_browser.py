"""The review page in a real browser, on clips of real speech, driven as a user drives it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

import made_review as made
from browsing import LOW_CONTRAST, requests, view
from cosytune import decisions, files, kaldi
from cosytune.layout import ROOT, Layout

MANY = 640


@dataclass(frozen=True)
class Page:
    """The page of a recipe, open in the browser."""

    browser: webdriver.Chrome
    layout: Layout
    address: str

    def load(self) -> None:
        self.browser.get(self.address)
        self.wait(lambda: self.rows)

    def find(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def click(self, selector: str) -> None:
        self.find(selector).click()

    def keys(self, *keys: str) -> None:
        """To whatever has the focus."""
        ActionChains(self.browser).send_keys(*keys).perform()

    def chord(self, held: str, key: str) -> None:
        ActionChains(self.browser).key_down(held).send_keys(key).key_up(held).perform()

    def script(self, code: str, *arguments: Any) -> Any:
        return self.browser.execute_script(code, *arguments)

    def wait(self, condition: Callable[[], object]) -> None:
        WebDriverWait(self.browser, 20).until(lambda _: condition())

    @property
    def rows(self) -> list[str]:
        """Ids of the clips that are shown."""
        return list(self.script("return [...document.querySelectorAll('.clip')].map((row) => row.ariaLabel)"))

    @property
    def current(self) -> str:
        return str(self.script("return document.querySelector('.clip[aria-current]').ariaLabel"))

    def row(self, utt: str) -> WebElement:
        return self.find(f".clip[aria-label='{utt}']")

    def field(self, utt: str) -> str:
        return str(self.row(utt).find_element(By.TAG_NAME, "textarea").get_property("value"))

    def pressed(self, utt: str) -> list[str]:
        return list(
            self.script(
                "return [...arguments[0].querySelectorAll('[aria-pressed=true]')].map((one) => one.innerText)",
                self.row(utt),
            )
        )

    def said(self, text: str) -> None:
        self.wait(lambda: text in self.find("#status").text)

    def refused(self) -> None:
        """The browser itself notes an answer that is a refusal: one, and nothing else."""
        entries = [entry["message"] for entry in self.browser.get_log("browser")]
        assert len(entries) == 1 and "422" in entries[0]


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.make(tmp_path_factory.mktemp("review") / "デモ & <voice>").recipe


@pytest.fixture
def recipe(made_once: Path, tmp_path: Path) -> Layout:
    return Layout(shutil.copytree(made_once, tmp_path / made_once.name))


@pytest.fixture
def page(browser: webdriver.Chrome, recipe: Layout) -> Iterator[Page]:
    command = [sys.executable, "-m", "cosytune.review", str(recipe.recipe)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tools")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout
        server.stdout.readline()
        opened = Page(browser, recipe, server.stdout.readline().strip())
        try:
            opened.load()
            yield opened
            assert all(url.startswith(opened.address) for url in requests(browser))
            assert browser.get_log("browser") == []
        finally:
            server.terminate()
            server.wait(20)


def test_every_clip_is_shown_with_what_is_known_of_it(page: Page) -> None:
    assert page.rows == [*made.KEPT, *made.QUARANTINED, made.SILENT, made.NOTHING]
    assert page.find("#sum").text == "3 kept + 5 in quarantine = 8 clips"
    assert page.find("h1").text == "Review デモ & <voice>"
    third = page.row("r-003").text
    assert "会議は10月25日" in third and "Whisper heard" in third and "CER 10.5 %" in third and "SNR 23 dB" in third
    other = page.row("r-006")
    assert "Another voice likeness 0.412, under 0.7" in other.text
    assert "Text is not what is said CER 55 %, over 40 %" in other.text
    untold = page.row("r-005").find_elements(By.CSS_SELECTOR, ".reasons li")
    assert [one.text.split(" ")[0] for one in untold] == ["No", "Clipped"], "no transcript, and what the gates say"
    assert page.field("r-006") == "これは<b>別の</b>人の声です。"
    assert not page.row(made.SILENT).find_element(By.CSS_SELECTOR, ".play").is_enabled()


def test_a_clip_plays_and_its_wave_is_drawn(page: Page) -> None:
    painted = (
        "const { width, height } = arguments[0].querySelector('canvas'); if (!width) return 0;"
        "const copy = Object.assign(document.createElement('canvas'), { width, height }).getContext('2d');"
        "copy.drawImage(arguments[0].querySelector('canvas'), 0, 0);"  # Chrome warns of a canvas that is read twice
        "return copy.getImageData(0, 0, width, height).data.filter((value, at) => at % 4 === 3 && value > 0).length"
    )
    page.wait(lambda: page.script(painted, page.row("r-002")) > 500)
    page.keys("j", " ")
    page.wait(lambda: page.script("return document.getElementById('audio').currentTime") > 0.3)
    assert "playing" in str(page.row("r-002").get_attribute("class"))
    page.keys(" ")
    page.wait(lambda: page.script("return document.getElementById('audio').paused"))
    at_s = page.script("return document.getElementById('audio').currentTime")
    page.keys(Keys.ARROW_LEFT)
    page.wait(lambda: page.script("return document.getElementById('audio').currentTime") < at_s)
    sound = page.row("r-002").find_element(By.CSS_SELECTOR, ".sound")
    sound.click()  # in the middle
    duration_s = page.script("return document.getElementById('audio').duration")
    page.wait(lambda: abs(page.script("return document.getElementById('audio').currentTime") - duration_s / 2) < 0.1)
    page.keys("r")
    page.wait(lambda: page.script("const audio = document.getElementById('audio'); return !audio.paused"))
    page.keys("j")  # one clip at a time: moving on stops it
    page.wait(lambda: page.script("return document.getElementById('audio').paused"))


def test_a_transcript_is_edited_with_the_keyboard_alone(page: Page) -> None:
    page.keys("j", Keys.ENTER)
    page.chord(Keys.CONTROL, "a")
    page.keys("次のバスは何時に来ますか。")
    page.chord(Keys.CONTROL, Keys.ENTER)
    page.said("Saved.")
    page.wait(lambda: page.current == "r-003")
    lines = kaldi.read_table(page.layout.data_all / "text").lines
    assert {utt: line.value for utt, line in lines.items()} == made.KEPT | {"r-002": "次のバスは何時に来ますか。"}
    assert "1 change; to apply it, run" in page.find("#pending").text
    assert page.find("#command").text.startswith("./run.sh '")
    page.keys(Keys.ENTER, "消えます", Keys.ESCAPE)  # left: nothing is saved
    assert page.field("r-003") == made.KEPT["r-003"]
    page.keys("k", "u")
    page.said("Taken back.")
    assert page.field("r-002") == made.KEPT["r-002"]
    assert kaldi.read_table(page.layout.data_all / "text").lines["r-002"].value == made.KEPT["r-002"]


def test_keep_and_drop_and_a_written_transcript_outlive_a_reload(page: Page) -> None:
    page.keys("n", "j", "j", "j", "y")
    page.wait(lambda: page.pressed("r-004") == ["Keep"])
    page.keys("j", "y")
    page.said("Write what is said first")
    assert "cannot be kept" in page.row("r-005").text
    page.refused()
    page.keys(Keys.ENTER, "書き起こしを足しました。", Keys.ENTER)
    page.said("Saved.")
    assert "cannot be kept" not in page.row("r-005").text
    page.click(".clip[aria-label='r-006'] .drop")
    page.wait(lambda: page.pressed("r-006") == ["Drop"])
    page.click(".clip[aria-label='r-006'] .drop")  # once more: undecided
    page.wait(lambda: page.pressed("r-006") == [])
    page.load()
    assert page.pressed("r-001") == ["Drop"] and page.pressed("r-004") == ["Keep"] and page.pressed("r-006") == []
    assert page.field("r-005") == "書き起こしを足しました。"
    assert "3 changes; to apply them, run" in page.find("#pending").text
    said = decisions.load(page.layout)
    assert {one.utt: (one.verdict, one.text) for one in said.clips.values()} == {
        "r-001": ("drop", None),
        "r-004": ("keep", None),
        "r-005": (None, "書き起こしを足しました。"),
    }


def test_a_refused_text_stays_in_the_field_with_the_reason(page: Page) -> None:
    page.keys(Keys.ENTER)
    page.chord(Keys.CONTROL, "a")
    page.keys("。。。", Keys.ENTER)
    page.wait(lambda: "at least one letter" in page.row("r-001").text)
    assert page.field("r-001") == "。。。"
    assert kaldi.read_table(page.layout.data_all / "text").lines["r-001"].value == made.KEPT["r-001"]
    page.keys(Keys.ESCAPE)
    assert page.field("r-001") == made.KEPT["r-001"]
    page.refused()


def test_an_input_method_keeps_its_enter_key(page: Page) -> None:
    """Enter that confirms kanji must not save: typed as an input method types, through the browser's own protocol."""
    page.keys(Keys.ENTER)
    page.browser.execute_cdp_cmd("Input.imeSetComposition", {"text": "てんき", "selectionStart": 3, "selectionEnd": 3})
    enter = {"type": "rawKeyDown", "key": "Process", "code": "Enter", "windowsVirtualKeyCode": 229}
    page.browser.execute_cdp_cmd("Input.dispatchKeyEvent", enter)
    assert page.script("return document.activeElement.tagName") == "TEXTAREA"
    page.browser.execute_cdp_cmd("Input.insertText", {"text": "天気"})
    page.keys(Keys.ENTER)
    page.said("Saved.")
    assert kaldi.read_table(page.layout.data_all / "text").lines["r-001"].value == made.KEPT["r-001"] + "天気"


def test_filters_search_and_order(page: Page) -> None:
    page.click("label.group:has([value=quarantined])")
    assert page.rows == [*made.QUARANTINED, made.SILENT, made.NOTHING]
    page.find("#reason").send_keys("Noisy")
    assert page.rows == ["r-004"]
    page.click("label.group:has([value=kept])")
    assert page.rows == [] and page.find(".empty").text == "No clip is like that."
    page.script("document.getElementById('filters').reset()")
    page.find("#search").send_keys("電車")
    assert page.rows == ["r-002"]
    page.find("#search").clear()
    page.find("#sort").send_keys("SNR")
    page.click("#descending")
    page.wait(lambda: page.rows[:7] == sorted([*made.KEPT, *made.QUARANTINED, made.SILENT], reverse=True))
    assert page.rows[7] == made.NOTHING  # it has no SNR
    page.find("#sort").send_keys("CER")
    assert page.rows[0] == "r-003"  # the only one with a CER


def test_help_and_the_other_language(page: Page) -> None:
    page.keys("?")
    assert "take back the last change" in page.find("dialog[open]").text
    page.keys(Keys.ESCAPE)
    assert not page.browser.find_elements(By.CSS_SELECTOR, "dialog[open]")
    page.click("#language")
    page.wait(lambda: "採用 3 + 隔離 5 = 全 8 クリップ" in page.find("#sum").text)
    assert "雑音が多い SNR 8.24 dB（下限 12 dB）" in page.row("r-004").text
    assert page.script("return document.documentElement.lang") == "ja"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 900, 1280])
def test_it_fits_the_screen_and_can_be_read(page: Page, width: int, scheme: str) -> None:
    view(page.browser, width, scheme)
    page.load()
    page.keys("n", "j", "y")
    page.wait(lambda: page.pressed("r-001") == ["Drop"] and page.pressed("r-002") == ["Keep"])
    assert page.script("return document.documentElement.scrollWidth") <= width
    assert page.script(LOW_CONTRAST) == []
    page.keys("?")
    assert page.script(LOW_CONTRAST) == []
    page.keys(Keys.ESCAPE)
    unnamed = page.script(
        "return [...document.querySelectorAll('button, textarea, select, input, [role=slider]')]"
        ".filter((one) => !(one.ariaLabel || one.labels?.length || one.textContent.trim())).length"
    )
    assert unnamed == 0


def test_many_clips_come_a_page_at_a_time(page: Page) -> None:
    report = files.read_json(page.layout.data_all / "report.json")
    kept = [made.entry(f"r-{number}", "たくさんあります。", 2.0) for number in range(100, 100 + MANY)]
    for clip in kept:
        os.link(page.layout.data_all / "wav" / "r-001.wav", page.layout.data_all / "wav" / f"{clip['utt']}.wav")
    kaldi.write_table(page.layout.data_all / "text", made.KEPT | {clip["utt"]: clip["text"] for clip in kept})
    made.write_report(page.layout, report["clips"] + kept, report["drops"])
    requests(page.browser)
    page.load()
    assert len(page.rows) == 50
    assert page.find("#page").text == "Page 1 of 13"
    page.wait(lambda: any("/peaks?" in url for url in requests(page.browser)))
    page.click("#next")
    assert page.rows[0] == "r-143"
    page.keys("k")  # over the border of the page
    assert page.current == "r-142" and page.find("#page").text == "Page 1 of 13"
    page.keys("j")
    assert page.current == "r-143" and page.find("#page").text == "Page 2 of 13"
    asked = requests(page.browser)
    assert asked and all(url.startswith(page.address) for url in asked)
    assert len([url for url in asked if "/peaks?" in url]) < 100
    assert not any("/wav?" in url for url in asked)  # no sound before somebody plays it
