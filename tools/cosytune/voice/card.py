"""What a bundle says of itself in words: the model card (README.md) and the licence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from cosytune import families
from cosytune.base import shipped
from cosytune.schema import Config

if TYPE_CHECKING:
    from cosytune.voice.build import Material

_SYNTHETIC = (
    'The base learned from what the HTS voice "Mei" spoke: CC BY 3.0, Copyright (c) 2009-2013 Nagoya Institute of\n'
    "Technology, Department of Computer Science, MMDAgent Project Team."
)
_TEMPLATES = Path(__file__).parent / "templates"


def card(material: Material, versions: Mapping[str, Any], vllm: str | None) -> str:
    """README.md of the bundle. `vllm`: why there is no adapter for multi-LoRA servers, None if there is one."""
    config = material.config
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=False,  # noqa: S701 - Markdown, for reading
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("card.md.j2").render(
        title=config.speaker or material.layout.recipe.name,
        speaker=material.speaker,
        config=config,
        versions=versions,
        family=families.get(config.model),
        selection=material.selection,
        chosen={
            module: next(one for one in entry["candidates"] if one["checkpoint"] == entry["chosen"])
            for module, entry in material.selection.items()
        },
        clips=material.clips,
        minutes=material.minutes,
        full=material.full,
        adapters=list(material.adapters),
        vllm=vllm,
    )


def licence(config: Config, versions: Mapping[str, Any]) -> str:
    """Which terms hold for which part; the recordings' own come from the config."""
    learned = f"{_SYNTHETIC}\n" if versions["base"]["weights"] == shipped.WHAT else ""
    return (
        f"Recordings, and the voice that was learnt from them: {config.licence}\n"
        f"Consent: {config.consent}\n\n"
        "The weights are a derivative of the base model that versions.json names; its licence holds too\n"
        "(CosyVoice's models and code: Apache License 2.0, https://www.apache.org/licenses/LICENSE-2.0).\n"
        f"{learned}"
    )
