"""The Kaldi data directory: what is written is read back, and every mistake in it is named with its line."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cosytune import kaldi
from cosytune.errors import UserError
from cosytune.layout import ROOT
from recordings import write_audio

UTTS = ("声-b c".replace(" ", "_"), "声-'a'", "声-Z")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    directory = tmp_path / "私の 声" / "all"
    samples = np.sin(np.arange(36000) / 20) / 2
    utterances = [
        kaldi.Utterance(utt, "声", write_audio(directory / "wav" / f"{utt}.wav", samples), f"text {n} of  it", 1.5)
        for n, utt in enumerate(UTTS)
    ]
    kaldi.write(directory, utterances)
    return directory


def edit(path: Path, old: str, new: str) -> None:
    content = path.read_text(encoding="utf-8")
    assert old in content
    path.write_text(content.replace(old, new, 1), encoding="utf-8")


def test_what_was_written_is_read_sorted_by_code_point(data: Path) -> None:
    read = kaldi.read(data)
    assert [one.utt for one in read.utterances] == sorted(UTTS)
    assert {one.text for one in read.utterances} == {"text 0 of  it", "text 1 of  it", "text 2 of  it"}
    assert all(one.wav.is_absolute() and one.wav.is_file() and one.duration_s == 1.5 for one in read.utterances)
    assert list(read.speakers) == ["声"]
    assert kaldi.validate(data) == []


def test_lines_are_sorted_as_the_c_locale_sorts(data: Path) -> None:
    for name in kaldi.FILES:
        raw = (data / name).read_bytes()
        by_sort = subprocess.run(["sort"], input=raw, env={"LC_ALL": "C"}, capture_output=True, check=True).stdout
        assert raw == by_sort


def test_a_moved_recipe_still_finds_its_wavs(data: Path, tmp_path: Path) -> None:
    shutil.move(data.parent, tmp_path / "elsewhere")
    assert all(one.wav.is_file() for one in kaldi.read(tmp_path / "elsewhere" / "all").utterances)


def test_a_split_points_to_the_wavs_of_all(data: Path) -> None:
    some = kaldi.read(data).utterances[:1]
    kaldi.write(data.parent / "cv", some)
    assert (data.parent / "cv" / "wav.scp").read_text(encoding="utf-8").split(" ", 1)[1].startswith("../all/wav/")
    assert kaldi.read(data.parent / "cv").utterances == some


@pytest.mark.parametrize(
    ("name", "old", "new", "place", "what"),
    [
        ("text", "声-Z text", "声-Y text", "text:2", "'声-Y' has no audio; add it to wav.scp"),
        ("text", "声-Z text", "声-Y text", "wav.scp:2", "'声-Z' has no transcript; add it to text"),
        ("text", " text 2 of  it", "", "text:2", "no transcript"),
        ("text", " text 2 of  it", " ", "text:2", "no transcript"),
        ("text", "声-Z text", "声-Z\ttext", "text:2", "a tab"),
        ("text", "声-Z text", "声-Z te\0xt", "text:2", "NUL"),
        ("text", "声-Z text", "声-'a' text", "text:2", "already in line 1"),
        ("text", "声-Z text", "\n声-Z text", "text:2", "an empty line"),
        ("text", "声-'a' text", "声-zz text", "text:2", "not in order"),
        ("wav.scp", "wav/声-Z.wav", "wav/gone.wav", "wav.scp:2", "no such file"),
        ("wav.scp", "wav/声-Z.wav", "cat wav/声-Z.wav |", "wav.scp:2", "commands are not run"),
        ("utt2dur", "声-Z 1.500000", "声-Z long", "utt2dur:2", "'long' is no duration"),
        ("utt2dur", "声-Z 1.500000", "声-Z -1", "utt2dur:2", "'-1' is no duration"),
        ("utt2dur", "声-Z 1.500000", "声-Z nan", "utt2dur:2", "'nan' is no duration"),
        ("utt2spk", "声-Z 声", "声-Z x", "spk2utt:1", "'声-Z' of '声' is of 'x' in utt2spk"),
        ("spk2utt", " 声-Z", "", "utt2spk:2", "'声-Z' is not in spk2utt"),
    ],
)
def test_each_mistake_is_named_with_file_and_line(
    data: Path, name: str, old: str, new: str, place: str, what: str
) -> None:
    edit(data / name, old, new)
    found = [problem for problem in kaldi.validate(data) if what in problem]
    assert len(found) == 1
    assert found[0].startswith(f"{data / place}: ")


def test_all_mistakes_come_at_once_and_read_refuses(data: Path) -> None:
    edit(data / "utt2dur", "声-Z 1.500000", "声-Z 0")
    edit(data / "wav.scp", "wav/声-Z.wav", "wav/gone.wav")
    with pytest.raises(UserError) as mistake:
        kaldi.read(data)
    assert len(mistake.value.messages) == 2


def test_shift_jis_is_a_line_number_and_no_traceback(data: Path) -> None:
    (data / "text").write_bytes("声-Z 一\n声-z 二\n".encode("cp932"))
    assert any(f"{data / 'text'}:1: not UTF-8" in problem for problem in kaldi.validate(data))


def test_a_missing_file_names_the_stage_that_makes_it(data: Path) -> None:
    (data / "spk2utt").unlink()
    assert kaldi.validate(data) == [f"{data / 'spk2utt'}: not there; run stage 0 (prepare) again: --stage 0"]


def test_a_directory_without_utterances_names_the_stage_that_makes_them(tmp_path: Path) -> None:
    kaldi.write(tmp_path, [])
    assert kaldi.validate(tmp_path) == [f"{tmp_path / 'wav.scp'}: empty; run stage 0 (prepare) again: --stage 0"]


def test_windows_line_ends_and_a_bom_are_read(data: Path) -> None:
    content = (data / "text").read_text(encoding="utf-8")
    (data / "text").write_bytes(b"\xef\xbb\xbf" + content.replace("\n", "\r\n").encode())
    assert kaldi.read(data).utterances[0].text == "text 1 of  it"


@pytest.mark.parametrize(("key", "value"), [("a b", "x"), ("a", "x\ny"), ("a", " "), ("a", "x\ty"), ("a", "x\0")])
def test_a_line_that_could_not_be_read_back_is_never_written(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(ValueError, match="not a line"):
        kaldi.write_table(tmp_path / "text", {key: value})
    assert not (tmp_path / "text").exists()


def test_the_command_ends_with_the_status(data: Path) -> None:
    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cosytune.kaldi", str(data)],
            env={"PYTHONPATH": str(ROOT / "tools"), "PATH": "/usr/bin:/bin", "PYTHONUTF8": "1"},
            capture_output=True,
            text=True,
        )

    assert run().returncode == 0
    edit(data / "text", "声-Z text", "声-Y text")
    bad = run()
    assert bad.returncode == 1
    assert "Traceback" not in bad.stderr
    assert "'声-Y' has no audio" in bad.stderr
