"""A small repository on loopback for the clients of Hugging Face and of ModelScope, which breaks when asked to.

    with model_hub.serve(model_hub.contents()) as hub: ...  # hub.url, hub.requests, hub.faults

As a program, `python -m model_hub SOURCE MODEL_DIR` downloads it in a process whose environment is the test's own.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from cosytune import families
from cosytune.errors import run_main
from cosytune.families import Family, Published

REPOSITORY, REVISION = "someone/small", "1" * 40


def contents(size: int = 2_000_000) -> dict[str, bytes]:
    """The files of a small model; `llm.pt` has `size` bytes, the same at every call."""
    noise = random.Random(7).randbytes(size)
    return {"llm.pt": noise, "CosyVoice-BlankEN/vocab.json": b'{"a": 0}', "flow.pt": noise[:5000][::-1]}


def family(files: dict[str, bytes]) -> Family:
    """A family whose published files these are."""
    published = {name: Published(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()}
    real = families.get("cosyvoice2-0.5b")
    names = {"title": "Small", "huggingface": REPOSITORY, "modelscope": REPOSITORY, "revision": REVISION}
    return replace(real, **names, published=published)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one answer that carries a file."""

    cut_after: int | None = None
    """Bytes of the answer, after which the connection is closed."""
    status: int | None = None
    before: Callable[[], None] | None = None
    """Called when half of the answer has gone out."""


@dataclass
class Hub:
    """What is served, and what was asked for. Faults wait in line for each file, one for each answer."""

    contents: dict[str, bytes] = field(repr=False)
    url: str
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, file (or path) and Range of each request."""

    def asked(self, method: str = "GET") -> list[tuple[str, str | None]]:
        return [(name, span) for verb, name, span in self.requests if verb == method and name in self.contents]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, with_body: bool) -> None:
        hub, url = self.server.hub, urlsplit(self.path)
        if hugging := re.fullmatch(rf"/{REPOSITORY}/resolve/([^/]+)/(.+)", url.path):
            self._huggingface(unquote(hugging[1]), unquote(hugging[2]), with_body)
        elif url.path.startswith("/store/"):  # where Hugging Face keeps large files
            self._send(url.path.removeprefix("/store/"), {}, with_body)
        elif url.path == f"/api/v1/models/{REPOSITORY}/repo":
            query = parse_qs(url.query)
            self._modelscope(query["Revision"][0], query["FilePath"][0])
        elif url.path == "/api/v1/repos/internalAccelerationInfo":  # ModelScope: is it in the same data centre?
            self._small(200, {"Code": 200, "Data": {}})
        else:
            hub.requests.append((self.command, self.path, None))
            self._small(404, {"Message": "no such page"}, {"X-Error-Code": "RepoNotFound"})

    def _huggingface(self, revision: str, name: str, with_body: bool) -> None:
        hub = self.server.hub
        if revision != REVISION or name not in hub.contents:
            hub.requests.append((self.command, name, None))
            code = "EntryNotFound" if revision == REVISION else "RevisionNotFound"
            self._small(404, {}, {"X-Error-Code": code, "X-Error-Message": "none of that"})
            return
        data = hub.contents[name]
        headers = {"X-Repo-Commit": REVISION, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
        if not name.endswith(".pt"):
            self._send(name, headers, with_body)
            return
        hub.requests.append((self.command, f"/resolve/{name}", None))
        linked = {"X-Linked-Size": str(len(data)), "X-Linked-ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
        xet = {"X-Xet-Hash": "0" * 64, "X-Xet-Refresh-Route": f"{hub.url}/xet"}
        self._head(302, headers | linked | xet | {"Location": f"{hub.url}/store/{name}", "Content-Length": "0"})

    def _modelscope(self, revision: str, name: str) -> None:
        hub = self.server.hub
        if revision != "master" or name not in hub.contents:
            hub.requests.append((self.command, name, None))
            self._small(404, {"Code": 10010205001, "Message": f"{revision}: {name}: none of that", "Success": False})
            return
        self._send(name, {}, with_body=True)

    def _send(self, name: str, headers: dict[str, str], with_body: bool) -> None:
        """The file or the part of it that Range asks for, with the next fault of the line."""
        hub, span = self.server.hub, self.headers.get("Range")
        hub.requests.append((self.command, name, span))
        data = hub.contents[name]
        waiting = hub.faults.get(name, []) if with_body else []
        fault = waiting.pop(0) if waiting else Fault()
        if fault.status is not None:
            self._small(fault.status, {"Message": "not now"})
            return
        begin = int(re.fullmatch(r"bytes=(\d+)-.*", span)[1]) if span else 0  # type: ignore[index]
        if begin >= len(data):
            self._head(416, {"Content-Range": f"bytes */{len(data)}", "Content-Length": "0"})
            return
        part = {"Content-Range": f"bytes {begin}-{len(data) - 1}/{len(data)}"} if span else {}
        self._head(206 if span else 200, headers | part | {"Content-Length": str(len(data) - begin)})
        if not with_body:
            return
        body = data[begin:]
        if fault.cut_after is not None:
            self.wfile.write(body[: fault.cut_after])
            self.wfile.flush()
            self.close_connection = True
            return
        if fault.before is not None:
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            fault.before()
            body = body[len(body) // 2 :]
        self.wfile.write(body)

    def _small(self, status: int, value: object, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self._head(status, {"Content-Type": "application/json", "Content-Length": str(len(body))} | (headers or {}))
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: Hub

    def handle_error(self, *_: object) -> None:
        """A client that went away is what the tests are about."""


@contextmanager
def serve(files: dict[str, bytes]) -> Iterator[Hub]:
    """The repository, on a free port of 127.0.0.1, as long as the block runs."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.hub = Hub(dict(files), f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _main() -> None:
    from cosytune.base import download
    from cosytune.schema import DownloadConfig

    def refuse(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("socket.connect", "socket.getaddrinfo") and "127.0.0.1" not in str(arguments):
            print(f"off this machine: {event} {arguments}", flush=True)

    sys.addaudithook(refuse)
    source, model_dir = sys.argv[1:]
    download.fetch(family(contents()), DownloadConfig(source=source), Path(model_dir))  # type: ignore[arg-type]


if __name__ == "__main__":
    run_main(_main)
