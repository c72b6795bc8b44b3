"""What people put into audio/: for each thing that is wrong a line with a remedy, or a clip in quarantine by name.

Never a traceback, never a command out of a file name, never a second of sound that is not accounted for, and the
user's own files stay as they are.
"""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from cosytune import kaldi
from cosytune.errors import UserError
from cosytune.layout import Layout
from recordings import make_recipe, run_prepare, speech, write_audio, write_clip

Spoil = Callable[[Layout], None]
RATE_HZ = 24000


def clip(name: str = "bad.wav", samples: np.ndarray | None = None, rate_hz: int = RATE_HZ, **options: str) -> Spoil:
    return lambda layout: (
        write_clip(layout.audio / name, "これはテストです。", samples=samples, rate_hz=rate_hz, **options) and None
    )


def raw(name: str, data: bytes, text: str | None = "はい。") -> Spoil:
    def run(layout: Layout) -> None:
        path = layout.audio / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        if text is not None:
            path.with_suffix(".txt").write_text(text, encoding="utf-8")

    return run


def said(data: bytes) -> Spoil:
    """A good clip with these bytes as its transcript."""

    def run(layout: Layout) -> None:
        write_clip(layout.audio / "bad.wav", None)
        (layout.audio / "bad.txt").write_bytes(data)

    return run


def renamed(suffix: str) -> Spoil:
    def run(layout: Layout) -> None:
        write_clip(layout.audio / f"bad{suffix}", samples=speech(2.0, take=5)).rename(layout.audio / "bad.wav")

    return run


def listed(name: str, content: str) -> Spoil:
    return lambda layout: (layout.audio / name).write_text(content, encoding="utf-8") and None


def several(names: Iterable[str], samples: np.ndarray | None = None) -> Spoil:
    def run(layout: Layout) -> None:
        for name in names:
            write_clip(layout.audio / name, samples=samples)

    return run


def stranger(layout: Layout) -> None:
    """A larger head: the same voice, played slower."""
    samples = soxr.resample(speech(4.0, take=9), 16000, RATE_HZ)
    write_clip(layout.audio / "bad.wav", samples=samples)
    several(f"mine/{number}.wav" for number in range(4))(layout)


def link_outside(layout: Layout) -> None:
    (layout.audio / "bad.wav").symlink_to(write_audio(layout.recipe / "elsewhere" / "a.wav"))
    (layout.audio / "bad.txt").write_text("はい。", encoding="utf-8")


def fifo(layout: Layout) -> None:
    os.mkfifo(layout.audio / "bad.wav")


def same_take_as_mp3(layout: Layout) -> None:
    samples = speech(3.0, take=12)
    write_clip(layout.audio / "a.wav", samples=samples)
    write_clip(layout.audio / "bad.mp3", samples=samples * 0.5)


def read_too_much(layout: Layout) -> None:
    """Ten clips at one pace, and one whose text is another one's."""
    for number in range(10):
        write_clip(layout.audio / f"{number}.wav", "きょうはよいてんき", samples=speech(2.0, take=100 + number))
    write_clip(layout.audio / "bad.wav", "きょうはよいてんき" * 12, samples=speech(2.0, take=200))


def with_one(value: float) -> np.ndarray:
    return np.where(np.arange(3 * RATE_HZ) == 99, value, speech(3.0, take=3))


VOICE = speech(3.0, take=3)
NOISE = np.random.default_rng(1).normal(0, 1, len(VOICE))
LONG_SILENCE = np.pad(VOICE, RATE_HZ * 5) + 1e-5 * np.resize(NOISE, 13 * RATE_HZ)
MIDDLE = speech(4.0, take=4)[RATE_HZ:-RATE_HZ]  # somebody speaks from the first sample to the last

