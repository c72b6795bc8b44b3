"""Serve one recipe's clips for review, to this machine's own browser alone, until Ctrl-C.

python -m cosytune.review egs/demo [--port 8765] [--open]
"""

from __future__ import annotations

import argparse
import secrets
import socket
import webbrowser
from pathlib import Path

import uvicorn

from cosytune import config as configs
from cosytune import decisions
from cosytune.errors import UserError, run_main
from cosytune.layout import Layout
from cosytune.review import clips
from cosytune.review.app import Review, build
from cosytune.review.guard import Guard

_HOST = "127.0.0.1"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m cosytune.review", description="Review a speaker's clips by ear.")
    parser.add_argument("recipe", type=Path, help="egs/<speaker>, after stage 0")
    parser.add_argument("--port", type=_port, default=0, help="default: a free one")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    arguments = parser.parse_args()
    layout = Layout(configs.find_recipe(arguments.recipe))
    review = Review(layout, _language(layout))
    counts = _counts(layout)
    with listen(arguments.port) as listener:
        port = listener.getsockname()[1]
        token = secrets.token_urlsafe(32)
        address = f"http://{_HOST}:{port}/{token}/"
        print(
            f"{counts}\n{address}\nFor this machine's browser alone; the address is the key. End with Ctrl-C.",
            flush=True,
        )
        if arguments.open:
            webbrowser.open(address)
        server(Guard(build(review), token, port)).run(sockets=[listener])


def _language(layout: Layout) -> str:
    """That of the experiment that ran last, else of conf.yaml."""
    frozen = sorted(layout.recipe.glob("exp/*/config.yaml"), key=lambda path: path.stat().st_mtime_ns)
    config = configs.load(frozen[-1])[0] if frozen else configs.read_recipe(layout)
    return config.language


def _counts(layout: Layout) -> str:
    """Read everything once: what is missing or damaged is said now, not in the page."""
    every = clips.read_clips(layout).values()
    clips.read_lines(layout)
    decisions.load(layout)
    kept = sum(clip.is_kept for clip in every)
    return f"{layout.recipe.name}: {kept} kept + {len(every) - kept} in quarantine = {len(every)} clips"


def listen(port: int) -> socket.socket:
    """A socket on loopback; 0: any free port."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((_HOST, port))
        listener.listen()  # two may bind one port with SO_REUSEADDR; only one may listen
    except OSError as failure:
        listener.close()
        raise UserError(f"--port {port}: {failure.strerror}; leave --port out, and a free one is taken") from None
    return listener


def server(app: Guard) -> uvicorn.Server:
    """At a signal it ends the open requests, then lets the signal have its usual effect."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            log_level="warning",
            access_log=False,  # it would write the token
            server_header=False,
            timeout_graceful_shutdown=1,
        )
    )


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) < 65536:
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}': not a port; write a number from 1024 to 65535")


if __name__ == "__main__":
    run_main(main)
