"""A mirror that pip knows is a mirror for uv too."""

from __future__ import annotations

import os
import subprocess
import sys

from cosytune import pip_settings
from cosytune.layout import ROOT

SETTINGS = """\
:env:.cert='/etc/ssl/company.pem'
global.cert='/etc/ssl/old.pem'
global.extra-index-url='\\nhttps://one.example/simple\\nhttps://two.example/simple'
global.find-links='/wheels a /wheels/b'
global.index-url='https://pip.example/simple'
install.index-url='https://mirror.example/simple'
freeze.index-url='https://other.example/simple'
"""


def test_every_setting_in_uvs_words_the_stronger_source_first() -> None:
    found = pip_settings.for_uv(SETTINGS, environment={})
    found.pop("UV_SYSTEM_CERTS", None)  # where the machine has a list of its own
    assert found == {
        "SSL_CERT_FILE": "/etc/ssl/company.pem",
        "UV_DEFAULT_INDEX": "https://mirror.example/simple",
        "UV_FIND_LINKS": "/wheels,a,/wheels/b",
        "UV_INDEX": "https://one.example/simple https://two.example/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }


def test_what_uv_was_told_itself_stays() -> None:
    found = pip_settings.for_uv(SETTINGS, environment={"UV_DEFAULT_INDEX": "https://mine.example", "SSL_CERT_FILE": ""})
    assert "UV_DEFAULT_INDEX" not in found
    assert found["SSL_CERT_FILE"] == "/etc/ssl/company.pem"


def test_the_command_reads_pips_real_configuration_and_prints_for_a_shell() -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("UV_", "PIP_"))}
    environment |= {"PIP_INDEX_URL": "https://mirror.example/a b", "PYTHONPATH": str(ROOT / "tools")}
    result = subprocess.run(
        [sys.executable, "-m", "cosytune.pip_settings"], env=environment, capture_output=True, text=True, check=True
    )
    assert "UV_DEFAULT_INDEX=https://mirror.example/a b" in result.stdout.split("\0")