# name -> what is done to audio/ beside two good clips, and the error; more in tests/unit/test_prepare_errors.py
ERRORS: dict[str, tuple[Spoil, str]] = {
    "random bytes as mp3": (raw("bad.mp3", np.random.default_rng(3).bytes(9999)), "audio/bad.mp3: "),
    "text as wav": (raw("bad.wav", "これは音声です\n".encode()), "audio/bad.wav: not readable as audio"),
    "infinite samples": (clip(samples=with_one(np.inf), subtype="FLOAT"), "audio/bad.wav: it holds NaN or infinite"),
    "a fifo": (fifo, "audio/bad.wav: not a regular file"),
    "only commands": (said(b"<|endofprompt|>"), "audio/bad.txt: empty transcript"),
    "only laughter": (said(b"[laughter]"), "audio/bad.txt: empty transcript"),
    "jsonl that leads out": (
        listed("l.jsonl", '{"audio": "../../../x.wav", "text": "a"}'),
        "audio/l.jsonl:1: no audio ../../../x.wav",
    ),
    "jsonl with a command": (
        listed("l.jsonl", json.dumps({"audio": "$(touch X).wav; touch X |", "text": "a"})),
        "audio/l.jsonl:1: no audio",
    ),
    "an id to keep that is none": (clip(), "audio.keep: nobody: no such clip"),
}

# name -> what is done, the reason of the quarantine or drop, settings
DROPS: dict[str, tuple[Spoil, str]] = {
    "0.9 s": (clip(samples=speech(0.9, take=6)), "too_short"),
    "30.1 s": (clip(samples=speech(30.1, take=6)), "too_long"),
    "41 s": (clip(samples=speech(41.0, take=6)), "too_long"),
    "digital silence": (clip(samples=np.zeros(RATE_HZ * 3)), "silent"),
    "a constant": (clip(samples=np.full(RATE_HZ * 3, 0.2)), "silent"),
    "noise alone": (clip(samples=NOISE * 0.05), "no_speech"),
    "a tone alone": (clip(samples=0.3 * np.sin(np.arange(len(VOICE)) / 10)), "no_speech"),
    "8 kHz": (clip(samples=soxr.resample(VOICE, RATE_HZ, 8000), rate_hz=8000), "narrow_band"),
    "telephone at 48 kHz": (
        clip(samples=soxr.resample(soxr.resample(VOICE, RATE_HZ, 8000), 8000, 48000), rate_hz=48000),
        "narrow_band",
    ),
    "clipping": (clip(samples=np.clip(VOICE * 12, -0.98, 0.98)), "clipped"),
    "clipping, turned down": (clip(samples=np.clip(VOICE * 12, -0.98, 0.98) * 0.3), "clipped"),
    "offset": (clip(samples=VOICE + 0.2), "dc_offset"),
    "too quiet": (clip(samples=VOICE * 0.004, subtype="PCM_24"), "too_quiet"),
    "noisy": (clip(samples=VOICE + 0.03 * NOISE), "low_snr"),
    "mostly silence": (clip(samples=LONG_SILENCE), "mostly_silence"),
    "cut off in a word": (clip(samples=MIDDLE), "cut_off_end"),
    "another voice": (stranger, "other_voice"),
    "the same audio twice": (several(["good3.wav", "zz bad.wav"], VOICE), "duplicate"),
    "the same take as mp3": (same_take_as_mp3, "near_duplicate"),
    "a text of another clip": (read_too_much, "speaking_rate"),
}  # fmt: skip

