"""Every command in a fenced block of the papers exists and parses; see tests/commands.py for how."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from commands import Block, WrongCommandError, bash_lines, blocks, check
from cosytune.layout import ROOT

READMES = [ROOT / "README.md", ROOT / "README.ja.md"]
PAPERS = [*READMES, ROOT / "CONTRIBUTING.md"]


@pytest.mark.parametrize("paper", PAPERS, ids=lambda path: path.name)
def test_every_bash_block_is_sound_bash(paper: Path) -> None:
    found = [block for block in blocks(paper) if block.language == "bash"]
    assert found
    for block in found:
        parsed = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True)
        assert parsed.returncode == 0, block.text


@pytest.mark.parametrize("paper", PAPERS, ids=lambda path: path.name)
def test_every_command_exists_and_parses(paper: Path) -> None:
    wrong = []
    lines = bash_lines(paper)
    for line in dict.fromkeys(lines):
        try:
            check(line)
        except WrongCommandError as found:
            wrong.append(f"{line}\n    {found}")
    assert not wrong, "\n".join(wrong)
    assert len(lines) >= (30 if paper in READMES else 3)


def test_both_readmes_have_the_same_commands_in_the_same_order() -> None:
    first, second = ([(block.language, block.lines()) for block in blocks(paper)] for paper in READMES)
    assert first == second


def test_every_language_of_a_block_is_one_that_is_checked_or_shown_only() -> None:
    languages = {block.language for paper in PAPERS for block in blocks(paper)}
    assert languages <= {"bash", "text", "", "ini", "powershell"}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("./run.sh egs/lj --stag 3", "unknown option '--stag'"),
        ("./run.sh egs/lj --stage 6 --stop_stage 3", "no stage lies"),
        ("./run.sh egs/nobody", "none of the recipes"),
        ("./run.sh egs/lj train.llm.lerning_rate=1", "did you mean 'train.llm.learning_rate'"),
        ("egs/lj/run.sh train.llm.num_train_epochs=many", "num_train_epochs"),
        ("./run.sh 'egs/lj", "unexpected EOF"),
        ("python -m cosytune.nothing", "cosytune.nothing"),
        ("python -m cosytune.voice sing egs/lj/voice", "has no 'sing'"),
        ("python -m cosytune.voice verify egs/lj/voice --loud", "has no option '--loud'"),
        ("python train.py", "no module of ours"),
        ("docker/release.sh --push", "has no option '--push'"),
        ("docker/nothing.sh", "is not there"),
        ("docker run --rm cosytun egs/lj", "an image of ours"),
        ("docker run --privileged cosytune egs/lj", "'--privileged' is not in the papers' list"),
        ('docker run -v "$PWD/egs:/egs" cosytune egs/lj', "mounts nothing that the image reads"),
        ("docker run --rm cosytune egs/lj --stage nine", "is no stage"),
        ("sky jobs launch docker/sky.yaml --env SPEAKR=lj", "no variable 'SPEAKR'"),
        ("sky jobs launch docker/nothing.yaml", "is not there"),
        ("tests/run.sh tests/nothing", "is not there"),
        (". ./path.bash", "is not there"),
        ("rm --recursive egs", "no program that the papers may use"),
        ("cp a b | tests/run.sh tests/nothing", "is not there"),
    ],
)
def test_a_wrong_command_is_found(line: str, says: str) -> None:
    with pytest.raises(WrongCommandError) as found:
        check(line)
    assert says in str(found.value)


def test_continued_lines_comments_and_quotes_are_read_as_bash_reads_them() -> None:
    text = "./run.sh \\\n  egs/lj   # a comment\n\n# only a comment\necho 'a # b' \"c # d\" e#f\n"
    assert Block("bash", text).lines() == ["./run.sh    egs/lj", "echo 'a # b' \"c # d\" e#f"]
