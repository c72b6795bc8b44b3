"""Requests -> only those of the browser that was given the address, and answers that stay in it.

A web page elsewhere may point its own name at 127.0.0.1 (DNS rebinding) or post to it: Host and Origin tell. Other
users of this machine do not know the token.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@dataclass(frozen=True)
class Guard:
    """An ASGI application around `app`, which sees the path without the token."""

    app: ASGIApp
    token: str
    port: int

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        start, _, rest = scope["path"].removeprefix("/").partition("/")
        inside = {**scope, "path": f"/{rest}", "raw_path": f"/{rest}".encode()}
        await (self._refuse(scope, start) or self.app)(inside, receive, send_guarded)

    def _refuse(self, scope: Scope, start: str) -> Response | None:
        headers = Headers(scope=scope)
        hosts = {f"{name}:{self.port}" for name in ("127.0.0.1", "localhost")}
        if headers.get("host") not in hosts:
            return PlainTextResponse("open the address that was printed", 400)
        if not hmac.compare_digest(start.encode(), self.token.encode()):
            return PlainTextResponse("not found", 404)
        if scope["method"] not in ("GET", "HEAD") and headers.get("origin") not in {f"http://{host}" for host in hosts}:
            return PlainTextResponse("only this page may change anything", 403)
        if scope["path"] == f"/{self.token}":  # the last slash was lost in copying
            return RedirectResponse(f"/{self.token}/")
        return None