# name -> what is done, how many clips are kept besides the two good ones
KEPT: dict[str, tuple[Spoil, int]] = {
    "1.0 s": (clip(samples=speech(1.0, take=6)), 1),
    "29.9 s": (clip(samples=speech(29.9, take=6)), 1),
    "96 kHz": (clip(rate_hz=96000), 1),
    "float": (clip(subtype="FLOAT"), 1),
    "24 bit": (clip(subtype="PCM_24"), 1),
    "8 bit": (clip(subtype="PCM_U8"), 1),
    "beyond full scale": (clip(samples=VOICE * 9, subtype="FLOAT"), 1),
    "one silent channel": (clip(samples=np.stack([VOICE, np.zeros_like(VOICE)], axis=1)), 1),
    "opposite phase": (clip(samples=np.stack([VOICE, -VOICE], axis=1)), 1),
    "six channels": (clip(samples=np.stack([VOICE] * 6, axis=1)), 1),
    "mp3 named wav": (renamed(".mp3"), 1),
    "flac named wav": (renamed(".flac"), 1),
    "one id in two folders": (several(["a/bad.wav", "b/bad.wav", "a-bad.wav"]), 3),
    "link out of the folder": (link_outside, 1),
    "Shift-JIS": (said("日本語のテスト。".encode("cp932")), 1),
    "UTF-16": (said("日本語のテスト。\r\n".encode("utf-16")), 1),
    "tabs and lines": (said("あ\tい\r\nう\u3000え\u200b".encode()), 1),
    "a command to the model": (said("はい<|endofprompt|>そうです [laughter]。".encode()), 1),
    **{
        f"named {name!r}": (several([f"{name}.wav"]), 1)
        for name in ("with space", "quote'\"", "$(touch X)", "`touch X`", "line\nbreak", "-rf", "back\\slash", "pipe |")
    },
    "named in NFD": (several([unicodedata.normalize("NFD", "ガギグ.wav")]), 1),
    "a web of names": (several(["; touch X #.wav", "&& touch X.wav", "%s%n.wav", "*.wav"]), 4),
}


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A recipe with two good clips in it; commands in names would make their X here."""
    monkeypatch.chdir(tmp_path)
    made = make_recipe(tmp_path, "花子's voice")
    for number in (1, 2):
        write_clip(made.audio / f"good{number}.wav", "これはよい録音です。", samples=speech(2.0, take=40 + number))
    return made


def snapshot(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("name", ERRORS)
def test_what_stops_the_stage(layout: Layout, tmp_path: Path, name: str) -> None:
    spoil, words = ERRORS[name]
    spoil(layout)
    before = snapshot(layout.audio)
    settings = ["audio.keep=[nobody]"] if name == "an id to keep that is none" else []
    with pytest.raises(UserError) as mistake:
        run_prepare(layout, *settings)
    assert mistake.value.exit_status == 1
    (message,) = mistake.value.messages
    assert words in message
    assert "\n" not in message
    assert snapshot(layout.audio) == before
    assert not list(tmp_path.rglob("X"))


@pytest.mark.parametrize("name", DROPS)
def test_what_goes_aside_by_name(layout: Layout, name: str) -> None:
    spoil, reason = DROPS[name]
    spoil(layout)
    before = snapshot(layout.audio)
    report = run_prepare(layout)
    (drop,) = report["drops"]
    assert "bad" in drop["source"]
    assert drop["reasons"][0]["reason"] == reason
    table = layout.quarantine_table.read_text(encoding="utf-8").splitlines()
    assert len(table) == 1 + len(drop["reasons"])
    assert kaldi.validate(layout.data_all) == []
    assert snapshot(layout.audio) == before


@pytest.mark.parametrize("name", KEPT)
def test_what_is_strange_and_good(layout: Layout, tmp_path: Path, name: str) -> None:
    spoil, count = KEPT[name]
    spoil(layout)
    before = snapshot(layout.audio)
    report = run_prepare(layout)
    assert report["drops"] == []
    assert report["kept"] == count + 2
    assert kaldi.validate(layout.data_all) == []
    assert len({one.utt for one in kaldi.read(layout.data_all).utterances}) == count + 2
    for one in kaldi.read(layout.data_all).utterances:
        info = soundfile.info(one.wav)
        assert (info.samplerate, info.channels, info.subtype) == (RATE_HZ, 1, "PCM_16")
    assert snapshot(layout.audio) == before
    assert not list(tmp_path.rglob("X"))


@pytest.mark.parametrize("count", [1, 9, 501])
def test_any_number_of_clips(tmp_path: Path, count: int) -> None:
    """25 sayings at most, for speaking takes time, each time in another noise: no two files are the same."""
    layout = make_recipe(tmp_path)
    draw = np.random.default_rng(0)
    for number in range(count):
        said = speech(1.2, take=number % 25)
        write_clip(layout.audio / f"{number}.wav", samples=said + draw.normal(0, 3e-4, len(said)))
    report = run_prepare(layout, "audio.gates.near_duplicate_similarity=null")
    assert report["input"] == count
    assert report["kept"] == count
