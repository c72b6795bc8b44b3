"""The reports of stages 0 and 3 -> the page's section on data: where every recording went, lengths, loudness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from cosytune.voice import plots

_NOTHING = "–"


def section(prepared: Mapping[str, Any], packed: Mapping[str, Any], target_lufs: float) -> dict[str, Any]:
    """What the template shows below "Data"."""
    lengths = [clip["duration_s"] for clip in prepared["clips"]]
    loudness = [clip["source_loudness_lufs"] for clip in prepared["clips"]]
    histograms = (
        _histogram("Clip length", "s", lengths, {}),
        _histogram(
            "Loudness as recorded", "LUFS", [one for one in loudness if one is not None], {"levelled to": target_lufs}
        ),
    )
    stages = (("prepare", prepared), ("pack", packed))
    return {
        "sentence": f"{prepared['recordings']} recordings came in and made {prepared['input']} clips; "
        f"{packed['kept']} were used: "
        f"{packed['sets']['train']} for training, {packed['sets']['cv']} for cross-validation, "
        f"{packed['sets']['test']} for testing. What is not listed as dropped was used.",
        "histograms": [histogram for histogram in histograms if histogram],
        "balance": [_balance(stage, report) for stage, report in stages],
        "drops": [_drop(stage, drop) for stage, report in stages for drop in report["drops"]],
        "unused": prepared["unused_files"],
    }


def _balance(stage: str, report: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "stage": stage,
        "input": report["input"],
        "kept": report["kept"],
        "dropped": "; ".join(f"{count} {_words(reason)}" for reason, count in report["dropped"].items()) or "nothing",
    }


def _drop(stage: str, drop: Mapping[str, Any]) -> dict[str, str]:
    """The first of the reasons is the most telling one."""
    why = drop["reasons"][0] if "reasons" in drop else drop
    return {
        "source": drop.get("source") or drop["utt"],
        "stage": stage,
        "reason": _words(why["reason"]),
        "value": _plain(why.get("value")),
        "threshold": _plain(why.get("threshold")),
    }


def _histogram(title: str, unit: str, values: Sequence[float], marked: Mapping[str, float]) -> dict[str, Any] | None:
    if not values:
        return None
    median = float(np.median(values))
    lines = {
        f"{what} {value:.1f} {unit}".replace("-", "−"): value for what, value in {"median": median, **marked}.items()
    }
    return {
        "title": title,
        "description": f"Histogram of {title.lower()}: {min(values):.1f} to {max(values):.1f} {unit}; "
        + ", ".join(lines),
        "svg": Markup(plots.histogram(unit.lower(), values, unit, lines)),  # noqa: S704 - SVG of our own making
    }


def _words(reason: str) -> str:
    """`too_short`, as stage 0 has it -> `too short`."""
    return reason.replace("_", " ")


def _plain(value: Any) -> str:
    if value is None:
        return _NOTHING
    return f"{value:g}".replace("-", "−") if isinstance(value, (int, float)) else str(value)
