"""Stage 0: recordings and transcripts in audio/ -> data/all: clips at one rate and loudness, a Kaldi data directory.

    python -m cosytune.stages.prepare egs/demo/exp/default/config.yaml

reads   audio/ (any mix of the forms that cosytune.audio.sources knows)
writes  data/all/wav/<utt>.wav, wav.scp text utt2spk spk2utt utt2dur, and report.json: input = kept + dropped
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cosytune import files, kaldi
from cosytune.audio.batch import Dropped, Kept, convert_all, probe_all
from cosytune.audio.convert import require_programs
from cosytune.audio.folder import Folder, printable, scan
from cosytune.audio.made import ensure_audio
from cosytune.audio.sources import Found, Source, find_sources
from cosytune.errors import UserError
from cosytune.layout import Layout
from cosytune.schema import AudioConfig, Config
from cosytune.stages.runner import Context, run_stage
from cosytune.text import NORMALIZER
from cosytune.text.corrections import Corrected, Written, keep_corrections, read_former

_SHOWN = 10  # of many mistakes of one kind; the rest are counted


def main(context: Context) -> None:
    config, layout = context.config, context.layout
    require_programs()
    folder = scan(layout.audio)
    found = _find(folder, config, layout)
    probes, unreadable = probe_all(found.sources)
    _stop_at(_all_problems(folder, found, config.audio) + unreadable)
    outcomes, unreadable = convert_all(probes, layout.data_all, config.audio)
    _stop_at(unreadable)
    kept = [one for one in outcomes if isinstance(one, Kept)]
    dropped = [one for one in outcomes if isinstance(one, Dropped)]
    corrected = _corrections(layout, kept, config.language)
    _print_summary(found, kept, dropped, corrected)
    if not kept:
        raise UserError(f"{layout.audio}: no clip is left; the table above says why, and which setting decides it")
    _write(layout, kept, corrected, _report(found, kept, dropped, corrected))


def inputs(context: Context) -> list[Path]:
    """Everything below audio/, made first where the recipe makes its own, and audio elsewhere that a list names."""
    ensure_audio(context.layout)
    folder = scan(context.layout.audio)
    found = _find(folder, context.config, context.layout)
    return sorted({*folder.files, *(source.audio for source in found.sources)})


def outputs(context: Context) -> list[Path]:
    """All but `text`, which the user may correct by hand: that makes later stages stale, not this one."""
    directory = context.layout.data_all
    wavs = [one.wav for one in kaldi.read(directory).utterances]
    return [directory / name for name in (*kaldi.FILES, "report.json") if name != "text"] + wavs


def _find(folder: Folder, config: Config, layout: Layout) -> Found:
    return find_sources(folder, config.speaker or layout.recipe.name, config.audio.speakers, config.language)


def _all_problems(folder: Folder, found: Found, settings: AudioConfig) -> list[str]:
    problems = _shorten(found.problems)
    if not found.sources and not problems:
        problems.append(
            f"{folder.root}: no audio; put recordings there (wav, mp3, flac, m4a, ogg), each with its transcript: "
            "X.txt beside X.wav"
        )
    silent = [printable(source.name) for source in found.sources if source.text is None]
    if silent and not settings.skip_untranscribed:
        more = f" and {len(silent) - _SHOWN} more" if len(silent) > _SHOWN else ""
        problems.append(
            f"{', '.join(silent[:_SHOWN])}{more}: no transcript; put X.txt beside X.wav, or drop such recordings with "
            "audio.skip_untranscribed=true"
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


def _corrections(layout: Layout, kept: Sequence[Kept], language: str) -> Corrected:
    wanted = [Written(one.source.utt, one.source.name, one.source.text or "") for one in kept]
    text = layout.data_all / "text"
    return keep_corrections(read_former(text, _former_report(layout), wanted, language), wanted)


def _former_report(layout: Layout) -> dict[str, Any]:
    path = layout.data_all / "report.json"
    return dict(files.read_json(path)) if path.is_file() else {}


def _write(layout: Layout, kept: Sequence[Kept], corrected: Corrected, report: dict[str, Any]) -> None:
    """The report comes last: until then, the former one knows which clips and lines are not the user's."""
    stale = {clip["utt"] for clip in _former_report(layout).get("clips", [])} - {one.source.utt for one in kept}
    kaldi.write(
        layout.data_all,
        [
            kaldi.Utterance(
                one.source.utt, one.source.speaker, one.wav, corrected.texts[one.source.utt], one.clip.duration_s
            )
            for one in kept
        ],
    )
    for utt in sorted(stale):
        (layout.data_all / "wav" / f"{utt}.wav").unlink(missing_ok=True)
    files.write_json(layout.data_all / "report.json", report)


def _report(found: Found, kept: Sequence[Kept], dropped: Sequence[Dropped], corrected: Corrected) -> dict[str, Any]:
    reasons = Counter(one.reason for one in dropped)
    return {
        "input": len(found.sources),
        "kept": len(kept),
        "dropped": dict(sorted(reasons.items())),
        "normalizer": NORMALIZER,
        "corrected_by_hand": len(corrected.kept),
        "clips": [_clip(one, corrected) for one in sorted(kept, key=lambda one: one.source.utt)],
        "drops": [
            {"source": one.source.name, "reason": one.reason, "value": one.value, "threshold": one.threshold}
            for one in dropped
        ],
        "set_aside_corrections": [vars(one) for one in corrected.set_aside],
        "unused_files": found.unused,
    }


def _clip(one: Kept, corrected: Corrected) -> dict[str, Any]:
    source: Source = one.source
    return {
        "utt": source.utt,
        "source": source.name,
        "speaker": source.speaker,
        "duration_s": round(one.clip.duration_s, 6),
        "loudness_lufs": one.clip.loudness_lufs,
        "source_loudness_lufs": one.clip.source_lufs,
        "gain_db": one.clip.gain_db,
        "true_peak_dbfs": one.clip.true_peak_dbfs,
        "text": corrected.texts[source.utt],
        "source_text": source.text,
    }


def _print_summary(found: Found, kept: Sequence[Kept], dropped: Sequence[Dropped], corrected: Corrected) -> None:
    total_s = sum(one.clip.duration_s for one in kept)
    print(f"  {len(found.sources):6d} recordings")
    print(f"= {len(kept):6d} kept ({total_s / 60:.1f} min)")
    for (reason, meaning), count in sorted(Counter((one.reason, one.meaning) for one in dropped).items()):
        print(f"+ {count:6d} dropped: {reason} ({meaning})")
    if corrected.kept:
        print(f"{len(corrected.kept)} transcript(s) corrected by hand in data/all/text: kept")
    if corrected.overtaken:
        shown = ", ".join(corrected.overtaken[:_SHOWN])
        print(
            f"{len(corrected.overtaken)} of them have a new source transcript, too; the corrected line stays: {shown}"
        )
    if found.unused:
        shown = ", ".join(printable(name) for name in found.unused[:_SHOWN])
        print(f"{len(found.unused)} file(s) are neither audio nor a transcript of any: {shown}")


if __name__ == "__main__":
    run_stage("prepare", main, inputs, outputs)
