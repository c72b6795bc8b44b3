"""A tuned voice -> what its LLM and its flow have learned, each alone and together, by figures with intervals.

Stage 7 does it with evaluate.ablation=true: the same sentences with the same seeds, spoken by the base, by the tuned
LLM with the base's flow, by the base's LLM with the tuned flow, and by both; the real clips that training never saw
are the goal.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosytune import base, families, kaldi
from cosytune.families import Family
from cosytune.kaldi import Utterance
from cosytune.layout import MODULES, Layout
from cosytune.progress import track
from cosytune.schema import Config
from cosytune.voice import assemble, intervals, judges, scoring, synthesis
from cosytune.voice.bundle import Voice
from cosytune.voice.judges import Judges
from cosytune.voice.sentences import MORE, SENTENCES

WHO = {
    "real": "Real recordings",
    "base": "Untuned base",
    "llm_only": "Tuned LLM, base's flow",
    "flow_only": "Base's LLM, tuned flow",
    "tuned": "Tuned voice",
}
MIXTURES: Mapping[str, tuple[str, ...]] = {"base": (), "llm_only": ("llm",), "flow_only": ("flow",), "tuned": MODULES}
"""Which modules of each are the voice's own."""
_METRICS = ("kana_error_rate", "voice_similarity", "speaker_similarity", "ran_on")
SHARE = "share_of_the_way"
_SHARE_OF = "voice_similarity"
_MOST_CLIPS = 50
"""Real clips that are heard: as many as it takes for an interval."""
HEADS = {**{key: scoring.METRICS[key].label for key in _METRICS}, SHARE: "Share of the way"}


@dataclass(frozen=True)
class Heard:
    """One take: what was to be said, with which seed (None: a recording), and its scores as `Judges.score` has them."""

    sentence: str
    seed: int | None
    scores: Mapping[str, Any]


def run(
    config: Config, voice: Voice, panel: Judges, wanted: Sequence[str], clips: Sequence[Utterance]
) -> dict[str, Any]:
    """Let everyone say the sentences and measure it: the `ablation` of scores.json."""
    seeds = [(config.seed + number) % 2**32 for number in range(config.evaluate.ablation_seeds)]
    family, base_dir = families.get(config.model), assemble.find_base(voice, base.locate(config))
    heard = {"real": hear(panel, clips)}
    for who in speakers(voice):
        with tempfile.TemporaryDirectory(prefix="cosytune-ablation-") as temporary:
            model_dir = Path(temporary) / "model"
            assemble.fill(voice, base_dir, model_dir, MIXTURES[who])
            speaker = voice.default_speaker
            heard[who] = say(model_dir, family, panel, wanted, speaker, config.language, seeds, f"ablation ({who})")
        gc.collect()  # one model in memory at a time
    return summary(heard, seeds, panel)


def speakers(voice: Voice) -> list[str]:
    """The two halves say something of their own where both modules were tuned."""
    tuned = [module for module in MODULES if voice.weights(module) or voice.adapter(module)]
    return [who for who, modules in MIXTURES.items() if len(tuned) == len(MODULES) or len(modules) != 1]


def sentences(config: Config, layout: Layout, voice: Voice, spoken: Iterable[str]) -> list[str]:
    """What the players say, then more of the language's list, none of which is among the texts of the training."""
    trained = {clip.text for clip in kaldi.read(layout.data("train")).utterances}
    first = list(dict.fromkeys(spoken))
    listed = [*SENTENCES[config.language], *MORE.get(config.language, ())]
    more = [one for one in listed if one not in trained and one not in first]
    return [*first, *more[: config.evaluate.ablation_sentences]]


def real_clips(layout: Layout, voice: Voice) -> list[Utterance]:
    """The default speaker's clips of test, then of cv: no weight was trained on either."""
    found = [clip for split in ("test", "cv") for clip in kaldi.read(layout.data(split)).utterances]
    return [clip for clip in found if clip.speaker == voice.default_speaker][:_MOST_CLIPS]


def hear(panel: Judges, clips: Iterable[Utterance]) -> list[Heard]:
    """The real clips as they are; two clips of one text are two sentences."""
    return [Heard(clip.utt, None, panel.score(clip.wav, clip.text, clip.speaker)) for clip in clips]


