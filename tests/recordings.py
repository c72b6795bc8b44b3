"""Recipes with real audio files in them, and stage 0 run on them as `./run.sh` runs it."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyopenjtalk
import soundfile
import soxr

from cosytune import config as configs
from cosytune import files
from cosytune.layout import ROOT, Layout
from cosytune.stages import prepare
from cosytune.stages.runner import Context


def make_recipe(parent: Path, name: str = "mine") -> Layout:
    recipe = parent / name
    (recipe / "audio").mkdir(parents=True)
    (recipe / "conf.yaml").write_text("language: ja\nbase: random\n", encoding="utf-8")
    return Layout(recipe.resolve())


_MORAS = tuple("あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもやゆよらりるれろわ")
_MORAS_PER_S = 7.5
_EDGE_S = 0.12  # of quiet before and after, as a person leaves it


@functools.lru_cache(maxsize=256)
def speech(seconds: float = 1.5, rate_hz: int = 24000, take: int = 0, level: float = 0.3) -> np.ndarray:
    """Somebody says something, float64 [n], peak `level`: Open JTalk in a quiet room; each `take` other words."""
    draw = np.random.default_rng(take)
    words = "".join(draw.choice(_MORAS, max(2, round(seconds * _MORAS_PER_S))))
    spoken = _say(words, seconds - 2 * _EDGE_S)
    clip = np.zeros(round(seconds * 48000))
    start = max(0, (len(clip) - len(spoken)) // 2)
    clip[start : start + len(spoken)] = spoken[: len(clip) - start]
    clip = soxr.resample(clip, 48000, rate_hz, quality="VHQ")
    clip = np.resize(clip, round(seconds * rate_hz)) / np.abs(clip).max()
    return level * (clip + draw.normal(0, 2e-4, len(clip)))


def _say(words: str, seconds: float) -> np.ndarray:
    """The words in at most so many seconds, without the silence around them; 48 kHz."""
    speed = 1.0
    while True:
        spoken, _ = pyopenjtalk.tts(words, speed=speed)
        loud = np.flatnonzero(np.abs(spoken) > 0.005 * np.abs(spoken).max())
        spoken = spoken[loud[0] : loud[-1] + 1]
        if len(spoken) <= max(seconds, 0.02) * 48000 or speed > 4:
            return spoken
        speed *= max(1.02, len(spoken) / 48000 / max(seconds, 0.02))


def write_audio(path: Path, samples: np.ndarray | None = None, rate_hz: int = 24000, **options: Any) -> Path:
    """A real audio file; what libsndfile cannot write (m4a) goes through ffmpeg. Another name, other words."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = (
        speech(rate_hz=rate_hz, take=zlib.crc32(os.fsencode("/".join(path.parts[-3:])))) if samples is None else samples
    )
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
