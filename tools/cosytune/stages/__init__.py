"""The stages, in order, and which settings each one uses: `run.sh` runs them, `config.py` guards what finished."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """`uses`: the config keys (or whole sections) that change what the stage writes. `always`: it is never skipped."""

    number: int
    name: str
    summary: str
    uses: tuple[str, ...]
    always: bool = False

    @property
    def is_shared(self) -> bool:
        """Whether it makes the speaker's data, which all experiments share."""
        return self.number < _FIRST_OF_AN_EXPERIMENT


_FIRST_OF_AN_EXPERIMENT = 4
_BASE = ("model", "base", "model_dir")
STAGES = (
    Stage(-1, "setup", "upstream's code verified and patched; the base model, checked", (*_BASE, "upstream"), True),
    Stage(
        0,
        "prepare",
        "recordings -> clips, transcripts, Kaldi data directory",
        ("speaker", "language", "audio", "transcribe"),
    ),
    Stage(1, "embed", "clips -> speaker embeddings", (*_BASE, "features.provider")),
    Stage(2, "tokenize", "clips -> speech tokens", (*_BASE, "features.provider")),
    Stage(
        3,
        "pack",
        "data directory -> train, cv and test sets with cached features",
        (*_BASE, "seed", "language", "split"),
    ),
    Stage(4, "train", "features -> LoRA adapters of the LLM and the flow", (*_BASE, "seed", "device", "lora", "train")),
    Stage(5, "select", "checkpoints -> the one to ship, and why", ("train.mode",)),
    Stage(
        6, "export", "the choice -> a voice bundle", (*_BASE, "language", "description", "licence", "consent", "export")
    ),
    Stage(
        7,
        "evaluate",
        "the voice -> a report with scores, plots and audio",
        ("seed", "language", "features.provider", "evaluate"),
    ),
)
