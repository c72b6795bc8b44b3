"""Where everything lies: the repository's own directories, and those of one speaker and experiment."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UPSTREAM = ROOT / "upstream"
PATCHES = ROOT / "cosyvoice_patches"
PRETRAINED_MODELS = ROOT / "pretrained_models"
LOCK = ROOT / os.environ.get("COSYTUNE_LOCK", "requirements.lock")
"""What the environment is made of: the whole set, or what path.sh was told that an image has of it."""

SPLITS = ("train", "cv", "test")
MODULES = ("llm", "flow")


@dataclass(frozen=True)
class Layout:
    """The paths of one speaker's recipe (`egs/<speaker>`) and one experiment in it."""

    recipe: Path
    exp: str = "default"

    @property
    def shown(self) -> str:
        """The recipe as a command line names it: from the repository's root where it lies in it, quoted for a shell."""
        return shlex.quote(str(self.recipe.relative_to(ROOT) if self.recipe.is_relative_to(ROOT) else self.recipe))

    @property
    def conf(self) -> Path:
        return self.recipe / "conf.yaml"

    @property
    def audio(self) -> Path:
        return self.recipe / "audio"

    @property
    def data_all(self) -> Path:
        return self.recipe / "data" / "all"

    @property
    def quarantine(self) -> Path:
        """The clips that stage 0 put aside; `quarantine_table` says why."""
        return self.recipe / "data" / "quarantine"

    @property
    def quarantine_table(self) -> Path:
        return self.recipe / "data" / "quarantine.tsv"

    @property
    def transcripts(self) -> Path:
        """What Whisper said of each recording: it takes too long to ask twice."""
        return self.recipe / "data" / "transcripts"

    @property
    def features(self) -> Path:
        """What stages 1 and 2 know of each clip, by its content: a clip that is known is not asked about again."""
        return self.recipe / "data" / "features"

    @property
    def shards(self) -> Path:
        """What a stage's shards leave for it; see `cosytune.shards`."""
        return self.recipe / "data" / "shards"

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
