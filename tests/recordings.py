"""Recipes with real audio files in them, and stage 0 run on them as `./run.sh` runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from cosytune import config as configs
from cosytune import files
from cosytune.layout import ROOT, Layout
from cosytune.stages import prepare
from cosytune.stages.runner import Context


def make_recipe(parent: Path, name: str = "mine") -> Layout:
    recipe = parent / name
    (recipe / "audio").mkdir(parents=True)
    (recipe / "conf.yaml").write_text("language: ja\nbase: tiny\n", encoding="utf-8")
    return Layout(recipe.resolve())


def tone(seconds: float = 1.5, rate_hz: int = 24000, hz: float = 220.0, level: float = 0.3) -> np.ndarray:
    """A swelling tone, float64 [n]: loud enough to be measured, different for each `hz`."""
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    return level * np.sin(2 * np.pi * hz * time_s) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time_s))


def write_audio(path: Path, samples: np.ndarray | None = None, rate_hz: int = 24000, **options: Any) -> Path:
    """A real audio file; what libsndfile cannot write (m4a) goes through ffmpeg."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = tone(rate_hz=rate_hz) if samples is None else samples
    if path.suffix.lower() in {".m4a", ".aac", ".wma"}:
        raw = samples.astype("<f4").tobytes()
        command = ["ffmpeg", "-v", "error", "-y", "-f", "f32le", "-ar", str(rate_hz), "-ac", "1", "-i", "-"]
        subprocess.run([*command, f"file:{path}"], input=raw, check=True)
    else:
        soundfile.write(path, samples, rate_hz, **options)
    return path


def write_clip(path: Path, text: str | None = "こんにちは。", suffix: str = ".txt", **audio: Any) -> Path:
    """An audio file and its transcript beside it."""
    write_audio(path, **audio)
    if text is not None:
        path.with_suffix(suffix).write_text(text, encoding="utf-8")
    return path


def run_prepare(layout: Layout, *overrides: str) -> dict[str, Any]:
    """Stage 0 in this process; its report. Raises the UserError that a user would read."""
    config, _ = configs.load(configs.freeze(layout.recipe, layout.exp, overrides, 0, 0))
    prepare.main(Context(config, layout, again=True))
    report: dict[str, Any] = files.read_json(layout.data_all / "report.json")
    assert report["input"] == report["kept"] + sum(report["dropped"].values())
    assert len(report["clips"]) == report["kept"]
    assert len(report["drops"]) == sum(report["dropped"].values())
    return report


def run_stage_0(layout: Layout, *overrides: str) -> subprocess.CompletedProcess[str]:
    """Stage 0 as a process of its own, recorded and skipped like every stage."""
    frozen = configs.freeze(layout.recipe, layout.exp, overrides, 0, 0)
    return subprocess.run(
        [sys.executable, "-m", "cosytune.stages.prepare", str(frozen)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tools")},
        capture_output=True,
        text=True,
    )


def texts(layout: Layout) -> dict[str, str]:
    """Utterance -> transcript, as data/all/text has them."""
    lines = (layout.data_all / "text").read_text(encoding="utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines)
