"""A recipe that makes its own recordings: made when missing or outdated; a user's files are never touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from cosytune import config as configs
from cosytune.audio.made import ensure_audio
from cosytune.errors import UserError
from cosytune.layout import ROOT, Layout
from recordings import make_recipe

SCRIPT = """
import sys
from pathlib import Path
for name in {names}:
    Path(sys.argv[1], name).write_text("{content}")
"""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = make_recipe(tmp_path, "私の 声")
    write_script(layout, ["a.wav", "b.wav"], "one")
    return layout


def write_script(layout: Layout, names: list[str], content: str) -> None:
    path = layout.recipe / "local" / "make_audio.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(SCRIPT.format(names=names, content=content), encoding="utf-8")


def visible(layout: Layout) -> dict[str, str]:
    return {path.name: path.read_text() for path in layout.audio.iterdir() if not path.name.startswith(".")}


def test_made_when_audio_is_absent_or_empty_and_then_left_alone(layout: Layout) -> None:
    layout.audio.rmdir()
    ensure_audio(layout)
    assert visible(layout) == {"a.wav": "one", "b.wav": "one"}
    (layout.audio / "b.wav").unlink()
    ensure_audio(layout)
    assert visible(layout) == {"a.wav": "one"}


def test_another_script_replaces_only_what_the_former_one_made(layout: Layout) -> None:
    ensure_audio(layout)
    (layout.audio / "a.wav").write_text("edited by me")
    (layout.audio / "mine.wav").write_text("mine")
    write_script(layout, ["a.wav", "c.wav"], "two")
    ensure_audio(layout)
    assert visible(layout) == {"a.wav": "edited by me", "mine.wav": "mine", "c.wav": "two"}


def test_a_users_recordings_are_never_touched(layout: Layout) -> None:
    (layout.audio / "a.wav").write_text("mine")
    ensure_audio(layout)
    assert visible(layout) == {"a.wav": "mine"}


def test_a_script_that_fails_leaves_nothing_behind(layout: Layout) -> None:
    write_script(layout, ["a.wav"], "one")
    with (layout.recipe / "local" / "make_audio.py").open("a", encoding="utf-8") as stream:
        stream.write("sys.exit(3)\n")
    with pytest.raises(UserError, match=r"make_audio\.py: failed with exit status 3"):
        ensure_audio(layout)
    assert visible(layout) == {}
    write_script(layout, ["a.wav"], "two")
    ensure_audio(layout)
    assert visible(layout) == {"a.wav": "two"}
    assert sorted(path.name for path in layout.recipe.iterdir()) == ["audio", "conf.yaml", "local"]


@pytest.fixture(scope="module")
def demo_audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("demo")
    script = ROOT / "egs" / "demo" / "local" / "make_audio.py"
    environment = {"PYTHONPATH": str(ROOT / "tools"), "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, str(script), str(directory)], env=environment, check=True)
    return directory


def test_the_demo_speaks_about_forty_short_sentences(demo_audio: Path) -> None:
    wavs = sorted(demo_audio.glob("*.wav"))
    sentences = (ROOT / "egs" / "demo" / "local" / "sentences.txt").read_text(encoding="utf-8").splitlines()
    assert len(wavs) == len(sentences) == len(set(sentences)) == 40
    for wav, sentence in zip(wavs, sentences, strict=True):
        info = soundfile.info(wav)
        assert (info.samplerate, info.channels, info.subtype) == (48000, 1, "PCM_16")
        assert 2.0 < info.duration < 5.0
        assert wav.with_suffix(".txt").read_text(encoding="utf-8") == sentence + "\n"


def test_the_demo_is_the_same_every_time(demo_audio: Path, tmp_path: Path) -> None:
    script = ROOT / "egs" / "demo" / "local" / "make_audio.py"
    environment = {"PYTHONPATH": str(ROOT / "tools"), "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, str(script), str(tmp_path)], env=environment, check=True)
    for path in demo_audio.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("recipe", ["demo", "TEMPLATE"])
def test_the_recipes_configs_are_valid(recipe: str, tmp_path: Path) -> None:
    copy = make_recipe(tmp_path)
    copy.conf.write_bytes((ROOT / "egs" / recipe / "conf.yaml").read_bytes())
    config, _ = configs.load(configs.freeze(copy.recipe, "default", [], -1, 7))
    assert config.language == "ja"
    assert config.base == ("tiny" if recipe == "demo" else "real")


def test_recordings_that_a_killed_run_left_half_made_go(layout: Layout) -> None:
    kill = "os.kill(os.getppid(), signal.SIGKILL)"
    write_script(layout, ["a.wav", "b.wav"], "one")
    script = layout.recipe / "local" / "make_audio.py"
    whole = script.read_text(encoding="utf-8")
    script.write_text(f"import os, signal\n{whole}\n{kill}\n", encoding="utf-8")
    run = (
        "import sys; from pathlib import Path; from cosytune.audio.made import ensure_audio; "
        "from cosytune.layout import Layout; ensure_audio(Layout(Path(sys.argv[1])))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tools")}
    killed = subprocess.run([sys.executable, "-c", run, str(layout.recipe)], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in layout.recipe.glob(".audio.*/*.wav")]
    script.write_text(whole, encoding="utf-8")
    ensure_audio(layout)
    assert visible(layout) == {"a.wav": "one", "b.wav": "one"}
    assert not list(layout.recipe.glob(".audio.*"))
