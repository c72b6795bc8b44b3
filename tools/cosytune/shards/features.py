"""Stages 1 and 2: clips -> embeddings, clips -> tokens; a value for each clip, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from cosytune import base, families, files
from cosytune.errors import UserError
from cosytune.features import extract, onnx, sound, speech, store, tokens
from cosytune.features.extract import Clip, Outcome
from cosytune.kaldi import Utterance
from cosytune.layout import Layout
from cosytune.schema import Config
from cosytune.shards import launch
from cosytune.shards.step import Item, Shard, Step, Value, name_of, no_files, path_of


def item(layout: Layout, clip: Clip) -> Item:
    one = clip.utterance
    value = {"utt": one.utt, "wav": name_of(layout, clip.path), "sha256": clip.digest, "duration_s": one.duration_s}
    return Item(one.duration_s, value)


def compute(step: Step, config: Config, layout: Layout, clips: Sequence[Clip]) -> Iterator[Outcome]:
    """What the shards say of the clips; they have run when this returns."""
    shards = launch.run(step, config, layout, [item(layout, clip) for clip in clips])
    return outcomes(clips, (shard.table for shard in shards))


def outcomes(clips: Sequence[Clip], tables: Iterable[pa.Table]) -> Iterator[Outcome]:
    """The rows of all shards, in order -> what `extract` wants to know of the clips."""
    rows = (row for table in tables for row in table.to_pylist())
    for clip, row in zip(clips, rows, strict=True):
        assert row["sha256"] == clip.digest, f"{clip.path}: another clip's row"
        yield clip, row["value"] if row["failure"] is None else row["failure"]


def _embed(shard: Shard, clips: Sequence[Clip]) -> Iterator[Outcome]:
    provider = shard.config.features.provider
    session = onnx.open_session(base.file(shard.config, _encoder(shard.config)), provider, threads=1)

    def embed(clip: Clip) -> list[float]:
        return speech.speaker_embedding(session, extract.heard(clip, _hear))

    with extract.threads(shard.threads) as pool:
        yield from extract.one_by_one(clips, embed, pool)


def _tokenize(shard: Shard, clips: Sequence[Clip]) -> Iterator[Outcome]:
    model = base.file(shard.config, _tokenizer(shard.config))
    with extract.threads(shard.threads) as pool:
        yield from tokens.tokenize(model, shard.config.features.provider, _hear, clips, pool)


def _hear(clip: Clip) -> Any:
    return sound.read_16k(clip.path)


def _rows(compute: Callable[[Shard, Sequence[Clip]], Iterator[Outcome]], shard: Shard) -> Iterator[Value]:
    """In the order of the items, whatever the order in which the model answers."""
    clips = [_clip(shard.layout, value) for value in shard.items]
    found = {clip.digest: value for clip, value in compute(shard, clips)}
    for clip in clips:
        value = found[clip.digest]
        failed = isinstance(value, str)
        utt = clip.utterance.utt
        yield {
            "utt": utt,
            "sha256": clip.digest,
            "value": None if failed else value,
            "failure": value if failed else None,
        }


def _clip(layout: Layout, value: Value) -> Clip:
    """Raises a UserError when the file is not what the plan, and so the fingerprint, says."""
    wav = path_of(layout, value["wav"])
    if not wav.is_file() or files.sha256(wav) != value["sha256"]:
        raise UserError(f"{wav}: not as it was when the shards were planned; run the stage again, which plans anew")
    return Clip(Utterance(value["utt"], "", wav, "", value["duration_s"]), value["sha256"])


def _encoder(config: Config) -> str:
    return families.get(config.model).speaker_encoder


def _tokenizer(config: Config) -> str:
    return families.get(config.model).speech_tokenizer


def _step(
    name: str,
    value: pa.DataType,
    model: Callable[[Config], str],
    compute: Callable[[Shard, Sequence[Clip]], Iterator[Outcome]],
) -> Step:
    columns = [("utt", pa.string()), ("sha256", pa.string()), ("value", pa.list_(value)), ("failure", pa.string())]
    return Step(
        name=name,
        columns=pa.schema(columns),
        maker=lambda config: {"maker": store.maker(config, model(config))},
        work=lambda shard: _rows(compute, shard),
        cores=lambda config: config.features.threads,
        on_gpu=True,
        files=no_files,
    )


EMBED = _step("embed", pa.float64(), _encoder, _embed)
TOKENIZE = _step("tokenize", pa.int64(), _tokenizer, _tokenize)
