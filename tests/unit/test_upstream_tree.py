"""Upstream's tree from the wheel, from git and from a checkout: the same bytes, whole or not there."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from cosytune.errors import UserError
from cosytune.schema import Config, UpstreamConfig
from cosytune.upstream import patch, tree
from cosytune.upstream.manifest import COSYVOICE, MATCHA, PINNED, Pin
from cosytune.upstream.status import State, inspect
from upstream_checkouts import commit_all, git, snapshot

LLM = "cosyvoice/llm/llm.py"


@pytest.fixture
def repository(pristine: Path, tmp_path: Path) -> tuple[str, Pin]:
    """Upstream as a git repository with Matcha as its submodule, and the pin of its commit."""
    cosyvoice, matcha = tmp_path / "origin" / "CosyVoice", tmp_path / "origin" / "Matcha-TTS"
    for package, home in ((COSYVOICE, cosyvoice), (MATCHA, matcha)):
        shutil.copytree(pristine / package, home / Path(package).name)
    matcha_commit = commit_all(matcha)
    module = f'[submodule "third_party/Matcha-TTS"]\n\tpath = third_party/Matcha-TTS\n\turl = {matcha}\n'
    (cosyvoice / ".gitmodules").write_text(module)
    commit_all(cosyvoice)
    git(cosyvoice, "update-index", "--add", "--cacheinfo", f"160000,{matcha_commit},third_party/Matcha-TTS")
    git(cosyvoice, "commit", "-q", "-m", "with the submodule")
    commit = git(cosyvoice, "rev-parse", "HEAD")
    git(cosyvoice, "commit", "-q", "--allow-empty", "-m", "a newer one, which nobody asked for")
    return str(cosyvoice), replace(PINNED, commit=commit)


def without_stamp(directory: Path) -> dict[str, bytes]:
    return {path: data for path, data in snapshot(directory).items() if path != ".as_built.json"}


def test_the_wheel_gives_upstreams_files_and_no_more(wheel_tree: Path) -> None:
    assert set(without_stamp(wheel_tree)) == set(PINNED.pristine)
    assert inspect(wheel_tree, PINNED).state is State.PATCHED


def test_git_gives_the_same_tree(repository: tuple[str, Pin], wheel_tree: Path, tmp_path: Path) -> None:
    url, pin = repository
    built = tree.ensure(UpstreamConfig(source="git", git_url=url), directory=tmp_path / "upstream", pin=pin)
    assert built.name == f"CosyVoice-{pin.commit[:7]}"
    assert without_stamp(built) == without_stamp(wheel_tree)


@pytest.mark.parametrize("patched", [False, True])
def test_a_checkout_gives_the_same_tree_and_is_only_read(
    patched: bool, pristine: Path, wheel_tree: Path, tmp_path: Path
) -> None:
    if patched:
        patch.apply(pristine, PINNED)
    before = snapshot(pristine)
    built = tree.ensure(UpstreamConfig(source="path", path=str(pristine)), directory=tmp_path / "upstream")
    assert without_stamp(built) == without_stamp(wheel_tree)
    assert snapshot(pristine) == before


@pytest.mark.parametrize("missing", [False, True])
def test_a_checkout_that_is_not_upstreams_is_refused(missing: bool, pristine: Path, tmp_path: Path) -> None:
    (pristine / LLM).write_text("# mine\n")
    if missing:
        (pristine / LLM).unlink()
    with pytest.raises(UserError, match=f": {LLM}: ") as caught:
        tree.ensure(UpstreamConfig(source="path", path=str(pristine)), directory=tmp_path / "upstream")
    assert caught.value.messages[0].startswith(f"upstream.source path: {pristine}: ")
    assert not trees(tmp_path / "upstream")


def test_a_path_without_a_checkout(tmp_path: Path) -> None:
    for path, message in ((None, "upstream.path is not set"), (str(tmp_path), "no CosyVoice checkout there")):
        with pytest.raises(UserError, match=message):
            tree.ensure(UpstreamConfig(source="path", path=path), directory=tmp_path / "upstream")


def test_auto_goes_on_to_git_when_the_wheel_is_not_the_one(
    repository: tuple[str, Pin], wheel_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, pin = repository
    other = with_wheel_of_another_hash(pin, tmp_path)
    built = tree.ensure(UpstreamConfig(git_url=url), directory=tmp_path / "upstream", pin=other)
    assert without_stamp(built) == without_stamp(wheel_tree)
    assert "could not bring it from wheel" in capsys.readouterr().out


def test_when_nothing_works_every_reason_is_given(tmp_path: Path) -> None:
    pin = with_wheel_of_another_hash(PINNED, tmp_path)
    with pytest.raises(UserError) as caught:
        tree.ensure(UpstreamConfig(git_url=str(tmp_path / "no repository")), directory=tmp_path / "upstream", pin=pin)
    wheel, git_, remedy = caught.value.messages
    assert wheel.startswith("upstream.source wheel: uv: ") and "ash mismatch" in wheel
    assert git_.startswith("upstream.source git: git: ") and "no repository" in git_
    assert "upstream.source=path upstream.path=DIR" in remedy
    assert not trees(tmp_path / "upstream")


def test_what_a_killed_run_left_is_cleared(pristine: Path, tmp_path: Path) -> None:
    leftover = tmp_path / "upstream" / ".building-abc"
    leftover.mkdir(parents=True)
    (leftover / "half").touch()
    tree.ensure(UpstreamConfig(source="path", path=str(pristine)), directory=tmp_path / "upstream")
    assert not leftover.exists()


def test_ready_names_what_is_wrong_and_the_stage(wheel_tree: Path, tmp_path: Path) -> None:
    directory = tmp_path / "upstream"
    with pytest.raises(UserError, match="not there yet; run stage -1"):
        tree.ready(directory=directory)
    shutil.copytree(wheel_tree, directory / PINNED.name)
    assert tree.ready(Config(), directory=directory) == directory / PINNED.name
    (directory / PINNED.name / LLM).write_text("# mine\n")
    with pytest.raises(UserError, match="run stage -1") as caught:
        tree.ready(directory=directory)
    assert LLM in str(caught.value)


def test_an_empty_directory_is_filled(pristine: Path, tmp_path: Path) -> None:
    directory = tmp_path / "upstream"
    (directory / PINNED.name).mkdir(parents=True)  # as a mount point of a container is
    with pytest.raises(UserError, match="not there yet"):
        tree.ready(directory=directory)
    tree.ensure(UpstreamConfig(source="path", path=str(pristine)), directory=directory)
    tree.ready(directory=directory)


def test_a_pristine_tree_is_patched(wheel_tree: Path, tmp_path: Path) -> None:
    directory = tmp_path / "upstream"
    shutil.copytree(wheel_tree, directory / PINNED.name)
    patch.revert(directory / PINNED.name, PINNED)
    with pytest.raises(UserError, match="pristine"):
        tree.ready(directory=directory)
    nowhere = UpstreamConfig(source="git", git_url=str(tmp_path / "no repository"))  # nothing is to be brought
    tree.ensure(nowhere, directory=directory)
    tree.ready(directory=directory)


def test_edits_in_the_tree_are_never_overwritten(wheel_tree: Path, tmp_path: Path) -> None:
    directory = tmp_path / "upstream"
    shutil.copytree(wheel_tree, directory / PINNED.name)
    (directory / PINNED.name / LLM).write_text("# mine\n")
    with pytest.raises(UserError, match=f"{LLM}: not as upstream") as caught:
        tree.ensure(UpstreamConfig(), directory=directory)
    assert "delete it, and run stage -1 again" in str(caught.value)
    assert (directory / PINNED.name / LLM).read_text() == "# mine\n"


def test_a_tree_of_an_older_series_is_replaced(pristine: Path, tmp_path: Path) -> None:
    older = replace(PINNED, directory=tmp_path / "older")
    shutil.copytree(PINNED.directory, older.directory)
    (older.directory / "series").write_text("".join(f"{one.name}\n" for one in PINNED.patches[:-2]))
    older.recorded.write_text(patch.record(pristine, older))
    config = UpstreamConfig(source="path", path=str(pristine))
    built = tree.ensure(config, directory=tmp_path / "upstream", pin=older)
    assert inspect(built, PINNED).state is State.HALF_APPLIED
    tree.ensure(config, directory=tmp_path / "upstream")
    assert inspect(built, PINNED).state is State.PATCHED
    assert trees(tmp_path / "upstream") == [PINNED.name]


def trees(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir() if path.is_dir()]


def with_wheel_of_another_hash(pin: Pin, tmp_path: Path) -> Pin:
    other = replace(pin, directory=tmp_path / "pin")
    shutil.copytree(pin.directory, other.directory)
    requirement = (other.directory / "wheel.txt").read_text()
    (other.directory / "wheel.txt").write_text(requirement.replace("sha256:c77", "sha256:c78"))
    return other
