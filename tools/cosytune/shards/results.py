"""The rows of a shard <-> its parquet file, which says what it was made of and whether it is whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cosytune import files
from cosytune.shards.step import Step, Value

_FINGERPRINT, _CHECKSUM = b"fingerprint", b"sha256"


def write(path: Path, step: Step, rows: Iterable[Value], fingerprint: str) -> pa.Table:
    """Atomically; -> the rows."""
    table = pa.Table.from_pylist(list(rows), schema=step.columns)
    said = {_FINGERPRINT: fingerprint.encode(), _CHECKSUM: _checksum(table).encode()}
    with files.atomic_path(path) as temporary:
        pq.write_table(table.replace_schema_metadata(said), temporary, compression="zstd", write_page_checksum=True)
    return table


def read(path: Path, step: Step, fingerprint: str, beside: Path) -> pa.Table | None:
    """The rows; None for a file that is not there, damaged, or of other items, settings, models or code, or without one
    of its sound files in `beside`.
    """
    if not path.is_file():
        return None
    try:
        table = pq.read_table(path, page_checksum_verification=True, memory_map=False)
        said = table.schema.metadata or {}
        whole = table.schema.equals(step.columns) and said[_CHECKSUM].decode() == _checksum(table)
        if not whole or said[_FINGERPRINT].decode() != fingerprint:
            return None
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, MemoryError):
        return None  # what the reader raises depends on where a bit has flipped
    return table if all(_has(beside / name, size) for name, size in step.files(table)) else None


def _has(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _checksum(table: pa.Table) -> str:
    """Of what the rows say, however they lie in memory."""
    digest = hashlib.sha256(str(table.num_rows).encode())
    for name, column in zip(table.column_names, table.combine_chunks().columns, strict=True):
        digest.update(name.encode())
        for chunk in column.chunks:
            _update(digest, chunk)
    return digest.hexdigest()


def _update(digest: Any, values: pa.Array) -> None:
    digest.update(values.is_valid().cast(pa.uint8()).to_numpy(zero_copy_only=False).tobytes())
    if pa.types.is_list(values.type):
        digest.update(pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False).tobytes())
        _update(digest, values.flatten())
    elif pa.types.is_string(values.type):
        texts = [text.encode() for text in values.drop_null().to_pylist()]
        digest.update(b" ".join(b"%d:%s" % (len(text), text) for text in texts))
    else:
        digest.update(values.drop_null().to_numpy(zero_copy_only=False).tobytes())
