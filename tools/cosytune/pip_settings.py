"""pip's configuration -> the same for uv, which does not read it: a company's mirror, its certificate, its proxy.

    python -m cosytune.pip_settings      # NAME=value, each ended by a NUL, for tools/install.sh

Standard library only: it runs before anything is installed. What uv's own variables say already is left alone.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_VARIABLES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
}
_SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_SECTIONS = ("global", "install", ":env:")  # the later wins, as for pip


def for_uv(settings: str | None = None, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables to add to uv's environment; `settings` is what `pip config list` prints."""
    given = {key: value for key, value in environment.items() if value}
    found: dict[str, str] = {}
    lines = re.findall(r"^(global|install|:env:)\.([a-z-]+)=(.+)$", settings or _pip_config_list(), re.MULTILINE)
    for _, name, value in sorted(lines, key=lambda line: _SECTIONS.index(line[0])):
        if name in _VARIABLES:
            words = str(ast.literal_eval(value)).split()
            found[_VARIABLES[name]] = ("," if name == "find-links" else " ").join(words)
    if _SYSTEM_CERTIFICATES.is_file():  # with a company's own ones; uv alone would take the list that it was built with
        found["UV_SYSTEM_CERTS"] = "true"
    # Every file's hash is in the lock, so it does not matter which index has it.
    found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return {name: value for name, value in found.items() if name not in given}


def _pip_config_list() -> str:
    """Of the interpreter below a virtual environment, else of the environment itself; nothing without any pip."""
    for python in (getattr(sys, "_base_executable", sys.executable), sys.executable):
        command = [python, "-m", "pip", "config", "list"]
        listed = subprocess.run(command, capture_output=True, text=True, check=False)
        if listed.returncode == 0:
            return listed.stdout
    return ""


if __name__ == "__main__":
    sys.stdout.write("".join(f"{name}={value}\0" for name, value in for_uv().items()))
