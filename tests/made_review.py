"""A recipe as stage 0 leaves it for review: real speech by Open JTalk, kept clips and quarantine, written by hand."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cosytune import files, kaldi
from cosytune.layout import Layout

RATE_HZ = 24000
KEPT = {
    "r-001": "こんにちは、今日はいい天気ですね。",
    "r-002": "次の電車は何時に出ますか。",
    "r-003": "会議は十月二十五日の午後三時から始まります。",
}
QUARANTINED: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "r-004": ("雑音が多い録音です。", [{"reason": "low_snr", "value": 8.24, "threshold": 12.0}]),
    "r-005": (
        "",
        [
            {"reason": "no_transcript", "value": None, "threshold": None},
            {"reason": "clipped", "value": 0.021, "threshold": 0.0015},
        ],
    ),
    "r-006": (
        "これは<b>別の</b>人の声です。",
        [
            {"reason": "other_voice", "value": 0.412, "threshold": 0.7},
            {"reason": "transcript_mismatch", "value": 0.55, "threshold": 0.4},
        ],
    ),
}
SILENT = "r-007"  # no wav
NOTHING = "audio/空.wav"  # no clip could be cut from it


def speak(path: Path, text: str, seconds: float | None = None) -> float:
    """Write 24 kHz mono 16-bit speech, cut to `seconds`; return its length in seconds."""
    import pyopenjtalk
    from scipy.signal import resample_poly

    samples, rate_hz = pyopenjtalk.tts(text)
    assert rate_hz == 2 * RATE_HZ
    pcm = np.clip(resample_poly(samples, 1, 2), -32768, 32767).astype("<i2")
    pcm = pcm if seconds is None else pcm[: round(seconds * RATE_HZ)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(RATE_HZ)
        writer.writeframes(pcm.tobytes())
    return len(pcm) / RATE_HZ


def make(recipe: Path) -> Layout:
    """conf.yaml, data/all and data/quarantine of a Japanese recipe with 3 kept clips and 5 in quarantine."""
    layout = Layout(recipe)
    files.write_text(layout.conf, "language: ja\n")
    durations = {utt: speak(layout.data_all / "wav" / f"{utt}.wav", text) for utt, text in KEPT.items()}
    kaldi.write(
        layout.data_all,
        [
            kaldi.Utterance(utt, "r", layout.data_all / "wav" / f"{utt}.wav", text, durations[utt])
            for utt, text in KEPT.items()
        ],
    )
    drops = []
    for utt, (text, reasons) in QUARANTINED.items():
        wav = recipe / "data" / "quarantine" / f"{utt}.wav"
        drops.append(entry(utt, text, speak(wav, text or "書き起こしがありません。")) | {"reasons": reasons})
    silence = [{"reason": "no_speech", "value": None, "threshold": None}]
    drops.append(entry(SILENT, "無音。", 3.2) | {"reasons": silence})
    nothing = {"utt": None, "source": NOTHING, "speaker": "r", "recording": "r-空", "start_s": 0.0, "end_s": 1.5}
    drops.append(nothing | {"duration_s": 1.5, "reasons": [silence[0] | {"reason": "silent", "meaning": "all zeros"}]})
    clips = [entry(utt, text, durations[utt]) for utt, text in KEPT.items()]
    clips[2] |= {
        "written": "会議は10月25日の午後3時から始まります。",
        "asr_text": "会議は十月二十五日午後三時に始まります。",
        "cer": 0.105,
    }
    write_report(layout, clips, drops)
    return layout


def entry(utt: str, text: str, duration_s: float) -> dict[str, Any]:
    """A clip of report.json, a piece of a long recording."""
    start_s = 10.0 * int(utt[-3:])
    return {
        "utt": utt,
        "source": source(utt),
        "speaker": "r",
        "recording": "録音 1",
        "start_s": start_s,
        "end_s": round(start_s + duration_s, 3),
        "duration_s": round(duration_s, 3),
        "text": text,
        "source_text": text,
        "written": text,
        "language": "ja",
        "asr_text": None,
        "cer": None,
        "quality": {
            "duration_s": round(duration_s, 3),
            "peak_dbfs": -3.2,
            "clipped_share": 0.0,
            "loudness_lufs": -24.61,
            "snr_db": 20.0 + int(utt[-1]),
            "silence_share": 0.184,
            "bandwidth_hz": 11325.0,
            "dc_offset": 0.0001,
            "start_level_db": -31.5,
            "end_level_db": -28.0,
        },
    }


def source(utt: str) -> str:
    """What names the clip for ever."""
    return f"audio/録音 1.wav@{utt[-3:]}0.00-{utt[-3:]}5.00"


def write_report(
    layout: Layout, clips: list[dict[str, Any]], drops: list[dict[str, Any]], set_aside: Sequence[dict[str, str]] = ()
) -> None:
    balance = {"input": len(clips) + len(drops), "kept": len(clips), "dropped": {}}
    files.write_json(
        layout.data_all / "report.json",
        {**balance, "clips": clips, "drops": drops, "set_aside_corrections": list(set_aside)},
    )
