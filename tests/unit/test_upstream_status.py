"""`python -m cosytune.upstream status|apply|revert` on a checkout in every state that it can be in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cosytune.errors import UserError
from cosytune.layout import PATCHES, ROOT
from cosytune.upstream import patch
from cosytune.upstream.__main__ import main
from cosytune.upstream.manifest import COSYVOICE, MATCHA, PINNED
from cosytune.upstream.status import State, inspect
from upstream_checkouts import commit_all, snapshot

TRAIN_UTILS = "cosyvoice/utils/train_utils.py"
PROCESSOR = "cosyvoice/dataset/processor.py"
LLM = "cosyvoice/llm/llm.py"


def refused(checkout: Path, state: State, *named: str) -> str:
    """status, apply and revert all refuse with exit status 1, name the files and change nothing."""
    before = snapshot(checkout)
    for command in ("status", "apply", "revert"):
        with pytest.raises(UserError) as caught:
            main([command, "--dir", str(checkout)])
        assert caught.value.exit_status == 1
        message = str(caught.value)
        assert f"{checkout}: {state.value}: " in message
        for name in named:
            assert name in message
    assert snapshot(checkout) == before
    return message


def test_apply_then_revert_gives_the_same_bytes(pristine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(pristine)
    assert main(["status", "--dir", str(pristine)]) == 0
    assert ": pristine: " in capsys.readouterr().out

    assert main(["apply", "--dir", str(pristine)]) == 0
    assert f": patched: CosyVoice-6e01309, all {len(PINNED.patches)} patches applied" in capsys.readouterr().out
    changed = {path for path, data in snapshot(pristine).items() if data != before[path]}
    assert changed == set(PINNED.touched)
    assert main(["status", "--dir", str(pristine)]) == 0

    assert main(["revert", "--dir", str(pristine)]) == 0
    assert snapshot(pristine) == before


def test_a_second_apply_or_revert_has_nothing_to_do(pristine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["revert", "--dir", str(pristine)]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(["apply", "--dir", str(pristine)]) == 0
    before = snapshot(pristine)
    capsys.readouterr()
    assert main(["apply", "--dir", str(pristine)]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert snapshot(pristine) == before


def test_the_patched_code_is_what_the_patches_say(pristine: Path) -> None:
    patch.apply(pristine, PINNED)
    text = (pristine / TRAIN_UTILS).read_text()
    assert "options._timeout" not in text
    assert "logging.debug(" not in text
    assert not any(line.startswith(("import deepspeed", "from deepspeed")) for line in text.splitlines())
    for path in PINNED.touched:
        compile((pristine / path).read_text(), path, "exec")


def test_file_modes_survive(pristine: Path) -> None:
    (pristine / TRAIN_UTILS).chmod(0o640)
    patch.apply(pristine, PINNED)
    assert (pristine / TRAIN_UTILS).stat().st_mode & 0o777 == 0o640


def test_half_applied_up_to_a_patch(pristine: Path) -> None:
    for one in PINNED.patches[:2]:
        patch.git_apply(pristine, one)
    message = refused(pristine, State.HALF_APPLIED, f"{TRAIN_UTILS}: patched up to 0002-losses-at-info.patch")
    assert f"{PROCESSOR}: pristine" in message


def test_half_applied_one_file_alone(pristine: Path) -> None:
    for one in PINNED.patches:
        if one.name.startswith(("0005", "0008")):
            patch.git_apply(pristine, one)
    refused(pristine, State.HALF_APPLIED, f"{PROCESSOR}: patched", f"{TRAIN_UTILS}: pristine")


def test_half_applied_from_the_middle_of_the_series(pristine: Path) -> None:
    patch.git_apply(pristine, PINNED.patches[1])
    refused(pristine, State.HALF_APPLIED, f"{TRAIN_UTILS}: only 0002-losses-at-info.patch applied")


@pytest.mark.parametrize("path", [LLM, TRAIN_UTILS])
@pytest.mark.parametrize("patched", [False, True])
def test_hand_edited(pristine: Path, path: str, patched: bool) -> None:
    if patched:
        patch.apply(pristine, PINNED)
    (pristine / path).write_text((pristine / path).read_text() + "# mine\n")
    refused(pristine, State.HAND_EDITED, f"{path}: not as upstream has it at 6e01309", f"git checkout -- {path}")


def test_a_file_more_or_less(pristine: Path) -> None:
    (pristine / "cosyvoice/llm/mine.py").touch()
    (pristine / LLM).unlink()
    refused(pristine, State.HAND_EDITED, "cosyvoice/llm/mine.py: not upstream's", f"{LLM}: missing")


def test_what_a_failed_patch_leaves_is_named(pristine: Path) -> None:
    (pristine / f"{TRAIN_UTILS}.rej").touch()
    refused(pristine, State.HAND_EDITED, f"{TRAIN_UTILS}.rej: not upstream's")


def test_submodule_not_there(pristine: Path) -> None:
    shutil.rmtree(pristine / MATCHA)
    refused(pristine, State.INCOMPLETE, f"{MATCHA}: missing", "git submodule update --init --force")


def test_a_missing_file(pristine: Path) -> None:
    (pristine / TRAIN_UTILS).unlink()
    refused(pristine, State.INCOMPLETE, f"{TRAIN_UTILS}: missing", f"git checkout -- {TRAIN_UTILS}")


def test_another_version_by_its_files(pristine: Path) -> None:
    for path in sorted((pristine / COSYVOICE).rglob("*.py")):
        if path.stat().st_size:
            path.write_text(path.read_text() + "# of another version\n")
    refused(
        pristine, State.UNKNOWN_VERSION, "files of cosyvoice/ differ, and only 6e01309 is known: git checkout 6e01309"
    )


def test_another_version_by_its_commit(pristine: Path) -> None:
    (pristine / LLM).write_text((pristine / LLM).read_text() + "# of another version\n")
    head = commit_all(pristine)
    refused(pristine, State.UNKNOWN_VERSION, f"HEAD is {head[:7]}", LLM)


def test_files_outside_the_packages_are_not_ours_to_judge(pristine: Path) -> None:
    for name in ("tools/mine.py", "examples/mine.py", "cosyvoice/utils/__pycache__/x.cpython-311.pyc", "webui.py"):
        (pristine / name).parent.mkdir(parents=True, exist_ok=True)
        (pristine / name).touch()
    assert main(["apply", "--dir", str(pristine)]) == 0


def test_another_commit_with_the_same_code_is_fine(pristine: Path) -> None:
    commit_all(pristine)
    assert inspect(pristine, PINNED).state is State.PRISTINE
    shutil.rmtree(pristine / MATCHA)
    assert inspect(pristine, PINNED).state is State.INCOMPLETE


def test_windows_line_endings_in_a_clone_without_its_submodule(pristine: Path) -> None:
    (pristine / LLM).write_bytes((pristine / LLM).read_bytes().replace(b"\n", b"\r\n"))
    shutil.rmtree(pristine / MATCHA)
    refused(pristine, State.WINDOWS_LINE_ENDINGS, LLM)


@pytest.mark.parametrize("patched", [False, True])
def test_windows_line_endings_are_explained(pristine: Path, patched: bool) -> None:
    if patched:
        patch.apply(pristine, PINNED)
    for path in (TRAIN_UTILS, LLM):
        (pristine / path).write_bytes((pristine / path).read_bytes().replace(b"\n", b"\r\n"))
    refused(pristine, State.WINDOWS_LINE_ENDINGS, TRAIN_UTILS, LLM, "CRLF", "core.autocrlf false")


def test_a_failure_halfway_brings_everything_back(pristine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = snapshot(pristine)
    rename, done = Path.replace, []

    def fail_at_the_third(self: Path, target: Path) -> Path:
        done.append(target)
        if len(done) == 3:
            raise OSError(28, "No space left on device", str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", fail_at_the_third)
    with pytest.raises(OSError, match="No space left"):
        patch.apply(pristine, PINNED)
    assert len(done) > 3  # two files were patched already, and put back
    assert snapshot(pristine) == before


@pytest.mark.parametrize(
    ("make", "status", "message"),
    [(False, 2, "no such directory"), (True, 1, "no CosyVoice checkout there")],
)
def test_no_checkout(tmp_path: Path, make: bool, status: int, message: str) -> None:
    directory = tmp_path / "空の 'dir'"
    if make:
        directory.mkdir()
    with pytest.raises(UserError, match=message) as caught:
        main(["status", "--dir", str(directory)])
    assert caught.value.exit_status == status


def test_as_a_program(pristine: Path) -> None:
    """Exit statuses as a shell sees them, inside another git repository, with settings that would change bytes."""
    (pristine.parent / ".gitconfig").write_text("[core]\n\tautocrlf = true\n[apply]\n\twhitespace = fix\n")
    subprocess.run(["git", "init", "-q", str(pristine.parent)], check=True)

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cosytune.upstream", command, "--dir", str(pristine)],
            env={**os.environ, "PYTHONPATH": str(ROOT / "tools"), "HOME": str(pristine.parent), "GIT_DIR": "nowhere"},
            capture_output=True,
            text=True,
        )

    before = snapshot(pristine)
    assert [run(command).returncode for command in ("status", "apply", "status", "revert")] == [0, 0, 0, 0]
    assert snapshot(pristine) == before
    (pristine / LLM).unlink()
    answer = run("apply")
    assert answer.returncode == 1
    assert answer.stderr.startswith(f"error: {pristine}: incomplete: {LLM}: missing")
    assert "Traceback" not in answer.stderr


def test_the_recorded_hashes_are_those_of_the_series(pristine: Path) -> None:
    assert patch.record(pristine, PINNED) == PINNED.recorded.read_text()
    assert inspect(pristine, PINNED).state is State.PRISTINE


def test_every_patch_is_explained() -> None:
    readme = (PATCHES / "README.md").read_text()
    assert {path.name for path in PINNED.directory.glob("0*.patch")} == {path.name for path in PINNED.patches}
    for one in PINNED.patches:
        assert f"| `{one.stem}` |" in readme
