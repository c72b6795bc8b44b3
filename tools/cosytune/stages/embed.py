"""Stage 1: the clips of data/all -> utt2embedding.pt and spk2embedding.pt, in upstream's format.

python -m cosytune.stages.embed egs/demo/exp/default/config.yaml
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from cosytune import base, families, files, kaldi
from cosytune.features import onnx, speech
from cosytune.stages.runner import Context, need, run_stage


def work(context: Context) -> None:
    """Embed every clip; a speaker's embedding is the mean over his or her clips."""
    features, layout = context.config.features, context.layout
    utterances = kaldi.read(layout.data_all).utterances
    session = onnx.open_session(_model(context), features.provider, threads=1)
    embed = partial(speech.speaker_embedding, session)
    embeddings = speech.for_each(utterances, embed, "embed", features.threads)
    files.write_torch(layout.data_all / "utt2embedding.pt", embeddings)
    files.write_torch(layout.data_all / "spk2embedding.pt", speech.speaker_means(embeddings, utterances))
    print(f"{len(embeddings)} clips embedded, none dropped")


def inputs(context: Context) -> Iterable[Path]:
    data = need(context.layout.data_all / "wav.scp", "prepare").parent
    return [data / "wav.scp", data / "utt2spk", *sorted((data / "wav").iterdir()), _model(context)]


def outputs(context: Context) -> Iterable[Path]:
    return [context.layout.data_all / name for name in ("utt2embedding.pt", "spk2embedding.pt")]


def _model(context: Context) -> Path:
    family = families.get(context.config.model)
    return base.file(context.config, family.speaker_encoder)


if __name__ == "__main__":
    run_stage("embed", work, inputs, outputs)
