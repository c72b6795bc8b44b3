"""The review page's server: a real uvicorn on loopback, asked as a browser asks and as an attacker would."""

from __future__ import annotations

import http.client
import json
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import made_review as made
from cosytune import decisions, kaldi
from cosytune.layout import Layout
from cosytune.review import __main__ as program
from cosytune.review.app import Review, build
from cosytune.review.guard import Guard
from cosytune.text import normalize

TOKEN = "key-of-this-test"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Site:
    """A recipe and the server on it."""

    layout: Layout
    port: int

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        """`path` as it is sent, nothing cleaned up; header names with _ for -."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, {"Host": f"127.0.0.1:{self.port}", **sent})
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask(f"/{TOKEN}/{path}", **headers)

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        usual = {"Content_Type": "application/json", "Origin": f"http://127.0.0.1:{self.port}"}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask(f"/{TOKEN}/{path}", "POST", data, **(usual | headers))

    def clip(self, utt: str) -> Any:
        return next(clip for clip in self.get("clips").json if clip["utt"] == utt)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.make(tmp_path_factory.mktemp("review") / "さくら 'voice'").recipe


@pytest.fixture
def site(made_once: Path, tmp_path: Path) -> Iterator[Site]:
    layout = Layout(shutil.copytree(made_once, tmp_path / made_once.name))
    with program.listen(0) as listener:
        port = listener.getsockname()[1]
        server = program.server(Guard(build(Review(layout, "ja")), TOKEN, port))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield Site(layout, port)
        server.should_exit = True
        thread.join()


def test_the_page_names_the_recipe_and_may_load_nothing_from_elsewhere(site: Site) -> None:
    page = site.get("")
    assert page.status == 200 and "さくら &#39;voice&#39;" in page.body.decode()
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "http" not in policy
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert site.get("static/review.js").headers["content-type"].startswith("text/javascript")
    assert b"http:" not in page.body and b"https:" not in page.body


def test_the_language_of_the_page_is_the_browsers_or_the_one_asked_for(site: Site) -> None:
    assert '<html lang="en">' in site.get("").body.decode()
    assert '<html lang="ja">' in site.get("", Accept_Language="ja-JP,en;q=0.5").body.decode()
    assert '<html lang="en">' in site.get("", Accept_Language="de,en;q=0.5").body.decode()
    assert '<html lang="ja">' in site.get("?lang=ja", Accept_Language="en").body.decode()
    assert '<html lang="en">' in site.get("?lang=../x").body.decode()


def test_both_languages_have_the_same_words() -> None:
    words = json.loads((Path(program.__file__).parent / "words.json").read_text(encoding="utf-8"))

    def shape(value: Any) -> Any:
        return {key: shape(one) for key, one in value.items()} if isinstance(value, dict) else type(value)

    assert shape(words["en"]) == shape(words["ja"])
    for key, (_, sentence) in words["en"]["reasons"].items():
        for field in ("{value}", "{threshold}", "{value%}", "{threshold%}"):
            assert (field in sentence) == (field in words["ja"]["reasons"][key][1]), (key, field)


@pytest.mark.parametrize("path", ["/", "/wrong/", f"/{TOKEN}x/", f"/{TOKEN[:-1]}/clips", "/favicon.ico", "/鍵/", "//"])
def test_without_the_token_there_is_nothing(site: Site, path: str) -> None:
    answer = site.ask(quote(path))
    assert answer.status == 404 and b"clip" not in answer.body
    assert "content-security-policy" in answer.headers


def test_a_lost_last_slash_is_put_back(site: Site) -> None:
    answer = site.ask(f"/{TOKEN}")
    assert (answer.status, answer.headers["location"]) == (307, f"/{TOKEN}/")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "[::1]:{port}", ""]
)
def test_another_host_name_is_refused(site: Site, host: str) -> None:
    assert site.get("clips", Host=host.format(port=site.port)).status == 400


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1:1", ""]
)
def test_a_post_from_another_page_is_refused(site: Site, origin: str) -> None:
    body = {"source": made.source("r-001"), "verdict": "drop"}
    assert site.post("verdict", body, Origin=origin.format(port=site.port)).status == 403
    assert not decisions.path(site.layout).exists()


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        ({"source": made.source("r-001"), "verdict": "drop"}, {"Content_Type": "text/plain"}, 415),
        ({"source": made.source("r-001"), "verdict": "maybe"}, {}, 400),
        ({"verdict": "drop"}, {}, 400),
        ({"source": 3, "verdict": "drop"}, {}, 400),
        (["drop"], {}, 400),
        (b"{", {}, 400),
        (b"\xff\xfe", {}, 400),
        (b" " * 70_000, {}, 413),
        ({"source": "audio/../../secret.wav", "verdict": "drop"}, {}, 409),
    ],
)
def test_what_is_no_decision_changes_nothing(site: Site, body: Any, headers: dict[str, str], status: int) -> None:
    assert site.post("verdict", body, **headers).status == status
    assert not decisions.path(site.layout).exists()


def test_a_get_cannot_change_anything(site: Site) -> None:
    assert site.get(f"verdict?source={quote(made.source('r-001'))}&verdict=drop").status == 405


@pytest.mark.parametrize(
    "path",
    [
        *("static/../app.py", "static/..%2fapp.py", "static/%2e%2e/words.json", "static/", "wav", "wav/r-001.wav"),
        *("wav?source=../../conf.yaml", "wav?source=%2fetc%2fpasswd", "wav?source=r-001", "peaks?source=r-001%00"),
    ],
)
def test_no_path_leads_out(site: Site, path: str) -> None:
    assert site.get(path).status == 404


def test_sound_is_served_whole_and_in_parts(site: Site) -> None:
    path = f"wav?source={quote(made.source('r-001'))}"
    wav = (site.layout.data_all / "wav" / "r-001.wav").read_bytes()
    whole = site.get(path)
    assert (whole.status, whole.body, whole.headers["content-type"]) == (200, wav, "audio/wav")
    part = site.get(path, Range="bytes=100-199")
    assert (part.status, part.body) == (206, wav[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(wav)}"
    assert site.get(path, Range=f"bytes={len(wav)}-").status == 416


def test_the_outline_follows_the_sound(site: Site) -> None:
    outline = site.get(f"peaks?source={quote(made.source('r-004'))}").body
    assert len(outline) == 480
    assert max(outline) > 40  # speech in the middle ...
    assert max(outline[:20]) < 8 and max(outline[-20:]) < 8  # ... and Open JTalk's silence around it


def test_every_clip_is_there_with_its_reasons(site: Site) -> None:
    clips = site.get("clips").json
    assert [clip["utt"] for clip in clips] == [*made.KEPT, *made.QUARANTINED, made.SILENT, ""]
    assert [clip["kept"] for clip in clips] == [True] * 3 + [False] * 5
    assert [clip["playable"] for clip in clips] == [True] * 6 + [False] * 2
    assert [clip["reasons"] for clip in clips[3:6]] == [reasons for _, reasons in made.QUARANTINED.values()]
    assert not any(clip["pending"] or clip["edited"] or clip["verdict"] for clip in clips)
    assert clips[2]["asr_text"] and clips[2]["cer"] == 0.105


def test_an_edit_of_a_kept_clip_is_one_line_of_text(site: Site) -> None:
    path = site.layout.data_all / "text"
    before = kaldi.read_table(path).lines
    typed = "  次の　バスは\n7時ですか。\ufeff"
    answer = site.post("text", {"source": made.source("r-002"), "text": typed, "was": made.KEPT["r-002"]})
    assert answer.status == 200
    assert answer.json["text"] == normalize(typed, "ja") != typed
    assert answer.json["edited"] and answer.json["pending"]
    table = kaldi.read_table(path)
    assert not table.problems
    assert table.lines["r-002"].value == normalize(typed, "ja")
    assert {utt: table.lines[utt] for utt in ("r-001", "r-003")} == {utt: before[utt] for utt in ("r-001", "r-003")}
    assert not decisions.path(site.layout).exists()


def test_an_edit_in_quarantine_is_a_decision_until_it_says_what_was_found(site: Site) -> None:
    source = made.source("r-005")
    answer = site.post("text", {"source": source, "text": "書き起こしがありません。", "was": ""}).json
    assert answer["pending"] and answer["edited"]
    assert decisions.load(site.layout).of(source).text == "書き起こしがありません。"
    assert "r-005" not in kaldi.read_table(site.layout.data_all / "text").lines
    back = site.post("text", {"source": source, "text": None, "was": "書き起こしがありません。"}).json
    assert not back["pending"] and back["text"] == ""
    assert decisions.load(site.layout).of(source).is_empty


@pytest.mark.parametrize(("text", "code"), [("", "empty_text"), (" \u3000 ", "empty_text"), ("。…!?", "unspeakable")])
@pytest.mark.parametrize("utt", ["r-001", "r-004"])
def test_a_text_that_says_nothing_is_refused(site: Site, utt: str, text: str, code: str) -> None:
    was = site.clip(utt)["text"]
    answer = site.post("text", {"source": made.source(utt), "text": text, "was": was})
    assert (answer.status, answer.json) == (422, {"error": code})
    assert site.clip(utt)["text"] == was


def test_verdicts_are_kept_with_the_text_and_taken_back(site: Site) -> None:
    source = made.source("r-004")
    site.post("text", {"source": source, "text": "雑音です。", "was": made.QUARANTINED["r-004"][0]})
    assert site.post("verdict", {"source": source, "verdict": "keep"}).json["verdict"] == "keep"
    said = decisions.load(site.layout).of(source)
    assert (said.utt, said.verdict, said.text) == ("r-004", "keep", "雑音です。")
    assert site.post("verdict", {"source": source, "verdict": None}).json["verdict"] is None
    assert decisions.load(site.layout).of(source).text == "雑音です。"


@pytest.mark.parametrize(("utt", "code"), [("r-005", "no_text"), (made.SILENT, "no_audio")])
def test_what_stage_0_could_not_keep_is_refused(site: Site, utt: str, code: str) -> None:
    answer = site.post("verdict", {"source": made.source(utt), "verdict": "keep"})
    assert (answer.status, answer.json) == (422, {"error": code})
    assert site.post("verdict", {"source": made.source(utt), "verdict": "drop"}).status == 200


def test_what_the_user_has_to_mend_is_said_in_the_page(site: Site) -> None:
    text = site.layout.data_all / "text"
    text.write_text(text.read_text() + "r-001 once more\n")
    answer = site.post("text", {"source": made.source("r-002"), "text": "はい。", "was": made.KEPT["r-002"]})
    assert answer.status == 409 and "text:4: 'r-001' is already in line 1" in answer.json["message"]
    assert text.read_text().endswith("once more\n")
