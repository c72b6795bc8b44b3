"""Stage 0: recordings -> tracks and what is heard in them, stretches -> clips; both as parquet columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from cosytune import files
from cosytune.audio.clip import Clip as Written
from cosytune.audio.decode import Silent
from cosytune.audio.listen import Heard
from cosytune.audio.probe import Broken, Probe
from cosytune.audio.span import Span
from cosytune.audio.track import Track
from cosytune.corpus import making
from cosytune.corpus.crew import Decoded, Made, Recording, Stretch, Task
from cosytune.errors import UserError
from cosytune.layout import Layout
from cosytune.parallel import Workers
from cosytune.quality.measure import Measured, Original
from cosytune.schema import Config
from cosytune.shards.step import Item, Shard, Step, Value, name_of, path_of

_SAMPLE_BYTES = 4
_TRACK: dict[str, pa.DataType] = {
    "rate_hz": pa.int64(),
    "frames": pa.int64(),
    "source_rate_hz": pa.int64(),
    "channels": pa.int64(),
    "channels_used": pa.int64(),
    "peak_dbfs": pa.float64(),
    "dc_offset": pa.float64(),
    "clipped": pa.list_(pa.uint32()),
}
_HEARD: dict[str, pa.DataType] = {
    "probabilities": pa.list_(pa.float32()),
    "levels_db": pa.list_(pa.float32()),
    "duration_s": pa.float64(),
}
_WRITTEN = {
    field.name: pa.string() if field.name == "digest" else pa.float64() for field in dataclasses.fields(Written)
}
_MEASURED = {field.name: pa.float64() for field in dataclasses.fields(Measured)}


def recording_item(layout: Layout, recording: Recording, digest: str) -> Item:
    found = recording.found
    value = {"audio": name_of(layout, recording.audio), "sha256": digest, "found": dataclasses.asdict(found)}
    return Item(found.duration_s, value)


def heard(table: pa.Table, directory: Path) -> Iterator[tuple[Decoded, Heard | None]]:
    """A shard's rows -> what `corpus.making` gave; `directory`: where its tracks lie."""
    for number, row in enumerate(_without_arrays(table)):
        if row["kind"] == "broken":
            yield Broken(row["reason"]), None
        elif row["kind"] == "silent":
            yield Silent(row["track.peak_dbfs"]), None
        else:
            track = _part(row, "track", _TRACK) | {"clipped": _array(table, "track.clipped", number)}
            ear = Heard(
                _array(table, "heard.probabilities", number),
                _array(table, "heard.levels_db", number),
                row["heard.duration_s"],
            )
            yield Track(path=directory / row["file"], **track), ear


def _hear(shard: Shard) -> Iterator[Value]:
    recordings = [_recording(shard.layout, value) for value in shard.items]
    shard.directory.mkdir(parents=True, exist_ok=True)
    names = [f"{number}.f32" for number in range(len(recordings))]
    with Workers(shard.threads) as workers:
        tracks = [shard.directory / name for name in names]
        decoded = making.decode_all(recordings, tracks, shard.config.audio.sample_rate_hz, workers)
        ears = iter(making.listen_all([one for one in decoded if isinstance(one, Track)], workers))
    for name, one in zip(names, decoded, strict=True):
        if isinstance(one, Broken):
            yield {"kind": "broken", "reason": one.reason}
        elif isinstance(one, Silent):
            yield {"kind": "silent", "track.peak_dbfs": one.peak_dbfs}
        else:
            yield {"kind": "track", "file": name, **_row(one, "track", _TRACK), **_row(next(ears), "heard", _HEARD)}


def _recording(layout: Layout, value: Value) -> Recording:
    audio = path_of(layout, value["audio"])
    if not audio.is_file() or files.sha256(audio) != value["sha256"]:
        raise UserError(f"{audio}: not as it was when the shards were planned; run the stage again, which plans anew")
    return Recording(audio, Probe(**value["found"]))


def task_item(layout: Layout, task: Task) -> Item:
    """The name of the track holds the fingerprint of its shard, and so says what is in it."""
    stretches = [
        {
            "start": one.start,
            "count": one.count,
            "speech": [[span.start_s, span.end_s] for span in one.speech],
            "original": dataclasses.asdict(one.original),
        }
        for one in task.stretches
    ]
    track = {"track": name_of(layout, task.track), "frames": task.track_frames, "rate_hz": task.rate_hz}
    return Item(task.duration_s, {**track, "stretches": stretches})


