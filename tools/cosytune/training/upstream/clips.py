"""The clips of a data.list, and which of them upstream's pipeline drops -> one line that adds up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from cosytune.errors import UserError


@dataclass
class Clips:
    """`dropped`: utterance -> reason. Workers and epochs name a clip again and again; it counts once."""

    name: str
    utts: frozenset[str]
    dropped: dict[str, str] = field(default_factory=dict)

    def drop(self, utt: str, reason: str) -> None:
        if utt in self.utts:
            self.dropped[utt] = reason

    @property
    def kept(self) -> int:
        return len(self.utts) - len(self.dropped)

    def report(self) -> str:
        """`train: 20 clips = 18 kept + 2 dropped (text tokens, token_max_length 200: 2)`."""
        reasons = "; ".join(f"{reason}: {count}" for reason, count in Counter(self.dropped.values()).most_common())
        return f"{self.name}: {len(self.utts)} clips = {self.kept} kept + {len(self.dropped)} dropped" + (
            f" ({reasons})" if reasons else ""
        )


def read(name: str, listing: Path) -> Clips:
    """The clips of the parquet files that a data.list names; raises UserError when one is not there."""
    paths = [Path(line) for line in listing.read_text(encoding="utf-8").splitlines() if line]
    if gone := [path for path in paths if not path.is_file()]:
        raise UserError(f"{listing}: names {gone[0]}, which is not there; run stage 3 (pack) again: --stage 3")
    return Clips(
        name, frozenset(utt for path in paths for utt in pq.read_table(path, columns=["utt"])["utt"].to_pylist())
    )
