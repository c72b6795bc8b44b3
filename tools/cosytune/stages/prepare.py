"""Stage 0: recordings and transcripts in audio/ -> data/all: clips at one rate and loudness, a Kaldi data directory.

    python -m cosytune.stages.prepare egs/demo/exp/default/config.yaml

reads   audio/ (any mix of the forms that cosytune.audio.sources knows), data/all/text as the user corrected it,
        data/decisions.json as the review page leaves it
        data/shards/{hear,clips}/ as a killed run leaves it, see cosytune.shards
writes  data/all/wav/<utt>.wav, wav.scp text utt2spk spk2utt utt2dur utt2recording text.original, and report.json;
        data/quarantine.tsv and data/quarantine/<utt>.wav: what is not used, and why. input = kept + dropped
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cosytune import decisions, kaldi
from cosytune.audio import sox
from cosytune.audio.folder import Folder, scan
from cosytune.audio.made import ensure_audio
from cosytune.audio.sources import Found, find_sources
from cosytune.corpus import store, texts, verdicts
from cosytune.corpus.balance import Balance
from cosytune.corpus.clips import make_all
from cosytune.corpus.crew import Crew
from cosytune.corpus.hearing import Ears
from cosytune.corpus.making import OnThisMachine
from cosytune.corpus.takes import probe_all, take_all
from cosytune.errors import UserError
from cosytune.layout import Layout
from cosytune.parallel import Workers
from cosytune.shards import cutting
from cosytune.stages.runner import Context, run_stage

_STEPS = ("hear", "clips")
_SHOWN = 10  # of many mistakes of one kind; the rest are counted


def main(context: Context) -> None:
    config, layout = context.config, context.layout
    sox.require_programs()
    said = decisions.load(layout)
    folder = scan(layout.audio)
    found = _find(context, folder)
    ears, deaf = Ears.find(found.sources, config, layout)
    if context.again:
        cutting.forget(layout, *_STEPS)
    with store.working_directory(layout) as work, Workers(config.audio.nj) as workers:
        probed, unreadable = probe_all(found.sources, workers)
        _stop_at(_all_problems(folder, found) + deaf + unreadable)
        crew = _crew(context, [found.duration_s for _, found in probed], work, workers)
        takes, silent, broken = take_all(probed, crew)
        _stop_at(broken)
        drafts, uncut = ears.draft_all(takes)
        clips = make_all(drafts, crew)
        crew.forget_tracks()
        before = store.former_report(layout)
        lines = texts.settle(drafts, layout.data_all / "text", before, said, config.language)
        none = [*silent, *uncut]
        judged = verdicts.decide(clips, lines.lines, said, config.audio, {drop.source.utt for drop in none})
        kept = [one.clip.draft.utt for one in judged if one.is_kept]
        lines = lines.after(kept, drafts, said)
        balance = Balance(found, takes, judged, none, lines, said, ears.names)
        store.write_quarantine(layout, balance)
        store.write_data(layout, balance)
    cutting.forget(layout, *_STEPS)
    _show(context, balance)


def _crew(context: Context, seconds: Sequence[float], directory: Path, workers: Workers) -> Crew:
    """`seconds`: of each recording. `directory`: for what this machine makes on the way."""
    config = context.config
    if not cutting.is_wanted(config.shards, seconds):
        return OnThisMachine(directory, config.audio, workers)
    from cosytune.shards.crew import InShards

    return InShards(config, context.layout, workers)


def inputs(context: Context) -> list[Path]:
    """Everything below audio/, made first where the recipe makes its own, audio elsewhere that a list names, and what
    the user decided.
    """
    layout = context.layout
    ensure_audio(layout)
    folder = scan(layout.audio)
    found = _find(context, folder)
    decided = [path for path in [decisions.path(layout)] if path.is_file()]
    return sorted({*folder.files, *(source.audio for source in found.sources), *decided})


def outputs(context: Context) -> list[Path]:
    """All but `text`, which the user may correct by hand: that makes later stages stale, not this one."""
    directory = context.layout.data_all
    wavs = [one.wav for one in kaldi.read(directory).utterances]
    names = (*kaldi.FILES, kaldi.RECORDINGS, "text.original", "report.json")
    return [*(directory / name for name in names if name != "text"), context.layout.quarantine_table, *wavs]


def _find(context: Context, folder: Folder) -> Found:
    config = context.config
    return find_sources(folder, config.speaker or context.layout.recipe.name, config.audio.speakers, config.language)


def _all_problems(folder: Folder, found: Found) -> list[str]:
    problems = _shorten(found.problems)
    if not found.sources and not problems:
        problems.append(
            f"{folder.root}: no audio; put recordings there (wav, mp3, flac, m4a, ogg), with their transcripts if "
            "there are any: X.txt beside X.wav"
        )
    return problems


def _shorten(problems: Sequence[str]) -> list[str]:
    """At most `_SHOWN` problems that end with the same remedy, and how many there are more."""
    seen: Counter[str] = Counter()
    shown = []
    for problem in problems:
        kind = problem.rsplit("; ", 1)[-1]
        seen[kind] += 1
        if seen[kind] <= _SHOWN:
            shown.append(problem)
    return shown + [f"... and {count - _SHOWN} more: {kind}" for kind, count in seen.items() if count > _SHOWN]


def _stop_at(problems: Sequence[str]) -> None:
    if problems:
        raise UserError(*problems)


def _show(context: Context, balance: Balance) -> None:
    layout = context.layout
    notes = (*verdicts.unheeded(context.config.audio.keep, balance.verdicts), *verdicts.two_voices(balance.verdicts))
    for line in (*balance.lines(), *notes):
        print(line)
    if balance.quarantined or balance.drops:
        print(f"why: {layout.quarantine_table}; by ear: python -m cosytune.review {layout.shown}")
    if not balance.kept:
        raise UserError(f"{layout.audio}: no clip is left; {_remedy(layout, balance)}")


def _remedy(layout: Layout, balance: Balance) -> str:
    if balance.quarantined and all(one.reasons[0].reason == "no_transcript" for one in balance.quarantined):
        return f"none has a text yet: type them in the review page, python -m cosytune.review {layout.shown}"
    return (
        "the table above says why, and which setting decides it. To bring one back: python -m cosytune.review "
        f"{layout.shown}, another value of that setting, or audio.keep=[id]"
    )


if __name__ == "__main__":
    run_stage("prepare", main, inputs, outputs)
