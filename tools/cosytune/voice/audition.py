"""A voice, its base and the clips that it never heard -> the same texts spoken by both, measured.

What stage 7 does before it writes the page: `speak` fills report/audio, `measure` compares.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cosytune import base, families, files, kaldi
from cosytune.kaldi import Utterance
from cosytune.layout import MODULES, Layout
from cosytune.progress import track
from cosytune.schema import Config
from cosytune.voice import assemble, bundle, judges, scoring, synthesis
from cosytune.voice.bundle import Voice
from cosytune.voice.judges import Judges
from cosytune.voice.scoring import Mel
from cosytune.voice.sentences import SENTENCES

WHO = ("real", "base", "tuned")
"""In the order in which they are heard: what it should be, what it was, what it is."""


@dataclass(frozen=True)
class Passage:
    """A text to speak. `clip`: the real recording of it, from the set `origin`, or None."""

    text: str
    speaker: str
    origin: str
    clip: Utterance | None


@dataclass(frozen=True)
class Take:
    """One WAV file of a passage. `who`: one of `WHO`; `ran_on`: share of its sentences that did not end."""

    passage: int
    who: str
    path: Path
    ran_on: float | None


def passages(config: Config, layout: Layout, voice: Voice) -> list[Passage]:
    """Texts of test clips, then sentences; cv clips stand in for the test clips that a very small corpus lacks."""
    settings = config.evaluate
    origin = "test" if (layout.data("test") / "wav.scp").stat().st_size else "cv"
    clips = kaldi.read(layout.data(origin)).utterances[: settings.max_test_clips]
    sentences = (settings.sentences or SENTENCES[config.language])[: settings.max_sentences]
    return [
        *(Passage(clip.text, clip.speaker, origin, clip) for clip in clips),
        *(Passage(sentence, voice.default_speaker, "sentence", None) for sentence in sentences),
    ]


def speak(config: Config, layout: Layout, voice: Voice, texts: Sequence[Passage]) -> list[Take]:
    """report/audio/<passage>-{real,base,tuned}.wav; both models speak with the same seed and embedding."""
    takes = [_copy(layout, number, one.clip) for number, one in enumerate(texts) if one.clip is not None]
    bundle.require_whole(voice.root)
    base_dir = assemble.find_base(voice, base.locate(config))
    family = families.get(config.model)
    modules = {"base": (), "tuned": MODULES}
    for who, tuned in modules.items():
        with tempfile.TemporaryDirectory(prefix="cosytune-evaluate-") as temporary:
            assemble.fill(voice, base_dir, Path(temporary) / "model", tuned)
            reader = synthesis.Speaker(Path(temporary) / "model", family)
        for number, one in enumerate(track(texts, f"speak ({who})", unit="text")):
            said = reader.say(one.text, one.speaker, config.language, config.seed)
            path = _audio(layout, number, who)
            synthesis.write_wav(path, said.samples, said.rate_hz)
            takes.append(Take(number, who, path, len(said.cut) / len(said.sentences)))
        del reader
        gc.collect()  # one model in memory at a time
    _forget_others(layout, takes)
    return takes


def measure(
    config: Config, layout: Layout, panel: Judges, texts: Sequence[Passage], takes: Iterable[Take]
) -> tuple[dict[str, Any], dict[str, Mel]]:
    """Every score of every take, as scores.json has it, and the mel of every file by its path in there."""
    mels: dict[str, Mel] = {}
    scored: list[dict[str, dict[str, Any]]] = [{} for _ in texts]
    for take in sorted(takes, key=lambda one: (one.passage, WHO.index(one.who))):
        name = take.path.relative_to(layout.report).as_posix()
        mels[name], duration_s = _mel(config, take.path)
        scores: dict[str, Any] = {"audio": name, "duration_s": duration_s}
        scores |= panel.score(take.path, texts[take.passage].text, texts[take.passage].speaker)
        real = scored[take.passage].get("real")
        if real is not None:
            scores["duration_ratio"] = duration_s / real["duration_s"]
            scores["mel_distance"] = scoring.mel_distance(mels[name], mels[real["audio"]])
        scored[take.passage][take.who] = scores | {"ran_on": take.ran_on}
    without_kana = sum(not judges.kana_of(one.text) for one in texts) if panel.kana else 0
    return _scores(config, layout, texts, scored) | {"without_kana": without_kana}, mels


def _scores(
    config: Config, layout: Layout, texts: Sequence[Passage], scored: Sequence[Mapping[str, Mapping[str, Any]]]
) -> dict[str, Any]:
    selection = files.read_json(layout.selection)["modules"]
    summary = {who: scoring.means(takes[who] for takes in scored if who in takes) for who in WHO}
    return {
        "seed": config.seed,
        "metrics": {key: scoring.METRICS[key].meaning for key in summary["tuned"]},
        "cv_loss": {
            module: {
                "untuned": entry["untuned_cv_loss"],
                "tuned": next(one["cv_loss"] for one in entry["candidates"] if one["checkpoint"] == entry["chosen"]),
            }
            for module, entry in selection.items()
        },
        "summary": summary,
        "passages": [
            {
                "text": one.text,
                "language": config.language,
                "speaker": one.speaker,
                "origin": one.origin,
                "utt": one.clip.utt if one.clip else None,
                "takes": takes,
            }
            for one, takes in zip(texts, scored, strict=True)
        ],
    }


def _mel(config: Config, path: Path) -> tuple[Mel, float]:
    """Log-mel float32 [frames, 80] as the flow was trained on, and the seconds of the file."""
    import soundfile
    import torch

    from cosytune.upstream import bridge

    samples, rate_hz = soundfile.read(path, dtype="float32")
    mel = bridge.mel_spectrogram(torch.from_numpy(samples), families.get(config.model)).numpy()
    return mel.astype(np.float32), len(samples) / rate_hz


def _copy(layout: Layout, number: int, clip: Utterance) -> Take:
    path = _audio(layout, number, "real")
    files.write_bytes(path, clip.wav.read_bytes())
    return Take(number, "real", path, None)


def _audio(layout: Layout, number: int, who: str) -> Path:
    """Numbered, not named by the utterance: an id may hold what a file name must not."""
    return layout.report / "audio" / f"{number + 1:02d}-{who}.wav"


def _forget_others(layout: Layout, takes: Iterable[Take]) -> None:
    """Delete what an earlier run of this stage, with more texts, left there."""
    made = {take.path for take in takes}
    for who in WHO:
        for path in (layout.report / "audio").glob(f"[0-9][0-9]-{who}.wav"):
            if path not in made:
                path.unlink()
