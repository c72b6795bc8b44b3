"""The demo's finished run -> voices that went wrong on purpose, heard by the judges that heard the tuned one.

Each is trained as stage 4 trains, on what stage 3 packed, assembled as stage 7 assembles, and says some of the very
sentences, with the very seed, that the tuned voice said for the ablation: the figures can be compared take by take.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from cosytune import base, families, files
from cosytune import config as configs
from cosytune.features import cache
from cosytune.features.cache import Clip, FeatureCache
from cosytune.layout import MODULES, Layout
from cosytune.schema import Config, Module
from cosytune.training import adapters, checkpoint, job, trainer
from cosytune.voice import ablation, assemble, bundle, intervals, judges
from cosytune.voice.ablation import Heard
from cosytune.voice.bundle import Voice
from cosytune.voice.intervals import Figure
from cosytune.voice.judges import Judges


@dataclass(frozen=True)
class Tuned:
    """A recipe after stage 7. `takes`: what everyone said for the ablation, by the names of `ablation.WHO`."""

    config: Config
    layout: Layout
    voice: Voice
    panel: Judges
    scores: Mapping[str, Any]
    takes: Mapping[str, list[Heard]]

    @property
    def seed(self) -> int:
        """The first with which the ablation's sentences were said."""
        return int(self.scores["ablation"]["seeds"][0])

    def sentences(self, count: int) -> list[str]:
        """Some that no training has seen, all with kana. The first are those of the players."""
        found = dict.fromkeys(one.sentence for one in self.takes["tuned"] if one.scores.get("kana_units"))
        return list(found)[:count]

    def said(self, who: str, sentences: Sequence[str]) -> list[Heard]:
        """What somebody of the ablation said of the sentences, with `seed`, in their order."""
        takes = {one.sentence: one for one in self.takes[who] if one.seed == self.seed}
        return [takes[sentence] for sentence in sentences]

    def row(self, who: str) -> Mapping[str, Mapping[str, float]]:
        """The figures of the ablation's table."""
        rows: list[dict[str, Any]] = self.scores["ablation"]["rows"]
        return next(row["figures"] for row in rows if row["who"] == who)


def read(layout: Layout) -> Tuned:
    """What stages 3 to 7 left of it."""
    config, _ = configs.load(layout.config)
    scores = files.read_json(layout.report / "scores.json")
    takes = {
        who: [Heard(one["sentence"], one["seed"], one) for one in said]
        for who, said in scores["ablation"]["takes"].items()
    }
    return Tuned(config, layout, bundle.read(layout.voice), judges.open_judges(config, layout), scores, takes)


def train(tuned: Tuned, name: Module, directory: Path, features: FeatureCache, **settings: Any) -> Path:
    """An adapter on other features, for exactly `max_steps` updates of `settings`; the last one, not the best.

    `settings` are those of train.llm or train.flow, over the recipe's own.
    """
    once = {"eval_strategy": "steps", "eval_steps": settings["max_steps"], "report_to": []}
    changed = {"train": {"audio_samples": False, name: once | settings}}
    config = configs.parse(configs.merge([tuned.config.model_dump(), changed]), "a control")
    trainer.train(replace(job.make(config, tuned.layout, name), directory=directory, train=features))
    return checkpoint.find(directory)[-1].path


def untrained(tuned: Tuned, name: Module, directory: Path) -> Path:
    """The adapter that stage 4 begins with."""
    fresh = job.make(tuned.config, tuned.layout, name)
    for file_name, content in adapters.contents(fresh.model).items():
        files.write_bytes(directory / file_name, content)
    return directory


