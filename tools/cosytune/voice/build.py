"""The chosen checkpoints -> a voice bundle, built beside the former one and put in its place in the end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosytune import families, files, kaldi
from cosytune.audio import ids
from cosytune.errors import UserError
from cosytune.kaldi import Utterance
from cosytune.layout import MODULES, Layout
from cosytune.schema import Config
from cosytune.training.upstream import epochs
from cosytune.voice import bundle, card, origin, weights

_REFERENCE_S = 6.0
"""A prompt of 3 to 10 s is what zero-shot synthesis wants; the training clip nearest to this is shipped."""
_FLAT_NOTE = "one LLM file per speaker: this form cannot carry a tuned flow; speaker_config.json does"


@dataclass(frozen=True)
class Material:
    """What goes into a bundle. `checkpoints`: module -> the chosen one; `references`: speaker -> training clip.

    `clips`, `minutes`: what was trained on.
    """

    config: Config
    layout: Layout
    base_dir: Path
    checkpoints: Mapping[str, Path]
    selection: Mapping[str, Any]
    embeddings: Mapping[str, list[float]]
    references: Mapping[str, Utterance]
    clips: int
    minutes: float

    @property
    def full(self) -> list[str]:
        """The modules of which every weight was tuned: they have no adapter."""
        return [module for module, path in self.checkpoints.items() if epochs.is_full(path)]

    @property
    def adapters(self) -> dict[str, Path]:
        return {module: path for module, path in self.checkpoints.items() if module not in self.full}

    @property
    def speaker(self) -> str:
        """The default speaker of the bundle."""
        wanted = ids.clean(self.config.speaker or self.layout.recipe.name)
        return wanted if wanted in self.embeddings else next(iter(self.embeddings))


def gather(config: Config, layout: Layout, base_dir: Path) -> Material:
    """Read what stages 1, 3 and 5 left; raises UserError when a part of it is missing."""
    selection = files.read_json(layout.selection)["modules"]
    checkpoints = {module: layout.module(module) / entry["chosen"] for module, entry in selection.items()}
    for path in checkpoints.values():
        if not path.is_dir():
            raise UserError(f"{path}: chosen, but gone; run stage 5 (select) again: --stage 5")
        if epochs.is_full(path) and not config.export.merged:
            raise UserError(f"{path}: all weights and no adapter to ship; leave export.merged at true")
    embeddings = files.read_torch(layout.data_all / "spk2embedding.pt")
    trained_on = kaldi.read(layout.data("train"))
    references = {
        speaker: min(clips, key=lambda clip: (abs(clip.duration_s - _REFERENCE_S), clip.utt))
        for speaker, clips in trained_on.speakers.items()
    }
    return Material(
        config=config,
        layout=layout,
        base_dir=base_dir,
        checkpoints=checkpoints,
        selection=selection,
        embeddings=dict(sorted(embeddings.items())),
        references=references,
        clips=len(trained_on.utterances),
        minutes=sum(clip.duration_s for clip in trained_on.utterances) / 60,
    )


def fill(material: Material, root: Path) -> bundle.Check:
    """Write every file of the bundle into the empty directory `root` and seal it."""
    import torch

    config = material.config
    origins = origin.versions(config, material.speaker, material.base_dir)
    _write_adapters(material, root)
    vllm = _write_vllm(material, root, origins["base"]["name"])
    if config.export.merged:
        _write_merged(material, root)
    information = {
        name: {"embedding": torch.tensor([values], dtype=torch.float32)} for name, values in material.embeddings.items()
    }
    files.write_torch(root / "spk2info.pt", information)
    files.write_torch(root / "spk2embedding.pt", dict(material.embeddings))
    for speaker, clip in material.references.items():
        (root / "reference").mkdir(exist_ok=True)
        shutil.copyfile(clip.wav, root / "reference" / f"{speaker}.wav")
    files.write_json(root / "speaker_config.json", _speaker_config(material))
    files.write_json(root / "speakers_config.json", _flat_config(material))
    files.write_json(root / "scores.json", {"selection": material.selection, "vllm": vllm or "adapters/vllm"})
    files.write_json(root / "versions.json", origins)
    files.write_json(root / "consent.json", {"consent": config.consent, "licence": config.licence})
    files.write_text(root / "LICENSE", card.licence(config, origins))
    files.write_text(root / "README.md", card.card(material, origins, vllm))
    return bundle.seal(root)


def _write_adapters(material: Material, root: Path) -> None:
    for module, checkpoint in material.adapters.items():
        directory = root / "adapters" / module
        directory.mkdir(parents=True)
        shutil.copyfile(checkpoint / "adapter_model.safetensors", directory / "adapter_model.safetensors")
        settings = json.loads((checkpoint / "adapter_config.json").read_text(encoding="utf-8"))
        # The base's name, not the path that it had on the machine that trained.
        settings["base_model_name_or_path"] = material.base_dir.name
        files.write_json(directory / "adapter_config.json", settings)


def _write_vllm(material: Material, root: Path, base_name: str) -> str | None:
    """Why there is no adapter for multi-LoRA servers; None if there is one."""
    if "llm" in material.full:
        return "every weight of the LLM was tuned"
    if "llm" not in material.adapters:
        return "the LLM was not trained"
    return weights.write_vllm(material.adapters["llm"], root / "adapters" / "vllm", base_name)


def _write_merged(material: Material, root: Path) -> None:
    """A module that was not trained is the base's own: servers and upstream want both files."""
    family = families.get(material.config.model)
    for module in MODULES:
        destination = root / f"{module}.pt"
        if module in material.full:
            weights.write_full(module, material.base_dir, material.checkpoints[module], destination)
        elif module in material.adapters:
            weights.write_merged(module, material.base_dir, family, material.adapters[module], destination)
        else:
            with files.atomic_path(destination) as temporary:
                shutil.copyfile(material.base_dir / f"{module}.pt", temporary)


def _speaker_config(material: Material) -> dict[str, Any]:
    def path(module: str) -> str | None:
        if material.config.export.merged:
            return f"{module}.pt"
        return f"adapters/{module}" if module in material.adapters else None

    chosen = " + ".join(f"{module} {path.name}" for module, path in material.checkpoints.items())
    how = "; full fine-tune by upstream's trainer" if material.full else ""
    speakers = {
        speaker: {
            "type": "lora",
            "llm_lora_model_path": path("llm"),
            "flow_lora_model_path": path("flow"),
            "spk_embedding_path": "spk2embedding.pt",
            "description": (material.config.description or f"{speaker} ({chosen})") + how,
            "active": True,
            **_reference(material, speaker),
        }
        for speaker in material.embeddings
    }
    return {"speakers": speakers, "default_speaker": material.speaker}


def _reference(material: Material, speaker: str) -> dict[str, str | None]:
    clip = material.references.get(speaker)
    if clip is None:
        return {"reference_audio": None, "prompt_text": None}
    return {"reference_audio": f"reference/{speaker}.wav", "prompt_text": clip.text}


def _flat_config(material: Material) -> dict[str, Any]:
    """The first guide's form; `long_audio` is the same clip, for servers that ask for the key."""
    model = "llm.pt" if material.config.export.merged else "adapters/llm" if "llm" in material.adapters else None
    flat = {}
    for speaker in material.embeddings:
        reference = _reference(material, speaker)
        flat[speaker] = {
            "reference_audio": reference["reference_audio"],
            "long_audio": reference["reference_audio"],
            "prompt_text": reference["prompt_text"],
            "lora_model": model,
            "active": True,
            "note": _FLAT_NOTE,
        }
    return flat
