"""Stage 3: data/all -> disjoint data/{train,cv,test}, parquet/ for upstream, and the features that training reads.

python -m cosytune.stages.pack egs/demo/exp/default/config.yaml
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cosytune import base, families, files, kaldi
from cosytune.base import manifest
from cosytune.errors import UserError
from cosytune.features import cache, parquet, split
from cosytune.kaldi import Utterance
from cosytune.layout import SPLITS
from cosytune.progress import track
from cosytune.stages.runner import Context, need, run_stage
from cosytune.text import normalize

_OPTIONAL = ("utt2recording", "report.json")
"""Stage 0 writes them; a data directory that others made may have none."""


@dataclass(frozen=True)
class Clips:
    """What stages 0 to 2 know of the clips, and the text tokens, which are made here."""

    utterances: dict[str, Utterance]
    embeddings: dict[str, list[float]]
    speaker_embeddings: dict[str, list[float]]
    speech_tokens: dict[str, list[int]]
    text_tokens: dict[str, list[int]]


def work(context: Context) -> None:
    """Drop, with a reason, what cannot be trained on; split the rest; write each set."""
    clips = _read(context)
    drops = _drops(clips)
    kept = [utterance for utt, utterance in clips.utterances.items() if utt not in drops]
    if not kept:
        raise UserError(f"{context.layout.data_all}: every clip was dropped: {_counts(drops)}")
    seed = context.config.split.seed if context.config.split.seed is not None else context.config.seed
    division = split.assign(_places(context, kept), context.config.split, seed)
    sets = division.sets
    rows = _row_maker(context, clips)
    for name in SPLITS:
        utterances = [clips.utterances[utt] for utt in sets[name]]
        _write_set(
            context, name, utterances, clips, track(map(rows, utterances), f"pack {name}", len(utterances), "clip")
        )
    _report(context, clips, drops, sets, _taken(clips, division, seed))


def _places(context: Context, kept: Iterable[Utterance]) -> list[split.Clip]:
    """Where each clip lies in its take, as stage 0 wrote it down; a directory that others made has no such report."""
    report = context.layout.data_all / "report.json"
    known = files.read_json(report).get("clips", []) if report.is_file() else []
    starts = {one["utt"]: one.get("start_s") or 0.0 for one in known}
    return [
        split.Clip(one.utt, files.sha256(one.wav), one.recording or one.utt, starts.get(one.utt, 0.0)) for one in kept
    ]


def _taken(clips: Clips, division: split.Split, seed: int) -> dict[str, Any]:
    """How the sets were made: for the report, and for the reader who asks if a set knows another's room."""
    counts = {
        name: {
            "recordings": len({clips.utterances[utt].recording or utt for utt in utts}),
            "clips": len(utts),
        }
        for name, utts in division.sets.items()
    }
    return {"by": division.by, "seed": seed, **counts}


def _read(context: Context) -> Clips:
    from cosytune.upstream import bridge

    data = context.layout.data_all
    family, language = families.get(context.config.model), context.config.language
    # What the user typed into data/all/text after stage 0 is said as everything else is, in the script of the model.
    script = manifest.script(base.locate(context.config), family, language)
    utterances = [replace(one, text=normalize(one.text, language, script)) for one in kaldi.read(data).utterances]
    tokenizer = bridge.load_tokenizer(base.locate(context.config), family)
    embeddings = files.read_torch(data / "utt2embedding.pt")
    tokens = files.read_torch(data / "utt2speech_token.pt")
    for utterance in utterances:
        if utterance.utt not in embeddings or utterance.utt not in tokens:
            raise UserError(f"{data}: '{utterance.utt}' has no embedding or no tokens; run --stage 1 --stop_stage 3")
    return Clips(
        utterances={utterance.utt: utterance for utterance in utterances},
        embeddings=embeddings,
        speaker_embeddings=files.read_torch(data / "spk2embedding.pt"),
        speech_tokens=tokens,
        text_tokens={utterance.utt: tokenizer.encode(utterance.text) for utterance in utterances},
    )


def _drops(clips: Clips) -> dict[str, str]:
    """`{utt: reason}` of the clips that neither trainer can use."""
    drops = {}
    for utt in clips.utterances:
        if not clips.speech_tokens[utt]:
            drops[utt] = "no speech tokens"
        elif not clips.text_tokens[utt]:
            drops[utt] = "no text tokens"
    return drops


