"""Items -> plan.parquet: which shard does which of them, and the fingerprint that its file will carry."""

from __future__ import annotations

import bisect
import functools
import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cosytune import files
from cosytune.errors import UserError
from cosytune.layout import LOCK
from cosytune.schema import Config
from cosytune.shards.step import Item, Step, Value

FORMAT = 1
"""Grows with what a plan or a shard holds."""

_SCHEMA = pa.schema([("seconds", pa.float64()), ("item", pa.string())])


def cut(seconds: Sequence[float], nj: int) -> list[range]:
    """Neighbours of about equal duration; none is empty. 1 <= nj <= items."""
    ends = list(itertools.accumulate(seconds))
    total = ends[-1] or 1.0
    starts = [0]
    for number in range(1, nj):
        wanted = bisect.bisect_right(ends, total * number / nj)
        starts.append(min(max(wanted, starts[-1] + 1), len(ends) - (nj - number)))
    return [range(start, end) for start, end in itertools.pairwise([*starts, len(ends)])]


@dataclass(frozen=True)
class Plan:
    """`maker`: sha256 of everything but the items. `shards`: the fingerprint of each."""

    step: str
    maker: str
    shards: Sequence[str]

    @property
    def nj(self) -> int:
        return len(self.shards)

    def file(self, directory: Path, number: int) -> Path:
        return directory / f"{number}-of-{self.nj}.parquet"

    def fingerprint(self, number: int) -> str:
        return self.shards[number - 1]

    def files(self, directory: Path, number: int) -> Path:
        """Where the sound files of a shard go: of another plan's they are never taken for these."""
        return directory / "files" / self.fingerprint(number)[:16]


def make(step: Step, config: Config, items: Sequence[Item], nj: int, directory: Path) -> Plan:
    """Write the plan, unless the same one is there."""
    ranges = cut([item.seconds for item in items], nj)
    texts = [_text(item.value) for item in items]
    maker = maker_of(step, config)
    plan = Plan(step.name, maker, [_sha256(maker, *texts[some.start : some.stop]) for some in ranges])
    path = directory / "plan.parquet"
    if not path.is_file() or _header(path) != plan:
        with files.atomic_path(path) as temporary:
            _write(plan, temporary, [item.seconds for item in items], texts, ranges)
    return plan


def _write(plan: Plan, path: Path, seconds: Sequence[float], texts: Sequence[str], ranges: Sequence[range]) -> None:
    header = json.dumps({"format": FORMAT, "step": plan.step, "maker": plan.maker, "shards": plan.shards})
    with pq.ParquetWriter(path, _SCHEMA.with_metadata({"plan": header}), write_page_checksum=True) as writer:
        for some in ranges:
            part = slice(some.start, some.stop)
            table = pa.table({"seconds": seconds[part], "item": texts[part]}, schema=_SCHEMA)
            writer.write_table(table, row_group_size=max(1, len(some)))


def read(directory: Path) -> Plan:
    """Raises a UserError when there is none, or none that can be read."""
    path = directory / "plan.parquet"
    plan = _header(path) if path.is_file() else None
    if plan is None:
        what = "damaged, or of another version" if path.is_file() else "no such plan"
        raise UserError(f"{path}: {what}; the stage writes it: run that again", exit_status=2)
    return plan


def items(directory: Path, plan: Plan, number: int) -> list[Value]:
    """Of one shard, checked against its fingerprint."""
    path = directory / "plan.parquet"
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            texts: list[str] = file.read_row_group(number - 1).column("item").to_pylist()
    except (pa.ArrowException, OSError, ValueError, KeyError):
        texts = []
    if _sha256(plan.maker, *texts) != plan.fingerprint(number):
        raise UserError(f"{path}: damaged at shard {number}; run the stage again, which writes it anew")
    return [json.loads(text) for text in texts]


def maker_of(step: Step, config: Config) -> str:
    """What decides about the rows besides the items."""
    return _sha256(str(FORMAT), step.name, _text(step.maker(config)), _code())


@functools.cache
def _code() -> str:
    """Of all packages that the steps work with: which file a step uses is not worth a mistake. And of the lock."""
    package = Path(__file__).parents[1]
    sources = [package / name for name in ("audio", "corpus", "features", "quality", "shards")]
    modules = sorted(path for source in sources for path in source.glob("*.py"))
    return _sha256(*(f"{path.relative_to(package)} {files.sha256(path)}" for path in modules), files.sha256(LOCK))


def _header(path: Path) -> Plan | None:
    try:
        values = json.loads(pq.read_schema(path).metadata[b"plan"])
        return Plan(values["step"], values["maker"], values["shards"]) if values["format"] == FORMAT else None
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
        return None


def _text(value: Value) -> str:
    return json.dumps(value, sort_keys=True)


def _sha256(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