def shuffled(layout: Layout, path: Path) -> FeatureCache:
    """The training clips, each with the text of another."""
    clips = _clips(layout)
    others = [clips[(number + len(clips) // 2) % len(clips)] for number in range(len(clips))]
    assert all(clip.text != other.text for clip, other in zip(clips, others, strict=True))
    return _written(
        path,
        [
            replace(clip, text=other.text, text_token=other.text_token)
            for clip, other in zip(clips, others, strict=True)
        ],
    )


def few(layout: Layout, path: Path, count: int | None = None) -> FeatureCache:
    """The first training clips alone, or all of them."""
    return _written(path, _clips(layout)[:count])


def _clips(layout: Layout) -> list[Clip]:
    features = cache.open(job.features(layout)[0])
    return [features[index] for index in range(len(features))]


def _written(path: Path, clips: Iterable[Clip]) -> FeatureCache:
    cache.write(path, map(vars, clips))
    return cache.open(path)


def say(tuned: Tuned, changed: Mapping[str, Path], directory: Path, sentences: Sequence[str]) -> list[Heard]:
    """The sentences by the tuned voice with other adapters in some of its modules, heard as in the ablation."""
    voice, out = _voice(tuned.voice, changed, directory / "voice"), directory / "model"
    base_dir = assemble.find_base(tuned.voice, base.locate(tuned.config))
    assemble.fill(voice, base_dir, out)
    family, speaker = families.get(tuned.config.model), voice.default_speaker
    return ablation.say(out, family, tuned.panel, sentences, speaker, tuned.config.language, [tuned.seed], "control")


def _voice(voice: Voice, changed: Mapping[str, Path], root: Path) -> Voice:
    """What `assemble.fill` reads of a bundle."""
    (root / "adapters").mkdir(parents=True)
    shutil.copyfile(voice.root / "spk2info.pt", root / "spk2info.pt")
    for module in MODULES:
        if module in changed:
            assemble.link(changed[module], root / "adapters" / module)
        elif (weights := voice.weights(module)) is not None:
            assemble.link(weights, root / weights.name)
    return replace(voice, root=root)


def figure(takes: Sequence[Heard], key: str) -> Figure:
    """A score over all takes, with its interval over the sentences."""
    found = intervals.figure(_sums(takes, key))
    assert found is not None, f"nobody measured {key}"
    return found


def difference(takes: Sequence[Heard], others: Sequence[Heard], key: str) -> Figure:
    """How much higher a score is than over the others' takes of the same sentences, which are drawn together."""
    assert [one.sentence for one in takes] == [one.sentence for one in others]
    sums = [_sums(side, key) for side in (takes, others)]
    draws = np.random.default_rng(1986).integers(0, len(sums[0]), (intervals.RESAMPLES, len(sums[0])))
    here, there = ((drawn := side[draws].sum(axis=1))[:, 0] / drawn[:, 1] for side in sums)
    low, high = np.percentile(here - there, (2.5, 97.5))
    return Figure(figure(takes, key).value - figure(others, key).value, float(low), float(high))


def _sums(takes: Sequence[Heard], key: str) -> intervals.Sums:
    return intervals.sums(((one.sentence, one.scores) for one in takes), key)


def shown(key: str, found: Figure | Mapping[str, float]) -> str:
    """A figure and its interval, as the report writes them."""
    value, span = ablation.show(key, vars(found) if isinstance(found, Figure) else found)
    return f"{value} ({span})" if span else value


class Page(HTMLParser):
    """The report: labels of the players by passage, and the cells of the ablation's table by row."""

    def __init__(self) -> None:
        super().__init__()
        self.players: list[list[str]] = []
        self.rows: list[list[str]] = []
        self._in_table = self._in_cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag == "article":
            self.players.append([])
        elif tag == "audio":
            self.players[-1].append(named["aria-label"] or "")
        elif tag == "table":
            self._in_table = named.get("id") == "ablation-table"
        elif tag == "tr" and self._in_table:
            self.rows.append([])
        elif tag in ("th", "td") and self._in_table:
            self._in_cell = True
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_table &= tag != "table"
        self._in_cell &= tag not in ("th", "td")

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.rows[-1][-1] += data


def page(layout: Layout) -> Page:
    parsed = Page()
    parsed.feed((layout.report / "index.html").read_text(encoding="utf-8"))
    return parsed
