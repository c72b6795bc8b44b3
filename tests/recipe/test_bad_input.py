"""Bad input as a user meets it: `./run.sh` ends with one line that says what and how to mend it, never a traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cosytune.layout import ROOT
from recordings import write_clip

# root passes permission bits unless it gives that right away
AS_A_USER = (
    ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")
    if os.geteuid() == 0
    else ()
)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Three clips with transcripts, the random base, a name with a space, a quote and Japanese letters."""
    path = tmp_path / "花子's voice"
    path.mkdir()
    (path / "conf.yaml").write_text("base: random\nlanguage: ja\n")
    for number in range(3):
        write_clip(path / "audio" / f"録音 {number}.wav", "これはテストです。")
    return path


def run(recipe: Path, *arguments: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*before, str(ROOT / "run.sh"), str(recipe), *arguments]
    return subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def mistake(recipe: Path, *arguments: str, before: tuple[str, ...] = (), status: int = 1) -> str:
    """The one error line of a run that fails, after everything that every such run must satisfy."""
    result = run(recipe, *arguments, before=before)
    assert result.returncode == status, result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    if "stage -1" in result.stdout:
        assert "mend it and go on with: " in result.stderr.splitlines()[-1]
    return line


def prepare(recipe: Path, **options: object) -> str:
    return mistake(recipe, "--stop_stage", "0", **options)  # type: ignore[arg-type]


def no_audio(recipe: Path) -> None:
    shutil.rmtree(recipe / "audio")


def no_transcript(recipe: Path) -> None:
    (recipe / "audio" / "録音 1.txt").unlink()
    with (recipe / "conf.yaml").open("a") as conf:
        conf.write("transcribe: {align_model: none}\n")  # one missing model, one line


def empty_transcript(recipe: Path) -> None:
    (recipe / "audio" / "録音 1.txt").write_text(" \n")


def one_id_twice(recipe: Path) -> None:
    for name in ("録音 1.txt", "録音 2.txt"):
        (recipe / "audio" / name).unlink()
    (recipe / "audio" / "metadata.csv").write_text("録音 1|はい。\n録音 2|はい。\n録音 1|いいえ。\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "names", "remedy"),
    [
        (no_audio, "audio", "put recordings there"),
        (no_transcript, "audio/録音 1.wav: no transcript", "put X.txt with its text beside every X.wav"),
        (empty_transcript, "audio/録音 1.txt: empty transcript", "write what is said"),
        (one_id_twice, "metadata.csv:3: id '録音 1' is already in", "metadata.csv:1"),
    ],
)
def test_recordings(recipe: Path, spoil: Callable[[Path], None], names: str, remedy: str) -> None:
    spoil(recipe)
    line = prepare(recipe)
    assert names in line
    assert remedy in line


def test_recordings_that_are_mended_go_on(recipe: Path) -> None:
    empty_transcript(recipe)
    prepare(recipe)
    (recipe / "audio" / "録音 1.txt").write_text("はい。")
    result = run(recipe, "--stage", "0", "--stop_stage", "0")
    assert result.returncode == 0, result.stderr


def test_an_unknown_key_before_anything_runs(recipe: Path) -> None:
    line = mistake(recipe, "train.llm.learning_rat=1e-4", status=2)
    assert "did you mean 'train.llm.learning_rate'?" in line
    assert not (recipe / "data").exists()


@pytest.mark.parametrize(
    "arguments", [("--stage",), ("--stage", "x"), ("--stage", "6", "--stop_stage", "3"), ("--stage", "12"), ("--stge",)]
)
def test_stage_mistakes_before_anything_runs(recipe: Path, arguments: tuple[str, ...]) -> None:
    assert "see ./run.sh --help" in mistake(recipe, *arguments, status=2)
    assert sorted(path.name for path in recipe.iterdir()) == ["audio", "conf.yaml"]


@pytest.fixture
def model(random_model: Path, tmp_path: Path) -> Path:
    """A copy of the random base, to be spoilt."""
    copy = tmp_path / "my model"
    shutil.copytree(random_model, copy, copy_function=os.link)
    return copy


def test_one_flipped_byte_in_the_model(recipe: Path, model: Path) -> None:
    path = model / "flow.pt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)
    line = mistake(recipe, f"model_dir={model}", "--stop_stage", "-1")
    assert f"{path}: not as it was" in line
    assert "from where it came" in line


def test_a_missing_model_file(recipe: Path, model: Path) -> None:
    (model / "llm.pt").unlink()
    line = mistake(recipe, f"model_dir={model}", "--stop_stage", "-1")
    assert f"{model / 'llm.pt'}: missing" in line


def test_a_read_only_recipe(recipe: Path) -> None:
    recipe.chmod(0o555)
    try:
        line = prepare(recipe, before=AS_A_USER)
    finally:
        recipe.chmod(0o755)
    assert str(recipe) in line
    assert "permission denied; make it writable" in line


def test_a_read_only_output_directory(recipe: Path) -> None:
    """The run may begin, and a stage cannot write."""
    (recipe / "data").mkdir(mode=0o555)
    line = prepare(recipe, before=AS_A_USER)
    assert str(recipe / "data") in line
    assert "permission denied; make it writable" in line


@pytest.mark.parametrize(("stage", "needed"), [(1, 0), (2, 0), (3, 0), (4, 3), (5, 4), (6, 5), (7, 6)])
def test_a_stage_before_its_time_says_which_one_to_run(recipe: Path, stage: int, needed: int) -> None:
    assert run(recipe, "--stop_stage", "-1").returncode == 0
    line = mistake(recipe, "--stage", str(stage))
    assert f"--stage {needed}" in line


def test_a_changed_setting_of_a_finished_stage(recipe: Path) -> None:
    assert run(recipe, "--stop_stage", "0").returncode == 0
    line = mistake(recipe, "--stage", "1", "audio.loudness_lufs=-20", status=2)
    assert "audio.loudness_lufs was -23.0, is -20.0, which stage 0 (prepare) has used" in line
    assert "run again with --stage 0" in line
