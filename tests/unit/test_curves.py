"""curves.png: drawn from history.jsonl alone, whole, the same bytes twice, also from next to nothing."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cosytune.training import curves

BEST, SKIPPED = (0x15, 0x80, 0x3D), (0xB9, 0x1C, 0x1C)
ONE_POINT = [{"update": 0, "epoch": 0, "kind": "cv", "loss": 3.0}]


def run(epochs: int, **more: Any) -> list[dict[str, Any]]:
    """Two updates an epoch; the second epoch is the best."""
    lines: list[dict[str, Any]] = list(ONE_POINT)
    for update in range(1, 2 * epochs + 1):
        place = {"update": update, "epoch": (update + 1) // 2}
        lines.append(
            {**place, "kind": "train", "loss": 3 / update, "learning_rate": 1e-4, "gradient_norm": None, **more}
        )
        if update % 2 == 0:
            lines.append({**place, "kind": "cv", "loss": 2 + abs(update - 4) / 10, **more})
    return lines


def write(directory: Path, lines: list[dict[str, Any]], tail: str = "") -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)


def drawn(exp_dir: Path) -> NDArray[np.uint8]:
    curves.draw(exp_dir)
    return np.asarray(Image.open(io.BytesIO((exp_dir / "curves.png").read_bytes())).convert("RGB"))


def has(image: NDArray[np.uint8], colour: tuple[int, int, int]) -> bool:
    return bool((image == np.array(colour)).all(axis=-1).any())


def test_both_modules_stand_side_by_side(tmp_path: Path) -> None:
    write(tmp_path / "llm", run(3, accuracy=0.25))
    alone = drawn(tmp_path)
    write(tmp_path / "flow", run(3))
    both = drawn(tmp_path)
    assert both.shape[1] == 2 * alone.shape[1]
    first = (tmp_path / "curves.png").read_bytes()
    curves.draw(tmp_path)
    assert (tmp_path / "curves.png").read_bytes() == first
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["curves.png"]


def test_the_best_and_the_skipped_updates_are_marked(tmp_path: Path) -> None:
    write(tmp_path / "flow", ONE_POINT)
    assert not has(drawn(tmp_path), BEST), "the untuned base is not the best of anything"
    write(tmp_path / "flow", run(3))
    image = drawn(tmp_path)
    assert has(image, BEST)
    assert not has(image, SKIPPED)
    write(tmp_path / "flow", [*run(3), {"update": 3, "epoch": 2, "kind": "skipped", "loss": None}])
    assert has(drawn(tmp_path), SKIPPED)
    found = curves.Curves.read(tmp_path / "flow" / "history.jsonl")
    assert found.best == (4, 2.0)
    assert found.epochs[4] == 2
    assert found.skipped == [3]


@pytest.mark.parametrize("lines", [[], ONE_POINT, run(1)[:2], run(1)])
def test_next_to_nothing_is_drawn_too(lines: list[dict[str, Any]], tmp_path: Path) -> None:
    write(tmp_path / "llm", lines, tail='{"update": 3, "ki')  # another process is writing, or was killed
    assert drawn(tmp_path).std() > 0


def test_no_run_no_picture(tmp_path: Path) -> None:
    curves.draw(tmp_path)
    assert not list(tmp_path.iterdir())
