"""Stage 3: data/all -> disjoint data/{train,cv,test}, parquet/ for upstream, and the features that training reads.

python -m cosytune.stages.pack egs/demo/exp/default/config.yaml
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosytune import base, families, files, kaldi
from cosytune.errors import UserError
from cosytune.features import cache, parquet, split
from cosytune.kaldi import Utterance
from cosytune.layout import SPLITS
from cosytune.progress import track
from cosytune.stages.runner import Context, need, run_stage


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
    sets = split.assign(
        {utterance.utt: files.sha256(utterance.wav) for utterance in kept}, context.config.split, context.config.seed
    )
    rows = _row_maker(context, clips)
    for name in SPLITS:
        utterances = [clips.utterances[utt] for utt in sets[name]]
        _write_set(
            context, name, utterances, clips, track(map(rows, utterances), f"pack {name}", len(utterances), "clip")
        )
    _report(context, clips, drops, sets)


def _read(context: Context) -> Clips:
    from cosytune.upstream import bridge

    data = context.layout.data_all
    utterances = kaldi.read(data).utterances
    tokenizer = bridge.load_tokenizer(base.locate(context.config), families.get(context.config.model))
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
            drops[utt] = "no speech tokens (longer than 30 s)"
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


def _report(context: Context, clips: Clips, drops: dict[str, str], sets: dict[str, list[str]]) -> None:
    interleaved = _interleavable(context, clips, sets)
    report = {
        "input": len(clips.utterances),
        "kept": len(clips.utterances) - len(drops),
        "dropped": _counts(drops),
        "drops": [{"utt": utt, "reason": reason} for utt, reason in drops.items()],
        "sets": {name: len(utts) for name, utts in sets.items()},
        "interleavable": interleaved,
    }
    files.write_json(context.layout.parquet / "report.json", report)
    print(
        f"{report['input']} clips = {' + '.join(f'{len(sets[name])} {name}' for name in SPLITS)}"
        + "".join(f" + {count} dropped ({reason})" for reason, count in _counts(drops).items())
        + f"; {interleaved} have more than {_mix_ratio(context):g} speech tokens per text token"
    )


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
    names = ("wav.scp", "text", "utt2spk", "utt2embedding.pt", "spk2embedding.pt", "utt2speech_token.pt")
    tokenizer = base.locate(context.config) / families.get(context.config.model).text_tokenizer
    return [*(data / name for name in names), *sorted((data / "wav").iterdir()), *sorted(tokenizer.glob("*.json"))]


def outputs(context: Context) -> Iterable[Path]:
    for name in SPLITS:
        yield from (path for path in context.layout.data(name).iterdir() if path.is_file())
        yield from (context.layout.parquet / name).iterdir()
    yield context.layout.parquet / "report.json"


if __name__ == "__main__":
    run_stage("pack", work, inputs, outputs)
