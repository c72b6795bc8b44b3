"""Where everything lies: the repository's own directories, and those of one speaker and experiment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UPSTREAM = ROOT / "upstream"
PATCHES = ROOT / "cosyvoice_patches"
PRETRAINED_MODELS = ROOT / "pretrained_models"
LOCK = ROOT / "requirements.lock"

SPLITS = ("train", "cv", "test")
MODULES = ("llm", "flow")


@dataclass(frozen=True)
class Layout:
    """The paths of one speaker's recipe (`egs/<speaker>`) and one experiment in it."""

    recipe: Path
    exp: str = "default"

    @property
    def conf(self) -> Path:
        return self.recipe / "conf.yaml"

    @property
    def audio(self) -> Path:
        return self.recipe / "audio"

    @property
    def data_all(self) -> Path:
        return self.recipe / "data" / "all"

    def data(self, split: str) -> Path:
        return self.recipe / "data" / split

    @property
    def parquet(self) -> Path:
        return self.recipe / "parquet"

    @property
    def exp_dir(self) -> Path:
        return self.recipe / "exp" / self.exp

    @property
    def config(self) -> Path:
        return self.exp_dir / "config.yaml"

    def module(self, module: str) -> Path:
        """`exp/<name>/llm` or `exp/<name>/flow`: checkpoints, TensorBoard, train.log."""
        return self.exp_dir / module

    @property
    def selection(self) -> Path:
        return self.exp_dir / "selection.json"

    @property
    def voice(self) -> Path:
        return self.recipe / "voice"

    @property
    def report(self) -> Path:
        return self.recipe / "report"
