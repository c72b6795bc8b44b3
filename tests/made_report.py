"""A recipe as stages 0 to 7 leave it, made in a second from sounds that are computed: for tests of the page alone."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosytune import files
from cosytune.base import shipped
from cosytune.layout import Layout
from cosytune.schema import Config
from cosytune.voice import ablation, report, synthesis
from cosytune.voice.ablation import Heard
from cosytune.voice.judges import Judges

RATE_HZ = 24000
DROPS = [
    {"source": source, "reasons": [{"reason": reason, "value": value, "threshold": threshold}]}
    for source, reason, value, threshold in (
        ("短い <clip>.wav", "too_short", 0.42, 1.0),
        ('壊れた "録音".wav', "silent", None, None),
        ("long/take 1.wav@3.10-34.80", "too_long", 31.7, 30.0),
    )
]
PACK_DROPS = [{"utt": "demo_0099", "reason": "no speech tokens"}]
UNUSED = ["audio/メモ <1>.docx"]
TEXTS = ("会議は十月二十五日の午後三時から始まります。", "<b>次の電車</b>は何時に出ますか。")
SPEAKER = "デモ 'voice' & co"


def make(recipe: Path, judged: bool = False) -> tuple[Config, Layout, report.Results]:
    """The recipe's files below `recipe`, and what stage 7 would have measured.

    `judged`: on a base that was trained, and brings judges, with an ablation.
    """
    base: Any = "tiny" if judged else "random"
    config = Config(base=base, speaker=SPEAKER, consent="録音した本人", licence="CC BY 4.0")
    layout = Layout(recipe)
    _data(layout)
    _training(layout)
    _voice(layout, config)
    results = _results(layout)
    return config, layout, _judged(results) if judged else results


def _data(layout: Layout) -> None:
    draw = np.random.default_rng(7)
    clips = [
        {"utt": f"demo_{n:04d}", "duration_s": float(length), "source_loudness_lufs": float(loudness)}
        for n, (length, loudness) in enumerate(zip(draw.gamma(9, 0.45, 40), draw.normal(-19, 1.7, 40), strict=True))
    ]
    dropped = {drop["reasons"][0]["reason"]: 1 for drop in DROPS}
    files.write_json(
        layout.data_all / "report.json",
        {
            "recordings": 43,
            "input": 43,
            "kept": 40,
            "dropped": dropped,
            "clips": clips,
            "drops": DROPS,
            "unused_files": UNUSED,
        },
    )
    packed = {
        "input": 40,
        "kept": 39,
        "dropped": {PACK_DROPS[0]["reason"]: 1},
        "drops": PACK_DROPS,
        "sets": {"train": 33, "cv": 4, "test": 2},
        "interleavable": 22,
    }
    files.write_json(layout.parquet / "report.json", packed)


def _training(layout: Layout) -> None:
    modules: dict[str, Any] = {}
    for module, start, end in (("llm", 8.9, 4.4), ("flow", 1.6, 1.2)):
        lines: list[dict[str, Any]] = [{"update": 0, "epoch": 0, "kind": "cv", "loss": start}]
        lines.append({"update": 0, "epoch": 0, "kind": "train", "loss": None, "learning_rate": 1e-4})
        draw = np.random.default_rng(3)
        for update in range(1, 61):
            loss = end + (start - end) * np.exp(-update / 18) + draw.normal(0, (start - end) / 40)
            lines.append(
                {"update": update, "epoch": -(-update // 6), "kind": "train", "loss": loss, "learning_rate": 1e-4}
            )
            if update % 6 == 0:
                lines.append(
                    {"update": update, "epoch": -(-update // 6), "kind": "cv", "loss": loss + 0.03 * update / 6}
                )
        files.write_text(layout.module(module) / "history.jsonl", "\n".join(map(json.dumps, lines)) + "\n")
        candidates = [
            {
                "checkpoint": f"checkpoint-{line['update']:06d}",
                "update": line["update"],
                "epoch": line["epoch"],
                "cv_loss": line["loss"],
                "train_loss": line["loss"] - 0.1,
            }
            for line in lines
            if line["kind"] == "cv" and line["update"] > 0
        ]
        in_epoch = {"checkpoint": "checkpoint-000057", "update": 57, "epoch": 10, "cv_loss": None, "train_loss": None}
        modules[module] = {
            "chosen": min(candidates, key=lambda one: one["cv_loss"])["checkpoint"],
            "why": f"lowest cv loss of {len(candidates)} checkpoints",
            "untuned_cv_loss": start,
            "candidates": [*candidates, in_epoch],
        }
    files.write_json(layout.selection, {"modules": modules})


def _voice(layout: Layout, config: Config) -> None:
    versions = {
        "format": 1,
        "speaker": SPEAKER,
        "language": "ja",
        "family": config.model,
        "base": {
            "name": f"CosyVoice2-0.5B-{config.base}",
            "random_weights": config.base == "random",
            "weights": shipped.WHAT if config.base == "tiny" else None,
            "files": {"llm.pt": "ab" * 32},
        },
        "text": {"normalizer": "cosytune-2", "language": "ja"},
        "recipe": {"commit": "0123456789abcdef" * 2, "changed": True},
        "upstream": {"commit": "6e01309e01bc93bbeb83bdd996b1182a81aaf11e"},
        "lock_sha256": "cd" * 32,
        "python": "3.11.2",
        "libraries": {"torch": "2.8.0", "peft": "0.21.2"},
        "config": config.model_dump(mode="json"),
    }
    files.write_json(layout.voice / "versions.json", versions)
    files.write_json(layout.voice / "manifest.json", {"format": 1, "files": {}})


def _results(layout: Layout) -> report.Results:
    passages, mels = [], {}
    for number, text in enumerate(TEXTS):
        takes = {}
        for who in ("real", "base", "tuned") if number == 0 else ("base", "tuned"):
            name = f"audio/{number + 1:02d}-{who}.wav"
            sound = _sound(seconds=1.5 + 0.3 * len(takes), pitch_hz=120.0 + 40 * len(takes), noisy=who == "base")
            synthesis.write_wav(layout.report / name, sound, RATE_HZ)
            mels[name] = _mel(sound)
            takes[who] = {
                "audio": name,
                "duration_s": len(sound) / RATE_HZ,
                "speaker_similarity": 0.9 - 0.1 * len(takes),
                "duration_ratio": 1.1 if number == 0 and who != "real" else None,
                "mel_distance": 0.8 if number == 0 and who != "real" else None,
                "ran_on": None if who == "real" else 0.0,
            }
        origin = "sentence" if number else "test"
        passages.append(
            {"text": text, "language": "ja", "origin": origin, "utt": None if number else "demo_0003", "takes": takes}
        )
    summary = {
        who: {"speaker_similarity": value, "duration_ratio": 1.1, "mel_distance": 0.8, "ran_on": 0.0}
        for who, value in (("tuned", 0.91), ("base", 0.64))
    }
    summary["real"] = {"speaker_similarity": 0.94}
    return report.Results({"summary": summary, "passages": passages}, mels, frames_per_s=50)


def _judged(results: report.Results) -> report.Results:
    """The same with the scores of two judges: an LLM and a flow that each learned a part."""
    heard = {"real": "カイギワジューガツ", "base": "カイイワジューガ", "tuned": "カイギワジューガツ"}
    rates = {"real": 0.0, "base": 1 / 8, "tuned": 0.0}
    voices = {"real": 0.92, "base": 0.41, "tuned": 0.83}
    for passage in results.scores["passages"]:
        for who, take in passage["takes"].items():
            take |= {"kana_error_rate": rates[who], "kana_units": 8, "kana_heard": heard[who]}
            take["voice_similarity"] = voices[who]
    for who, row in results.scores["summary"].items():
        row |= {"kana_error_rate": rates[who], "voice_similarity": voices[who]}
    return dataclasses.replace(results, scores={**results.scores, "ablation": made_ablation(), "without_kana": 1})


def made_ablation(sentences: int = 26) -> dict[str, Any]:
    """The `ablation` of scores.json from drawn scores: what a judge could have said."""
    draw = np.random.default_rng(5)
    seeds = [1986, 1987]
    heard = {
        "real": [
            Heard(f"demo_{number:04d}", None, _drawn(draw, voice=0.92, errors=0.01, similarity=0.93) | {"ran_on": None})
            for number in range(6)
        ]
    }
    for who, voice, errors in (
        ("base", 0.41, 0.07),
        ("llm_only", 0.52, 0.06),
        ("flow_only", 0.71, 0.08),
        ("tuned", 0.83, 0.065),
    ):
        heard[who] = [
            Heard(
                f"{TEXTS[0]} {number}", seed, _drawn(draw, voice, errors, similarity=0.5 + voice / 2) | {"ran_on": 0.0}
            )
            for number in range(sentences)
            for seed in seeds
        ]
    return ablation.summary(heard, seeds, Judges(encoder=None, means={})) | {"without_kana": 1}


def _drawn(draw: np.random.Generator, voice: float, errors: float, similarity: float) -> dict[str, Any]:
    units = int(draw.integers(8, 40))
    return {
        "speaker_similarity": similarity + float(draw.normal(0, 0.02)),
        "voice_similarity": voice + float(draw.normal(0, 0.05)),
        "kana_error_rate": int(draw.binomial(units, errors)) / units,
        "kana_units": units,
    }


def _sound(seconds: float, pitch_hz: float, noisy: bool) -> NDArray[np.float32]:
    """Something with harmonics and syllables, or noise."""
    t = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    syllables = np.clip(np.sin(2 * np.pi * 3.3 * t), 0, 1) ** 0.5
    if noisy:
        return (0.05 * np.random.default_rng(1).normal(size=len(t))).astype(np.float32)
    phase = 2 * np.pi * np.cumsum(pitch_hz * (1 + 0.12 * np.sin(2 * np.pi * 0.9 * t))) / RATE_HZ
    harmonics = sum(np.sin(k * phase) / k for k in range(1, 25))
    return (0.2 * syllables * harmonics).astype(np.float32)


def _mel(sound: NDArray[np.float32]) -> NDArray[np.float32]:
    import librosa

    mel = librosa.feature.melspectrogram(y=sound, sr=RATE_HZ, n_fft=1920, hop_length=480, n_mels=80, power=1.0)
    return np.log(np.maximum(mel, 1e-5)).T.astype(np.float32)
