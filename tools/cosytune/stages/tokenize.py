"""Stage 2: the clips of data/all -> utt2speech_token.pt, in upstream's format.

python -m cosytune.stages.tokenize egs/demo/exp/default/config.yaml
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from cosytune import base, families, files, kaldi
from cosytune.features import onnx, speech
from cosytune.stages.runner import Context, need, run_stage


def work(context: Context) -> None:
    """Tokenize every clip."""
    features, layout = context.config.features, context.layout
    utterances = kaldi.read(layout.data_all).utterances
    session = onnx.open_session(_model(context), features.provider, threads=1)
    tokens = speech.for_each(utterances, partial(speech.speech_tokens, session), "tokenize", features.threads)
    files.write_torch(layout.data_all / "utt2speech_token.pt", tokens)
    empty = sum(not ids for ids in tokens.values())
    print(f"{len(tokens)} clips: {sum(map(len, tokens.values()))} speech tokens; {empty} clips got none")


def inputs(context: Context) -> Iterable[Path]:
    data = need(context.layout.data_all / "wav.scp", "prepare").parent
    return [data / "wav.scp", *sorted((data / "wav").iterdir()), _model(context)]


def outputs(context: Context) -> Iterable[Path]:
    return [context.layout.data_all / "utt2speech_token.pt"]


def _model(context: Context) -> Path:
    family = families.get(context.config.model)
    return base.file(context.config, family.speech_tokenizer)


if __name__ == "__main__":
    run_stage("tokenize", work, inputs, outputs)
