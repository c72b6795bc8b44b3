"""Lists of clips: read once, however long they are, and every mistake in them is one line."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from cosytune.audio.folder import Folder, scan
from cosytune.audio.manifests import Manifest, read_manifests

_LISTED: Counter[str] = Counter()


def _count(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("os.listdir", "os.scandir"):
        _LISTED[str(arguments[0])] += 1


sys.addaudithook(_count)  # it stays for the life of the process; others' listings are of other directories


def a_folder(root: Path, **lists: str) -> Folder:
    """400 files in wavs/, named like audio, and the lists."""
    (root / "wavs").mkdir(parents=True)
    for number in range(400):
        (root / "wavs" / f"c{number:04d}.wav").touch()
    for name, content in lists.items():
        (root / name.replace("_csv", ".csv").replace("_jsonl", ".jsonl").replace("_scp", ".scp")).write_text(content)
    return scan(root)


def listings(folder: Folder) -> tuple[Manifest, list[int]]:
    """The lists of the folder, and how often each directory was listed for them."""
    _LISTED.clear()
    manifest = read_manifests(folder, "ja")
    return manifest, [times for path, times in _LISTED.items() if path.startswith(str(folder.root))]


def test_each_directory_is_listed_once_for_a_long_metadata_csv(tmp_path: Path) -> None:
    lines = "".join(f"c{number:04d}|はい。\n" for number in range(400))
    manifest, times = listings(a_folder(tmp_path / "audio", metadata_csv=lines + "missing|はい。\n"))
    assert len(manifest.entries) == 400
    assert len(manifest.problems) == 1
    assert times == [1, 1]


def test_each_directory_is_listed_once_for_long_lists_of_files_that_are_not_there(tmp_path: Path) -> None:
    jsonl = "".join(json.dumps({"audio": f"wavs/x{number}.wav", "text": "はい。"}) + "\n" for number in range(400))
    scp = "".join(f"u{number} wavs/y{number}.wav\n" for number in range(400))
    manifest, times = listings(a_folder(tmp_path / "audio", list_jsonl=jsonl, wav_scp=scp))
    assert len(manifest.problems) == 800
    assert max(times) == 1


def test_a_name_that_no_disk_can_hold_is_a_missing_file(tmp_path: Path) -> None:
    jsonl = "".join(json.dumps({"audio": name, "text": "はい。"}) + "\n" for name in ("x" * 5000, "a\0b"))
    manifest, _ = listings(a_folder(tmp_path / "audio", list_jsonl=jsonl))
    assert ["no audio" in problem for problem in manifest.problems] == [True, True]


def test_the_second_line_of_one_recording_names_the_first(tmp_path: Path) -> None:
    row = json.dumps({"audio": "wavs/c0001.wav", "text": "はい。"})
    manifest, _ = listings(a_folder(tmp_path / "audio", list_jsonl=f"{row}\n{row}\n{row}\n"))
    assert [entry.where for entry in manifest.entries] == ["audio/list.jsonl:1"]
    assert [problem.split(";")[0] for problem in manifest.problems] == [
        f"audio/list.jsonl:{line}: audio/wavs/c0001.wav is already in audio/list.jsonl:1" for line in (2, 3)
    ]