def _write_set(
    context: Context, name: str, utterances: list[Utterance], clips: Clips, rows: Iterable[Mapping[str, Any]]
) -> None:
    directory = context.layout.parquet / name
    kaldi.write(context.layout.data(name), utterances)
    parquet.write(directory, utterances, clips.embeddings, clips.speaker_embeddings, clips.speech_tokens)
    cache.write(directory / "features.arrow", rows)


def _row_maker(context: Context, clips: Clips) -> Callable[[Utterance], Mapping[str, Any]]:
    """One clip -> its row of features.arrow."""
    import soundfile
    import torch

    from cosytune.upstream import bridge

    family = families.get(context.config.model)
    extract_mel = bridge.mel_extractor(family)

    def row(utterance: Utterance) -> Mapping[str, Any]:
        samples, _ = soundfile.read(utterance.wav, dtype="float32")
        mel = extract_mel(torch.from_numpy(samples))
        tokens = clips.speech_tokens[utterance.utt]
        # Upstream's compute_fbank: what is left over of the longer one would be heard as noise at the end.
        length = min(len(tokens), mel.shape[0] // family.token_mel_ratio)
        return {
            "utt": utterance.utt,
            "spk": utterance.speaker,
            "text": utterance.text,
            "text_token": clips.text_tokens[utterance.utt],
            "speech_token": tokens[:length],
            "mel": mel[: family.token_mel_ratio * length].numpy(),
            "spk_embedding": clips.speaker_embeddings[utterance.speaker],
        }

    return row


def _report(
    context: Context, clips: Clips, drops: dict[str, str], sets: dict[str, list[str]], division: dict[str, Any]
) -> None:
    interleaved = _interleavable(context, clips, sets)
    report = {
        "input": len(clips.utterances),
        "kept": len(clips.utterances) - len(drops),
        "dropped": _counts(drops),
        "drops": [{"utt": utt, "reason": reason} for utt, reason in drops.items()],
        "sets": {name: len(utts) for name, utts in sets.items()},
        "split": division,
        "interleavable": interleaved,
    }
    files.write_json(context.layout.parquet / "report.json", report)
    print(
        f"{report['input']} clips = {' + '.join(f'{len(sets[name])} {name}' for name in SPLITS)}"
        + "".join(f" + {count} dropped ({reason})" for reason, count in _counts(drops).items())
        + f"; {interleaved} have more than {_mix_ratio(context):g} speech tokens per text token"
    )
    recordings = ", ".join(f"{name} {division[name]['recordings']}" for name in SPLITS)
    print(f"sets made by {division['by']}, seed {division['seed']}; recordings: {recordings}")


def _interleavable(context: Context, clips: Clips, sets: dict[str, list[str]]) -> int:
    ratio = _mix_ratio(context)
    kept = [utt for utts in sets.values() for utt in utts]
    return sum(len(clips.speech_tokens[utt]) > ratio * len(clips.text_tokens[utt]) for utt in kept)


def _mix_ratio(context: Context) -> float:
    """Speech tokens per text token above which upstream interleaves a clip for streaming."""
    text, speech = families.get(context.config.model).mix_ratio
    return speech / text


def _counts(drops: Mapping[str, str]) -> dict[str, int]:
    return dict(Counter(drops.values()))


def inputs(context: Context) -> Iterable[Path]:
    data = context.layout.data_all
    need(data / "wav.scp", "prepare")
    need(data / "utt2embedding.pt", "embed")
    need(data / "utt2speech_token.pt", "tokenize")
    names = (
        "wav.scp",
        "text",
        "utt2spk",
        "utt2recording",
        "report.json",
        "utt2embedding.pt",
        "spk2embedding.pt",
        "utt2speech_token.pt",
    )
    tokenizer = base.locate(context.config) / families.get(context.config.model).text_tokenizer
    there = (data / name for name in names if name not in _OPTIONAL or (data / name).is_file())
    return [*there, *sorted((data / "wav").iterdir()), *sorted(tokenizer.glob("*.json"))]


def outputs(context: Context) -> Iterable[Path]:
    for name in SPLITS:
        yield from (path for path in context.layout.data(name).iterdir() if path.is_file())
        yield from (context.layout.parquet / name).iterdir()
    yield context.layout.parquet / "report.json"


if __name__ == "__main__":
    run_stage("pack", work, inputs, outputs)
