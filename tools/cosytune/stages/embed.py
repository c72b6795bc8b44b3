"""Stage 1: the clips of data/all -> utt2embedding.pt and spk2embedding.pt, in upstream's format.

python -m cosytune.stages.embed egs/demo/exp/default/config.yaml

data/features/ keeps each clip's embedding by the clip's content, and the decoded sound for stage 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cosytune import base, families, files, kaldi
from cosytune.shards import cutting
from cosytune.stages.runner import Context, need, run_stage

if TYPE_CHECKING:
    from cosytune.features.extract import Clip, Outcome


def work(context: Context) -> None:
    """Embed every clip; a speaker's embedding is the mean over his or her clips."""
    from cosytune.features import extract, speech, store

    data = context.layout.data_all
    utterances = kaldi.read(data).utterances
    maker = store.maker(context.config, _name(context))
    known = store.Store(context.layout.features / "embeddings.txt", maker, context.again)
    embeddings = extract.extract(utterances, known, lambda clips: _compute(context, clips), "embedded")
    files.write_torch(data / "utt2embedding.pt", embeddings)
    files.write_torch(data / "spk2embedding.pt", speech.speaker_means(embeddings, utterances))


def _compute(context: Context, clips: Sequence[Clip]) -> Iterable[Outcome]:
    here = partial(_embed, context)
    return cutting.compute("embed", context.config, context.layout, clips, here, context.again)


def _embed(context: Context, clips: Sequence[Clip]) -> Iterator[Outcome]:
    from cosytune.features import extract, onnx, sound, speech

    features = context.config.features
    session = onnx.open_session(base.file(context.config, _name(context)), features.provider, threads=1)
    archive = context.layout.features / sound.ARCHIVE
    with extract.threads(features.threads) as pool, sound.writing(archive) as sounds:

        def embed(clip: Clip) -> list[float]:
            heard = extract.heard(clip, lambda clip: sounds.put(clip.digest, clip.path))
            return speech.speaker_embedding(session, heard)

        yield from extract.one_by_one(clips, embed, pool)


def inputs(context: Context) -> Iterable[Path]:
    data = need(context.layout.data_all / "wav.scp", "prepare").parent
    model = need(base.locate(context.config) / _name(context), "setup")
    return [data / "wav.scp", data / "utt2spk", *sorted((data / "wav").iterdir()), model]


def outputs(context: Context) -> Iterable[Path]:
    return [context.layout.data_all / name for name in ("utt2embedding.pt", "spk2embedding.pt")]


def _name(context: Context) -> str:
    return families.get(context.config.model).speaker_encoder


if __name__ == "__main__":
    run_stage("embed", work, inputs, outputs)
