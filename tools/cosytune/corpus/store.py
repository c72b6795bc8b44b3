"""The balance of stage 0 -> data/all, data/quarantine and the files that tell about both."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cosytune import files, kaldi
from cosytune.corpus.balance import Balance
from cosytune.corpus.verdicts import Verdict
from cosytune.errors import UserError
from cosytune.layout import Layout

_WORKING = ".prepare-"


@contextmanager
def working_directory(layout: Layout) -> Iterator[Path]:
    """Room for tracks (350 MB for an hour) and clips beside data/all, so that a clip moves there by renaming.

    What a killed run left goes first: the stage's lock says that nobody else is at work.
    """
    parent = layout.data_all.parent
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f"{_WORKING}*"):
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=parent, prefix=_WORKING) as directory:
        yield Path(directory)


def former_report(layout: Layout) -> dict[str, Any]:
    """The last run's report.json, {} before the first. Raises a UserError when it is damaged."""
    path = layout.data_all / "report.json"
    if not path.is_file():
        return {}
    try:
        report = dict(files.read_json(path))
        for clip in report["clips"]:
            _ = clip["utt"], clip["source"], clip["source_text"], clip["text"]
        _ = report["set_aside_corrections"], [drop["utt"] for drop in report["drops"]]
    except (ValueError, KeyError, TypeError) as failure:
        raise UserError(
            f"{path}: damaged ({failure!r}); move it away and run stage 0 again: corrected lines of data/all/text stay"
        ) from None
    return report


def write_quarantine(layout: Layout, balance: Balance) -> None:
    """Clips that are not kept, and why: written also when none is kept, since it says how to mend that."""
    rows = ["\t".join(cell.replace("\t", " ") for cell in row) for row in balance.quarantine_rows()]
    for one in balance.quarantined:
        if one.clip.written is not None:
            _move(one, layout.quarantine)
    files.write_text(layout.quarantine_table, "".join(f"{row}\n" for row in rows))


def write_data(layout: Layout, balance: Balance) -> None:
    """The report comes first: whenever this is stopped, it says which clips and lines are not the user's."""
    _remove_stale(layout, former_report(layout), balance)
    report = balance.report()
    files.write_json(layout.data_all / "report.json", {"complete": False, **report})
    utterances = [
        kaldi.Utterance(
            utt=one.clip.draft.utt,
            speaker=one.clip.draft.source.speaker,
            wav=_move(one, layout.data_all / "wav"),
            text=one.text,
            duration_s=one.clip.written.duration_s,
            recording=one.clip.draft.source.utt,
        )
        for one in balance.kept
        if one.clip.written is not None
    ]
    files.flush(layout.data_all)  # the clips are whole before a table names them
    kaldi.write(layout.data_all, utterances)
    originals = {one.clip.draft.utt: _one_line(one.clip.draft.written or one.text) for one in balance.kept}
    kaldi.write_table(layout.data_all / "text.original", originals)
    files.write_json(layout.data_all / "report.json", {"complete": True, **report})


def _move(one: Verdict, directory: Path) -> Path:
    target = directory / f"{one.clip.draft.utt}.wav"
    directory.mkdir(parents=True, exist_ok=True)
    try:
        one.clip.wav.replace(target)
    except OSError as failure:
        if failure.errno != errno.EXDEV:  # data/all is a link to another disk
            raise
        files.write_bytes(target, one.clip.wav.read_bytes())
    return target


def _remove_stale(layout: Layout, before: dict[str, Any], balance: Balance) -> None:
    """Clips that the last run made and this one has no use for; nothing else in those directories is ours."""
    for part, directory, now in (
        ("clips", layout.data_all / "wav", balance.kept),
        ("drops", layout.quarantine, balance.quarantined),
    ):
        stale = {clip["utt"] for clip in before.get(part, []) if clip.get("utt")} - {one.clip.draft.utt for one in now}
        for utt in sorted(stale):
            (directory / f"{utt}.wav").unlink(missing_ok=True)


def _one_line(text: str) -> str:
    return " ".join(text.replace("\0", " ").split())
