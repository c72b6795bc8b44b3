"""Names of graphics cards -> settings for them: one YAML file each, laid between the defaults and conf.yaml.

The values are those of a guide to fine-tuning LLASA, card by card. Chosen by `hardware: <name>`, never by the card at
hand: they change the effective batch, ranks and targets, and so the voice. `hardware: auto` does not.
"""

from __future__ import annotations

from pathlib import Path

AUTO = "auto"
_DIRECTORY = Path(__file__).parent


def names() -> list[str]:
    """Every preset, in alphabetical order."""
    return sorted(path.stem for path in _DIRECTORY.glob("*.yaml"))


def path(name: str) -> Path:
    """The preset's file. Raises KeyError for a name that is none, a path among them."""
    if name not in names():
        raise KeyError(name)
    return _DIRECTORY / f"{name}.yaml"
