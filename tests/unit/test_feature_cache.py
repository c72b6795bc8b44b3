"""features.arrow: what is written is what is read, without a copy, and a damaged file is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosytune.errors import UserError
from cosytune.features import cache


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    made = []
    for number in range(count):
        tokens = int(random.integers(10, 100))
        made.append(
            {
                "utt": f"話者 {number:03d}",
                "spk": "話者",
                "text": f'彼は "{number}" と',
                "text_token": [int(token) for token in random.integers(0, 400, 5 + number % 20)],
                "speech_token": [int(token) for token in random.integers(0, 6561, tokens)],
                "mel": random.standard_normal((2 * tokens, 80), dtype=np.float32),
                "spk_embedding": [float(value) for value in random.standard_normal(192)],
            }
        )
    return made


@pytest.mark.parametrize("count", [0, 1, 64, 150])
def test_what_was_written_is_read(tmp_path: Path, count: int) -> None:
    written = rows(count)
    path = tmp_path / "録音 1" / "features.arrow"
    cache.write(path, iter(written))
    read = cache.open(path)
    assert len(read) == count
    assert read.utts == [row["utt"] for row in written]
    for index, row in enumerate(written):
        clip = read[index]
        assert (clip.utt, clip.spk, clip.text) == (row["utt"], row["spk"], row["text"])
        assert clip.text_token.tolist() == row["text_token"]
        assert clip.speech_token.tolist() == row["speech_token"]
        assert clip.mel.dtype == np.float32
        assert np.array_equal(clip.mel, row["mel"])
        assert np.array_equal(clip.spk_embedding, np.array(row["spk_embedding"], dtype=np.float32))
        assert read.lengths[index] == cache.Length(len(row["text_token"]), len(row["speech_token"]))


def test_mel_is_a_view_of_the_mapped_file(tmp_path: Path) -> None:
    cache.write(tmp_path / "features.arrow", rows(3))
    read = cache.open(tmp_path / "features.arrow")
    first, again = read[1].mel, read[1].mel
    assert not first.flags.writeable
    assert first.__array_interface__["data"] == again.__array_interface__["data"], "no copy was made"


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.arrow", "b.arrow"):
        cache.write(tmp_path / name, rows(70))
    assert (tmp_path / "a.arrow").read_bytes() == (tmp_path / "b.arrow").read_bytes()


@pytest.mark.parametrize("keep", [0, 100, -20])
def test_a_truncated_file_names_the_stage_to_run(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "features.arrow"
    cache.write(path, rows(5))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"features\.arrow.*--stage 3"):
        cache.open(path)
