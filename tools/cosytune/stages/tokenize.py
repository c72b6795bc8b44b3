"""Stage 2: the clips of data/all -> utt2speech_token.pt, in upstream's format.

python -m cosytune.stages.tokenize egs/demo/exp/default/config.yaml

data/features/ keeps each clip's tokens by the clip's content.
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
    """Tokenize every clip."""
    from cosytune.features import extract, sound, store

    data, features = context.layout.data_all, context.layout.features
    utterances = kaldi.read(data).utterances
    known = store.Store(features / "tokens.txt", store.maker(context.config, _name(context)), context.again)
    tokens = extract.extract(utterances, known, lambda clips: _compute(context, clips), "tokenized")
    files.write_torch(data / "utt2speech_token.pt", tokens)
    (features / sound.ARCHIVE).unlink(missing_ok=True)  # as large as the clips, and of no more use
    print(f"{sum(map(len, tokens.values()))} speech tokens")


def _compute(context: Context, clips: Sequence[Clip]) -> Iterable[Outcome]:
    here = partial(_tokenize, context)
    return cutting.compute("tokenize", context.config, context.layout, clips, here, context.again)


def _tokenize(context: Context, clips: Sequence[Clip]) -> Iterator[Outcome]:
    from cosytune.features import extract, sound
    from cosytune.features import tokens as speech_tokens

    features, model = context.config.features, base.file(context.config, _name(context))
    with (
        extract.threads(features.threads) as pool,
        sound.reading(context.layout.features / sound.ARCHIVE) as sounds,
    ):
        yield from speech_tokens.tokenize(
            model, features.provider, lambda clip: sounds.get(clip.digest, clip.path), clips, pool
        )


def inputs(context: Context) -> Iterable[Path]:
    data = need(context.layout.data_all / "wav.scp", "prepare").parent
    model = need(base.locate(context.config) / _name(context), "setup")
    return [data / "wav.scp", *sorted((data / "wav").iterdir()), model]


def outputs(context: Context) -> Iterable[Path]:
    return [context.layout.data_all / "utt2speech_token.pt"]


def _name(context: Context) -> str:
    return families.get(context.config.model).speech_tokenizer


if __name__ == "__main__":
    run_stage("tokenize", work, inputs, outputs)