def made(table: pa.Table, directory: Path) -> Iterator[tuple[int, Made]]:
    """A shard's rows -> the number of the task in its shard, and a clip of it."""
    for number, row in enumerate(_without_arrays(table)):
        written = Written(**_part(row, "written", _WRITTEN)) if row["bytes"] is not None else None
        measured = Measured(**_part(row, "measured", _MEASURED))
        vectors = (_array(table, name, number) for name in ("fingerprint", "voice"))
        yield row["task"], Made(directory / row["file"], written, measured, *vectors)


def _make(shard: Shard) -> Iterator[Value]:
    tasks = [_task(shard.layout, value) for value in shard.items]
    shard.directory.mkdir(parents=True, exist_ok=True)
    wavs = [
        [shard.directory / f"{number}-{place}.wav" for place in range(len(task.stretches))]
        for number, task in enumerate(tasks)
    ]
    with Workers(shard.threads) as workers:
        for number, several in enumerate(making.make_all(tasks, wavs, shard.config.audio, workers)):
            for one in several:
                yield {
                    "task": number,
                    "file": one.wav.name,
                    "bytes": one.wav.stat().st_size if one.written else None,
                    **_row(one.written, "written", _WRITTEN),
                    **_row(one.measured, "measured", _MEASURED),
                    "fingerprint": one.fingerprint,
                    "voice": one.voice,
                }


def _task(layout: Layout, value: Value) -> Task:
    track = path_of(layout, value["track"])
    if not track.is_file() or track.stat().st_size != _SAMPLE_BYTES * value["frames"]:
        raise UserError(f"{track}: missing or cut off; run stage 0 again, which makes it anew: --stage 0")
    stretches = tuple(
        Stretch(one["start"], one["count"], tuple(Span(*span) for span in one["speech"]), Original(**one["original"]))
        for one in value["stretches"]
    )
    return Task(track, value["frames"], value["rate_hz"], stretches)


def _without_arrays(table: pa.Table) -> list[Value]:
    """What is quick to have as Python's own objects."""
    names = [name for name, kind in zip(table.column_names, table.schema.types, strict=True) if pa.types.is_list(kind)]
    rows: list[Value] = table.drop_columns(names).to_pylist()
    return rows


def _array(table: pa.Table, name: str, row: int) -> Any:
    """Of the column's own type, [n]; None for a null."""
    value = table[name][row]
    return value.values.to_numpy(zero_copy_only=False).copy() if value.is_valid else None


def _columns(prefix: str, kinds: dict[str, pa.DataType]) -> list[tuple[str, pa.DataType]]:
    return [(f"{prefix}.{name}", kind) for name, kind in kinds.items()]


def _row(value: Any, prefix: str, kinds: dict[str, pa.DataType]) -> Value:
    """The fields of a dataclass as columns; None: no columns, which reads as nulls."""
    return {} if value is None else {f"{prefix}.{name}": getattr(value, name) for name in kinds}


def _part(row: Value, prefix: str, kinds: dict[str, pa.DataType]) -> Value:
    """Of a row without arrays."""
    return {name: row[f"{prefix}.{name}"] for name, kind in kinds.items() if not pa.types.is_list(kind)}


def _tracks(table: pa.Table) -> Iterable[tuple[str, int]]:
    pairs = zip(table["file"].to_pylist(), table["track.frames"].to_pylist(), strict=True)
    return [(name, _SAMPLE_BYTES * frames) for name, frames in pairs if name is not None]


def _wavs(table: pa.Table) -> Iterable[tuple[str, int]]:
    pairs = zip(table["file"].to_pylist(), table["bytes"].to_pylist(), strict=True)
    return [(name, size) for name, size in pairs if size is not None]


def _loudness(config: Config) -> Value:
    names = ("sample_rate_hz", "loudness_lufs", "peak_ceiling_dbfs")
    return {name: getattr(config.audio, name) for name in names}


HEAR = Step(
    name="hear",
    columns=pa.schema(
        [
            ("kind", pa.string()),
            ("reason", pa.string()),
            ("file", pa.string()),
            *_columns("track", _TRACK),
            *_columns("heard", _HEARD),
        ]
    ),
    maker=lambda config: {"sample_rate_hz": config.audio.sample_rate_hz},
    work=_hear,
    cores=lambda config: config.audio.nj,
    on_gpu=False,
    files=_tracks,
)
CLIPS = Step(
    name="clips",
    columns=pa.schema(
        [
            ("task", pa.int64()),
            ("file", pa.string()),
            ("bytes", pa.int64()),
            *_columns("written", _WRITTEN),
            *_columns("measured", _MEASURED),
            ("fingerprint", pa.list_(pa.float32())),
            ("voice", pa.list_(pa.float32())),
        ]
    ),
    maker=_loudness,
    work=_make,
    cores=lambda config: config.audio.nj,
    on_gpu=False,
    files=_wavs,
)
