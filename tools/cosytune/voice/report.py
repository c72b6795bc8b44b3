"""A recipe's results -> report/index.html: one file with everything in it, readable with no network.

    python -m cosytune.stages.evaluate egs/demo/exp/default/config.yaml      # stage 7 writes it

Reads: report.json of data/all and parquet, history.jsonl, selection.json, versions.json of the voice, scores.json and
audio of this report. Two runs with one seed on one machine give the same file.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import yaml
from markupsafe import Markup
from numpy.typing import NDArray

from cosytune import files
from cosytune.layout import Layout
from cosytune.schema import Config
from cosytune.voice import ablation, choice, origin, plots, report_data, scoring

_TEMPLATES = Path(__file__).parent / "templates"
_MODULES = {"llm": "Language model (what is said, and when)", "flow": "Flow (how it sounds)"}
_WHO = {"real": "Real recording", "base": "Untuned base", "tuned": "Tuned voice"}
_KINDS = {
    "test": "Test clip {}",
    "cv": "Cross-validation clip {} (the corpus is too small for test clips; the checkpoint was chosen by this set)",
    "sentence": "A sentence that was never recorded",
}
_DASH = "–"
Mel = NDArray[np.float32]


@dataclass(frozen=True)
class Results:
    """What stage 7 measured: `scores` as in scores.json, the mel of every audio file by its path in `scores`."""

    scores: Mapping[str, Any]
    mels: Mapping[str, Mel]
    frames_per_s: float


def write(config: Config, layout: Layout, results: Results) -> Path:
    """Write report/index.html and return its path."""
    page = _page(config, layout, results)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    style = Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8"))  # noqa: S704 - a file of our own
    path = layout.report / "index.html"
    files.write_text(path, environment.get_template("report.html.j2").render(page=page, style=style) + "\n")
    return path


def _page(config: Config, layout: Layout, results: Results) -> dict[str, Any]:
    versions = files.read_json(layout.voice / "versions.json")
    selection = files.read_json(layout.selection)["modules"]
    prepared = files.read_json(layout.data_all / "report.json")
    packed = files.read_json(layout.parquet / "report.json")
    minutes = sum(clip["duration_s"] for clip in prepared["clips"]) / 60
    return {
        "speaker": config.speaker or layout.recipe.name,
        "language": config.language,
        "lead": f"{prepared['kept']} clips, {minutes:.1f} minutes, tuned on {versions['base']['name']} "
        f"({versions['family']}), experiment '{layout.exp}', seed {config.seed}.",
        "random_weights": versions["base"]["random_weights"],
        "weights": versions["base"].get("weights"),  # voices of before had none
        "sections": [
            *(("glance", "At a glance"), ("listen", "Listen")),
            *([("ablation", "Ablation")] if "ablation" in results.scores else []),
            *(("scores", "Scores"), ("training", "Training"), ("data", "Data"), ("identity", "This run")),
        ],
        "tiles": _tiles(prepared, packed, selection, results.scores["summary"]),
        "passages": _passages(layout, results),
        "ablation": _ablation(results.scores["ablation"]) if "ablation" in results.scores else None,
        "scores": _score_rows(results.scores["summary"]),
        "without_kana": results.scores.get("without_kana", 0),
        "modules": [_module(layout, name, selection[name]) for name in selection],
        "data": report_data.section(prepared, packed, config.audio.loudness_lufs),
        "identity": _identity(config, layout, versions),
        "config": yaml.safe_dump(versions["config"], allow_unicode=True, sort_keys=False),
        "base_files": sorted(versions["base"]["files"].items()),
        "licence": config.licence,
        "consent": config.consent,
    }


def _tiles(
    prepared: Mapping[str, Any], packed: Mapping[str, Any], selection: Mapping[str, Any], summary: Mapping[str, Any]
) -> list[dict[str, str]]:
    tiles = [
        {
            "label": "Clips trained on",
            "value": str(packed["sets"]["train"]),
            "note": f"of {prepared['input']} found; {packed['sets']['cv']} for cv, {packed['sets']['test']} for this "
            f"report, {prepared['input'] - packed['kept']} dropped",
        }
    ]
    for module, chosen in selection.items():
        tuned = _chosen(chosen)["cv_loss"]
        change = 100 * (tuned - chosen["untuned_cv_loss"]) / chosen["untuned_cv_loss"]
        tiles.append(
            {
                "label": f"cv loss, {'language model' if module == 'llm' else module}",
                "value": f"{tuned:.3f}",
                "note": f"{change:+.1f} % against {chosen['untuned_cv_loss']:.3f} untuned".replace("-", "−"),
            }
        )
    judged = [key for key, metric in scoring.METRICS.items() if metric.judged and key in summary["tuned"]]
    for key in judged or ("speaker_similarity", "duration_ratio"):
        others = {who: value for who in ("base", "real") if (value := summary.get(who, {}).get(key)) is not None}
        beside = ", ".join(f"{_WHO[who].lower()} {scoring.METRICS[key].show(value)}" for who, value in others.items())
        value = scoring.METRICS[key].show(summary["tuned"].get(key))
        tiles.append({"label": scoring.METRICS[key].label, "value": value, "note": beside})
    return tiles


def _passages(layout: Layout, results: Results) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = []
    low, high = _limits(results.mels.values())
    for passage in results.scores["passages"]:
        takes = passage["takes"]
        longest_s = max(take["duration_s"] for take in takes.values())
        shown.append(
            {
                "kind": _KINDS[passage["origin"]].format(passage["utt"]),
                "text": passage["text"],
                "language": passage["language"],
                "takes": [
                    {
                        "who": who,
                        "title": _WHO[who],
                        "length": f"{take['duration_s']:.1f} s",
                        "audio": _data_uri(layout.report / take["audio"]),
                        "mel": _svg(
                            plots.mel(
                                f"mel-{len(shown)}-{who}",
                                results.mels[take["audio"]],
                                results.frames_per_s,
                                longest_s,
                                (low, high),
                            )
                        ),
                        "scores": [
                            (metric.short, metric.show(take[key]))
                            for key, metric in scoring.METRICS.items()
                            if take.get(key) is not None
                        ],
                        "heard": take.get("kana_heard"),
                    }
                    for who, take in takes.items()
                ],
            }
        )
    return shown


def _score_rows(summary: Mapping[str, Mapping[str, float | None]]) -> list[dict[str, Any]]:
    return [
        {
            "label": metric.label,
            "meaning": metric.meaning,
            "shown": [metric.show(summary.get(who, {}).get(key)) for who in _WHO],
        }
        for key, metric in scoring.METRICS.items()
        if any(key in found for found in summary.values())
    ]


def _ablation(found: Mapping[str, Any]) -> dict[str, Any]:
    keys = ablation.columns(found["rows"])
    return {
        "sentences": ablation.count(found["sentences"], "sentence"),
        "seeds": ablation.count(len(found["seeds"]), "seed"),
        "real_clips": ablation.count(found["real_clips"], "recording"),
        "without_kana": found["without_kana"],
        "has_share": ablation.SHARE in keys,
        "heads": [ablation.HEADS[key] for key in keys],
        "rows": [
            {
                "who": row["who"],
                "label": ablation.WHO[row["who"]],
                "cells": [ablation.show(key, row["figures"].get(key)) for key in keys],
            }
            for row in found["rows"]
        ],
    }


def _module(layout: Layout, module: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    history = choice.read_history(layout.module(module) / "history.jsonl")
    train, cv = (
        [
            (float(entry["update"]), float(entry["loss"]))
            for entry in history
            if entry["kind"] == kind and entry["loss"] is not None
        ]
        for kind in ("train", "cv")
    )
    best = _chosen(chosen)
    return {
        "title": _MODULES[module],
        "description": f"Loss by update: training from {train[0][1]:.3f} to {train[-1][1]:.3f}, cross-validation from "
        f"{cv[0][1]:.3f} to {cv[-1][1]:.3f}; {chosen['chosen']} is chosen"
        if train and cv
        else "Loss by update",
        "losses": _svg(plots.losses(module, train, cv, best["update"])),
        "why": chosen["why"][0].upper() + chosen["why"][1:] + ".",
        "untuned": f"{chosen['untuned_cv_loss']:.4f}",
        "candidates": [
            {
                "name": candidate["checkpoint"],
                "chosen": candidate is best,
                "epoch": f"{candidate['epoch']:g}",
                "train_loss": _loss(candidate["train_loss"]),
                "cv_loss": _loss(candidate["cv_loss"]),
            }
            for candidate in chosen["candidates"]
        ],
    }


def _chosen(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(one for one in entry["candidates"] if one["checkpoint"] == entry["chosen"])
    return found


def _identity(config: Config, layout: Layout, versions: Mapping[str, Any]) -> list[tuple[str, str]]:
    recipe, upstream = versions["recipe"], versions["upstream"]
    return [
        ("Recipe's commit", recipe["commit"] + (" with uncommitted changes" if recipe["changed"] else "")),
        ("Upstream's commit", upstream["commit"]),
        ("requirements.lock, sha256", versions["lock_sha256"]),
        ("Base model", versions["base"]["name"]),
        ("Seed", str(config.seed)),
        ("Experiment", layout.exp),
        ("Voice bundle, sha256 of its manifest", files.sha256(layout.voice / "manifest.json")),
        ("Text normaliser", versions["text"]["normalizer"]),
        ("Script", versions["text"].get("script", "written")),
        ("Libraries", ", ".join(f"{name} {version}" for name, version in versions["libraries"].items())),
        ("Machine of this report", origin.machine()),
    ]


def _loss(value: float | None) -> str:
    return _DASH if value is None else f"{value:.4f}"


def _limits(mels: Any) -> tuple[float, float]:
    """One colour scale for the whole page, without the rare extremes that would wash it out."""
    values = np.concatenate([mel.ravel() for mel in mels])
    low, high = np.percentile(values, (2, 99.8))
    return float(low), float(high)


def _data_uri(wav: Path) -> str:
    """The sound as FLAC: lossless, half the size, and every current browser plays it."""
    import soundfile

    samples, rate_hz = soundfile.read(wav, dtype="int16")
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate_hz, format="FLAC", subtype="PCM_16")
    return "data:audio/flac;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _svg(text: str) -> Markup:
    """SVG of our own making, safe to put in as it is."""
    return Markup(text)  # noqa: S704
