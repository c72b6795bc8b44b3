"""Tokens, mel and speaker embeddings of clips <-> features.arrow, which training maps into memory.

An Arrow IPC file, uncompressed: reading a clip touches its own pages and copies nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc as ipc
from numpy.typing import NDArray

from cosytune import files
from cosytune.errors import UserError

NUM_MELS = 80
SCHEMA = pa.schema(
    [
        ("utt", pa.string()),
        ("spk", pa.string()),
        ("text", pa.string()),
        ("text_token", pa.list_(pa.int32())),
        ("speech_token", pa.list_(pa.int32())),
        ("mel", pa.list_(pa.float32())),
        ("spk_embedding", pa.list_(pa.float32())),
    ]
)
"""One row a clip; `mel` is row-major [2 * len(speech_token), 80], fp32: fp16 would shift the loss by 2.5e-5."""

_CLIPS_PER_BATCH = 64
"""Of a record batch, whose list offsets are 32-bit: 64 clips of 30 s are a hundredth of what they can count."""


@dataclass(frozen=True)
class Clip:
    """The features of one clip, as read-only views of the file.

    text_token: int32 [text tokens]; speech_token: int32 [tokens], 25 a second; mel: float32 [frames, 80], 50 a second;
    spk_embedding: float32 [192], the speaker's mean, not normalised.
    """

    utt: str
    spk: str
    text: str
    text_token: NDArray[np.int32]
    speech_token: NDArray[np.int32]
    mel: NDArray[np.float32]
    spk_embedding: NDArray[np.float32]


@dataclass(frozen=True)
class Length:
    """How long one clip is, in text tokens and in speech tokens."""

    text: int
    speech: int


class FeatureCache:
    """The clips of one features.arrow, in the file's order; `open` makes it."""

    def __init__(self, table: pa.Table) -> None:
        self._batches = table.to_batches()
        self._places = [(batch, row) for batch in self._batches for row in range(batch.num_rows)]
        self.utts: list[str] = table["utt"].to_pylist()
        self.lengths: list[Length] = [
            Length(text=text, speech=speech)
            for text, speech in zip(
                *(_list_lengths(table[name]) for name in ("text_token", "speech_token")), strict=True
            )
        ]

    def __len__(self) -> int:
        return len(self.utts)

    def __getitem__(self, index: int) -> Clip:
        batch, row = self._places[index]
        values = {name: batch.column(name)[row] for name in SCHEMA.names}
        return Clip(
            utt=values["utt"].as_py(),
            spk=values["spk"].as_py(),
            text=values["text"].as_py(),
            text_token=_view(values["text_token"]),
            speech_token=_view(values["speech_token"]),
            mel=_view(values["mel"]).reshape(-1, NUM_MELS),
            spk_embedding=_view(values["spk_embedding"]),
        )


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write features.arrow, atomically; rows have the keys of SCHEMA, `mel` may be an array [frames, 80]."""
    with (
        files.atomic_path(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        ipc.new_file(sink, SCHEMA) as writer,
    ):
        waiting: list[Mapping[str, Any]] = []
        for row in rows:
            waiting.append({**row, "mel": np.asarray(row["mel"], dtype=np.float32).reshape(-1)})
            if len(waiting) == _CLIPS_PER_BATCH:
                writer.write_batch(_batch(waiting))
                waiting = []
        if waiting:
            writer.write_batch(_batch(waiting))


def open(path: Path) -> FeatureCache:
    """Map the file into memory; raises UserError when it is not features.arrow or not whole."""
    try:
        table = ipc.open_file(pa.memory_map(str(path))).read_all()
    except pa.ArrowInvalid as failure:
        reason = str(failure).splitlines()[0]
        raise UserError(f"{path}: not readable ({reason}); run stage 3 (pack) again: --stage 3") from None
    if table.schema != SCHEMA:
        raise UserError(f"{path}: has other columns than this version reads; run stage 3 (pack) again: --stage 3")
    return FeatureCache(table)


def _batch(rows: list[Mapping[str, Any]]) -> pa.RecordBatch:
    columns = [pa.array([row[field.name] for row in rows], type=field.type) for field in SCHEMA]
    return pa.record_batch(columns, schema=SCHEMA)


def _list_lengths(column: pa.ChunkedArray) -> list[int]:
    lengths: list[int] = pc.list_value_length(column).to_pylist()
    return lengths


def _view(value: pa.ListScalar) -> NDArray[Any]:
    view: NDArray[Any] = value.values.to_numpy(zero_copy_only=True)
    return view
