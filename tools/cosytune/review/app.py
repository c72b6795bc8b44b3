"""One recipe -> the page and what it asks for: clips, sound, outlines of waves; and edits as JSON."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from cosytune.errors import UserError
from cosytune.layout import ROOT, Layout
from cosytune.review import clips, edits
from cosytune.review.peaks import peaks

_HERE = Path(__file__).parent
_STATIC = {path.name: path for path in sorted((_HERE / "static").iterdir())}
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_WORDS: Mapping[str, Mapping[str, Any]] = json.loads((_HERE / "words.json").read_text(encoding="utf-8"))
_MAX_BODY = 64 * 1024

Work = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Review:
    """The recipe under review; `language`: of its transcripts, where a clip does not say."""

    layout: Layout
    language: str

    @property
    def command(self) -> str:
        """What applies the changes, run at the repository's root."""
        recipe = self.layout.recipe
        return f"./run.sh {shlex.quote(str(recipe.relative_to(ROOT) if recipe.is_relative_to(ROOT) else recipe))}"

    def page(self, request: Request) -> Response:
        ui = _ui_language(request)
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=jinja2.StrictUndefined
        )
        return HTMLResponse(
            environment.get_template("page.html.j2").render(
                t=_WORDS[ui], ui=ui, name=self.layout.recipe.name, language=self.language, command=self.command
            )
        )

    def clips(self, _request: Request) -> Response:
        return JSONResponse(clips.view(self.layout))

    def wav(self, request: Request) -> Response:
        return FileResponse(self._wav(request), media_type="audio/wav")

    def peaks(self, request: Request) -> Response:
        return Response(peaks(self._wav(request)), media_type="application/octet-stream")

    async def set_verdict(self, request: Request) -> Response:
        def work(body: Mapping[str, Any]) -> None:
            verdict = body.get("verdict")
            if verdict not in ("keep", "drop", None):
                raise HTTPException(400)
            edits.set_verdict(self.layout, body["source"], verdict)

        return await self._edit(request, work)

    async def set_text(self, request: Request) -> Response:
        def work(body: Mapping[str, Any]) -> None:
            text, was = body.get("text"), body.get("was")
            if not isinstance(was, str) or not isinstance(text, str | None):
                raise HTTPException(400)
            edits.set_text(self.layout, self.language, body["source"], text, was)

        return await self._edit(request, work)

    async def _edit(self, request: Request, work: Work) -> Response:
        """Do it; answer with the clip as it is then."""
        body = await _json(request)

        def do() -> dict[str, Any]:
            work(body)
            return clips.view_one(self.layout, body["source"])

        return JSONResponse(await run_in_threadpool(do))

    def _wav(self, request: Request) -> Path:
        """Only what the report names is served: the path in the request is a key, never a path."""
        clip = clips.read_clips(self.layout).get(request.query_params.get("source", ""))
        if clip is None or not clip.wav.is_file():
            raise HTTPException(404)
        return clip.wav


def build(review: Review) -> Starlette:
    """The application without its guard."""
    return Starlette(
        routes=[
            Route("/", review.page),
            Route("/static/{name}", _static),
            Route("/clips", review.clips),
            Route("/wav", review.wav),
            Route("/peaks", review.peaks),
            Route("/verdict", review.set_verdict, methods=["POST"]),
            Route("/text", review.set_text, methods=["POST"]),
        ],
        exception_handlers={edits.RefusedError: _refused, UserError: _mistake},
    )


def _static(request: Request) -> Response:
    path = _STATIC.get(request.path_params["name"])
    if path is None:
        raise HTTPException(404)
    return Response(path.read_bytes(), media_type=_TYPES[path.suffix])


async def _json(request: Request) -> Mapping[str, Any]:
    """The body: an object that names a clip by its source."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415)
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MAX_BODY:
            raise HTTPException(413)
    try:
        value = json.loads(body)
    except ValueError:
        raise HTTPException(400) from None
    if not isinstance(value, dict) or not isinstance(value.get("source"), str):
        raise HTTPException(400)
    return value


def _refused(_request: Request, failure: Exception) -> Response:
    assert isinstance(failure, edits.RefusedError)
    return JSONResponse({"error": failure.code}, failure.status)


def _mistake(_request: Request, failure: Exception) -> Response:
    """A file that the user has to mend: the page shows the message as it is."""
    return JSONResponse({"message": str(failure)}, 409)


def _ui_language(request: Request) -> str:
    """The one asked for with ?lang=, else the first of the browser's that there are words for."""
    wanted = [request.query_params.get("lang", "")]
    wanted += [part.partition(";")[0].strip() for part in request.headers.get("accept-language", "").split(",")]
    return next((short for one in wanted if (short := one.partition("-")[0].lower()) in _WORDS), "en")