def say(
    model_dir: Path,
    family: Family,
    panel: Judges,
    wanted: Sequence[str],
    speaker: str,
    language: str,
    seeds: Sequence[int],
    label: str,
) -> list[Heard]:
    """Every sentence with every seed by the assembled model, heard as the players would be: 16 bit, from a file."""
    reader = synthesis.Speaker(model_dir, family)
    turns = [(sentence, seed) for sentence in wanted for seed in seeds]
    found = []
    with tempfile.TemporaryDirectory(prefix="cosytune-ablation-") as temporary:
        path = Path(temporary) / "said.wav"
        for sentence, seed in track(turns, label, unit="take"):
            said = reader.say(sentence, speaker, language, seed)
            synthesis.write_wav(path, said.samples, said.rate_hz)
            scores = panel.score(path, sentence, speaker) | {"ran_on": len(said.cut) / len(said.sentences)}
            found.append(Heard(sentence, seed, scores))
    return found


def summary(heard: Mapping[str, Sequence[Heard]], seeds: Sequence[int], panel: Judges) -> dict[str, Any]:
    """All takes and the table of them, as scores.json has it."""
    wanted = list(dict.fromkeys(one.sentence for one in heard["base"]))
    return {
        "seeds": list(seeds),
        "sentences": len(wanted),
        "real_clips": len(heard["real"]),
        "without_kana": sum(not judges.kana_of(one) for one in wanted) if panel.kana else 0,
        "rows": table(heard),
        "takes": {
            who: [{"sentence": one.sentence, "seed": one.seed, **one.scores} for one in takes]
            for who, takes in heard.items()
        },
    }


def table(heard: Mapping[str, Sequence[Heard]]) -> list[dict[str, Any]]:
    """A row for everyone who was heard: `figures`, by metric, and the share of the way from the base to the real."""
    totals = {
        who: {key: intervals.sums(((one.sentence, one.scores) for one in takes), key) for key in _METRICS}
        for who, takes in heard.items()
    }
    rows = []
    for who in (one for one in WHO if heard.get(one)):
        found = {key: intervals.figure(totals[who][key]) for key in _METRICS}
        if who not in ("real", "base"):
            ends = (totals[end][_SHARE_OF] for end in ("base", "real"))
            found[SHARE] = intervals.share_of_the_way(totals[who][_SHARE_OF], *ends)
        figures = {key: intervals.as_json(one) for key, one in found.items() if one is not None}
        rows.append({"who": who, "takes": len(heard[who]), "figures": figures})
    return rows


def columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The figures that somebody has, in the order in which they are shown."""
    return [key for key in (*_METRICS[:2], SHARE, *_METRICS[2:]) if any(key in row["figures"] for row in rows)]


def show(key: str, found: Mapping[str, float] | None) -> tuple[str, str]:
    """A figure as scores.json has it -> itself and its interval, as they are read; the latter may be empty."""
    if found is None:
        return scoring.METRICS["ran_on"].show(None), ""
    value, low, high = (found[part] for part in ("value", "low", "high"))
    form = scoring.METRICS["ran_on"] if key == SHARE else scoring.METRICS[key]
    return form.show(value), "" if low is None else f"{form.show(low)} to {form.show(high)}"


def text_table(ablation: Mapping[str, Any]) -> str:
    """The `ablation` of scores.json -> lines for the screen, aligned."""
    keys = columns(ablation["rows"])
    lines = [["", *(HEADS[key] for key in keys)]]
    for row in ablation["rows"]:
        shown = (show(key, row["figures"].get(key)) for key in keys)
        lines.append([WHO[row["who"]], *(f"{value} ({span})" if span else value for value, span in shown)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    body = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)
    return "\n".join([caption(ablation), *body])


def caption(ablation: Mapping[str, Any]) -> str:
    """What the figures rest on."""
    seeds, without = len(ablation["seeds"]), ablation["without_kana"]
    left_out = f"; {without} without kana, left out of the kana error rate" if without else ""
    return (
        f"ablation: {count(ablation['sentences'], 'sentence')} x {count(seeds, 'seed')}, "
        f"{count(ablation['real_clips'], 'real clip')}, 95 % intervals over the sentences{left_out}"
    )


def count(number: int, what: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{number} {what}{'' if number == 1 else 's'}"
