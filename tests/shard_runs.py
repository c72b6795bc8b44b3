"""A recipe whose stages 0 to 2 run as processes of their own, in shards or not, and what they leave."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from cosytune import config as configs
from cosytune.layout import ROOT, Layout
from recordings import make_recipe, speech, write_audio, write_clip

STAGES = ("prepare", "embed", "tokenize")
STEPS = {"prepare": ("hear", "clips"), "embed": ("embed",), "tokenize": ("tokenize",)}


def make(parent: Path) -> Layout:
    """Clips with a text, one of silence, a long recording that nobody has transcribed."""
    layout = make_recipe(parent)
    layout.conf.write_text("base: random\nlanguage: ja\ntranscribe: {model: none}\n", encoding="utf-8")
    for number in range(6):
        write_clip(
            layout.audio / f"{number}.wav", f"テスト{'あいうえおか'[number]}。", samples=speech(2.0, take=number)
        )
    write_clip(layout.audio / "silence.wav", samples=np.zeros(36000))
    parts = [np.append(speech(4.0, take=take), np.zeros(12000)) for take in range(10, 14)]
    write_audio(layout.audio / "long.flac", np.concatenate(parts))
    return layout


def environment(*before: Path) -> dict[str, str]:
    """`before`: directories with packages that .venv lacks."""
    return {**os.environ, "PYTHONPATH": ":".join(map(str, (ROOT / "tools", *before))), "RAY_USAGE_STATS_ENABLED": "0"}


def command(layout: Layout, stage: str, *overrides: str) -> list[str]:
    frozen = configs.freeze(layout.recipe, layout.exp, overrides, 0, 2)
    return [sys.executable, "-m", f"cosytune.stages.{stage}", str(frozen)]


def run(
    layout: Layout, stage: str, *overrides: str, packages: tuple[Path, ...] = ()
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(layout, stage, *overrides), env=environment(*packages), capture_output=True, text=True
    )


def made(layout: Layout) -> dict[str, bytes]:
    """Every file that stages 0 to 2 hand on, the recipe's place taken out."""
    places = [layout.data_all, layout.quarantine, layout.features]
    paths = [layout.quarantine_table, *(path for place in places for path in sorted(place.rglob("*")))]
    return {
        str(path.relative_to(layout.recipe)): path.read_bytes().replace(str(layout.recipe).encode(), b"RECIPE")
        for path in paths
        if path.is_file() and path.suffix != ".zip"  # what stage 1 decoded for stage 2, which shards decode themselves
    }
