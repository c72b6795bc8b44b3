"""The page from made-up results: what it says, that it holds everything, that it is the same twice."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from cosytune.voice import ablation, plots, report
from made_report import DROPS, PACK_DROPS, TEXTS, UNUSED, made_ablation, make

_VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Checks that elements close in order; collects text, ids and attributes that point elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href", "data") and value]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open and "script" not in self.open:
            self.text += data


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    return report.write(*make(tmp_path_factory.mktemp("report") / "デモ")).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    parsed = Page()
    parsed.feed(html)
    assert parsed.open == []
    return parsed


def test_every_drop_is_listed_with_its_reason(page: Page) -> None:
    for drop in DROPS:
        assert str(drop["source"]) in page.text
        assert str(drop["reasons"][0]["reason"]).replace("_", " ") in page.text
    assert "0.42" in page.text and "31.7" in page.text
    assert UNUSED[0] in page.text
    assert PACK_DROPS[0]["utt"] in page.text and PACK_DROPS[0]["reason"] in page.text


def test_texts_are_escaped_and_marked_with_their_language(page: Page, html: str) -> None:
    for text in TEXTS:
        assert text in page.text
    assert "<b>" not in html
    assert ("h3", {"id": "passage-1", "lang": "ja"}) in page.tags


def test_nothing_is_fetched(page: Page, html: str) -> None:
    assert page.links, "there are players and plots"
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert not re.search(r"url\((?!#)|@import", html)


def test_ids_are_unique_and_every_reference_has_its_target(page: Page, html: str) -> None:
    assert len(page.ids) == len(set(page.ids))
    pointed = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)|aria-labelledby="([^"]+)"', html)
    assert {name for names in pointed for name in names if name} <= set(page.ids)


def test_headings_do_not_skip_a_level_and_players_are_labelled(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    players = [attributes for tag, attributes in page.tags if tag == "audio"]
    assert len(players) == 5 and all(attributes["aria-label"] for attributes in players)
    plots = [attributes for tag, attributes in page.tags if attributes.get("role") == "img"]
    assert len(plots) == 5 + 2 + 2 and all(attributes["aria-label"] for attributes in plots)


def test_the_numbers_that_identify_the_run(page: Page) -> None:
    for expected in ("0123456789abcdef", "with uncommitted changes", "6e01309e01bc93bb", "cd" * 32, "1986"):
        assert expected in page.text
    assert "random weights" in page.text


def test_plots_hold_no_text_of_the_user(html: str) -> None:
    svg = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert svg.isascii() or not re.search(r"[\u3040-\u30ff\u4e00-\u9fff]", svg)


def test_the_page_is_the_same_twice(tmp_path: Path) -> None:
    first, second = (report.write(*make(tmp_path / name / "デモ")).read_bytes() for name in ("a", "b"))
    assert first == second


def test_a_corpus_without_drops_says_so(tmp_path: Path) -> None:
    from cosytune import files

    config, layout, results = make(tmp_path / "clean")
    for path in (layout.data_all / "report.json", layout.parquet / "report.json"):
        files.write_json(path, files.read_json(path) | {"drops": [], "dropped": {}})
    assert "Nothing was dropped." in report.write(config, layout, results).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Page:
    parsed = Page()
    path = report.write(*make(tmp_path_factory.mktemp("judged") / "デモ", judged=True))
    parsed.feed(path.read_text(encoding="utf-8"))
    assert parsed.open == []
    return parsed


def test_without_judges_nobody_speaks_of_them(page: Page) -> None:
    assert not any(words in page.text for words in ("Kana", "Voice similarity", "heard:", "Ablation"))
    assert "ablation" not in page.ids


def test_the_players_stand_in_the_order_real_base_tuned(judged: Page) -> None:
    labels = [str(attributes["aria-label"]).split(":")[0] for tag, attributes in judged.tags if tag == "audio"]
    assert labels == ["Real recording", "Untuned base", "Tuned voice", "Untuned base", "Tuned voice"]


def test_the_judges_verdict_stands_with_the_players_and_in_both_tables(judged: Page) -> None:
    assert judged.text.count("カイギワジューガツ") == 3 and judged.text.count("カイイワジューガ") == 2
    assert "a small model trained on synthetic speech" in judged.text
    assert "not the quality of the real CosyVoice" in judged.text
    assert "Texts without kana, left out of the kana error rate: 1." in judged.text
    assert len(judged.ids) == len(set(judged.ids)) and "ablation" in judged.ids
    for row in made_ablation()["rows"]:
        for key, figure in row["figures"].items():
            value, span = ablation.show(key, figure)
            assert value in judged.text and span in judged.text
        assert ablation.WHO[row["who"]] in judged.text


@pytest.mark.parametrize(
    "values", [[3.7] * 40, [2.1, 3.3, 3.4, 4.3], [-23.0, -22.999], [1.1 + 0.1 * n for n in range(99)]]
)
def test_a_histogram_counts_every_clip(values: list[float]) -> None:
    counts, _ = np.histogram(values, bins=plots._bins(values))
    assert counts.sum() == len(values)
