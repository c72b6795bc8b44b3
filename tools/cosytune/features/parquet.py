"""Clips with embeddings and tokens -> the parquet files and data.list that upstream's own trainer reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cosytune import files
from cosytune.kaldi import Utterance

_CLIPS_PER_FILE = 1000

SCHEMA = pa.schema(
    [
        ("utt", pa.string()),
        ("wav", pa.string()),
        ("audio_data", pa.binary()),
        ("text", pa.string()),
        ("spk", pa.string()),
        ("utt_embedding", pa.list_(pa.float64())),
        ("spk_embedding", pa.list_(pa.float64())),
        ("speech_token", pa.list_(pa.int64())),
    ]
)
"""The columns of upstream's tools/make_parquet_list.py at 6e01309, in their order."""


def write(
    directory: Path,
    utterances: Sequence[Utterance],
    embeddings: Mapping[str, list[float]],
    speaker_embeddings: Mapping[str, list[float]],
    tokens: Mapping[str, list[int]],
) -> list[Path]:
    """Write `parquet_NNNNNNNNN.tar` (upstream's name for its parquet files) and `data.list`; return them all."""
    written = []
    for start in range(0, len(utterances), _CLIPS_PER_FILE):
        part = utterances[start : start + _CLIPS_PER_FILE]
        columns = {
            "utt": [utterance.utt for utterance in part],
            "wav": [utterance.wav.name for utterance in part],
            "audio_data": [utterance.wav.read_bytes() for utterance in part],
            "text": [utterance.text for utterance in part],
            "spk": [utterance.speaker for utterance in part],
            "utt_embedding": [embeddings[utterance.utt] for utterance in part],
            "spk_embedding": [speaker_embeddings[utterance.speaker] for utterance in part],
            "speech_token": [tokens[utterance.utt] for utterance in part],
        }
        path = directory / f"parquet_{start // _CLIPS_PER_FILE:09d}.tar"
        with files.atomic_path(path) as temporary:
            pq.write_table(pa.table(columns, schema=SCHEMA), temporary)
        written.append(path)
    listing = directory / "data.list"
    files.write_text(listing, "".join(f"{path}\n" for path in written))
    for path in set(directory.glob("parquet_*.tar")) - set(written):
        path.unlink()  # of a former, larger set
    return [*written, listing]
