"""Stage 7: voice/ -> report/index.html: the tuned voice beside the untuned base and real clips, heard and measured.

python -m cosytune.stages.evaluate egs/demo/exp/default/config.yaml
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cosytune import families, files
from cosytune.errors import UserError
from cosytune.stages.runner import Context, need, run_stage
from cosytune.voice import ablation, audition, bundle, judges, report, scoring


def work(context: Context) -> None:
    """Speak, measure, write scores.json and the page."""
    config, layout = context.config, context.layout
    voice = bundle.read(layout.voice)
    _require_own(context)
    panel = judges.open_judges(config, layout)  # first: a damaged one is told before minutes of speech
    texts = audition.passages(config, layout, voice)
    takes = audition.speak(config, layout, voice, texts)
    scores, mels = audition.measure(config, layout, panel, texts, takes)
    if config.evaluate.ablation:
        own = [one.text for one in texts if one.speaker == voice.default_speaker]
        wanted = ablation.sentences(config, layout, voice, own)
        scores["ablation"] = ablation.run(config, voice, panel, wanted, ablation.real_clips(layout, voice))
    files.write_json(layout.report / "scores.json", scores)
    family = families.get(config.model)
    frames_per_s = family.token_rate_hz * family.token_mel_ratio
    page = report.write(config, layout, report.Results(scores, mels, frames_per_s))
    _print_scores(scores)
    if voice.versions["base"]["random_weights"]:
        print("the base has random weights: the voice is noise-like, the figures only show that every stage works")
    elif weights := voice.versions["base"].get("weights"):
        print(f"the base is {weights}: it shows the recipe at work, not the quality of the real CosyVoice")
    print(f"{page}: {page.stat().st_size / 1e6:.1f} MB, open it in a browser")


def _print_scores(scores: Mapping[str, Any]) -> None:
    summary = scores["summary"]
    for key in summary["tuned"]:
        metric = scoring.METRICS[key]
        print(f"{metric.label}: {', '.join(f'{who} {metric.show(summary[who].get(key))}' for who in audition.WHO)}")
    if scores["without_kana"]:
        print(f"{scores['without_kana']} of the texts have no kana: they are left out of the kana error rate")
    if "ablation" in scores:
        print(ablation.text_table(scores["ablation"]))


def _require_own(context: Context) -> None:
    """voice/ is shared by all experiments: the page must not show one's losses beside the other's speech."""
    layout = context.layout
    exported = files.read_json(layout.voice / "scores.json")["selection"]
    if exported != files.read_json(layout.selection)["modules"]:
        remedy = f"run stage 6 (export) for '{layout.exp}': --stage 6"
        raise UserError(f"{layout.voice}: holds another choice than {layout.selection}; {remedy}")


def inputs(context: Context) -> Iterable[Path]:
    layout = context.layout
    yield need(layout.voice / bundle.MANIFEST, "export")
    yield need(layout.selection, "select")
    yield need(layout.data_all / "report.json", "prepare")
    yield need(layout.data_all / "utt2embedding.pt", "embed")
    yield need(layout.parquet / "report.json", "pack")
    yield from judges.brought(context.config)
    for split in ("train", "cv", "test"):
        yield from (need(layout.data(split) / name, "pack") for name in ("wav.scp", "text", "utt2spk"))
    for module in context.config.train.modules:
        yield need(layout.module(module) / "history.jsonl", "train")


def outputs(context: Context) -> Iterable[Path]:
    report_dir = context.layout.report
    return [report_dir / "index.html", report_dir / "scores.json", *sorted((report_dir / "audio").glob("*.wav"))]


if __name__ == "__main__":
    run_stage("evaluate", work, inputs, outputs)
