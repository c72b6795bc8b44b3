"""Repair: what needs no guess is mended, once, with a backup; what needs a person is left and named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cosytune import files, kaldi
from cosytune.errors import UserError
from cosytune.kaldi.__main__ import main
from cosytune.kaldi.repair import repair
from recordings import write_audio

UTTS = ("声-a", "声-b", "声-c")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    directory = tmp_path / "data" / "all"
    samples = np.sin(np.arange(36000) / 20).astype(np.float32) / 2
    kaldi.write(
        directory,
        [
            kaldi.Utterance(
                utt, "声", write_audio(directory / "wav" / f"{utt}.wav", samples), f"今日は {utt} です", 1.5, "take 1"
            )
            for utt in UTTS
        ],
    )
    return directory


def status(*arguments: object) -> int:
    try:
        return main([str(one) for one in arguments])
    except UserError as mistake:
        return mistake.exit_status


def append(path: Path, data: bytes) -> None:
    path.write_bytes((path.read_bytes() if path.is_file() else b"") + data)


def edit(path: Path, old: str, new: str) -> None:
    content = path.read_bytes()
    assert old.encode() in content
    path.write_bytes(content.replace(old.encode(), new.encode(), 1))


def test_a_written_directory_is_well_and_upstreams_readers_read_it(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kaldi.validate(data, deep=True) == []
    assert repair(data)[0].endswith("3 utterances = 3 kept; nothing to mend")
    assert {one.recording for one in kaldi.read(data).utterances} == {"take_1"}
    monkeypatch.chdir(data)  # upstream's tools split every line at white space
    lines = [line.split() for line in Path("text").read_text(encoding="utf-8").splitlines()]
    assert {words[0]: " ".join(words[1:]) for words in lines} == {utt: f"今日は {utt} です" for utt in UTTS}
    for line in Path("wav.scp").read_text(encoding="utf-8").splitlines():
        _utt, path = line.split()
        assert soundfile.info(path).frames == 36000


def test_a_directory_without_recordings_is_read(data: Path) -> None:
    (data / "utt2recording").unlink()
    assert {one.recording for one in kaldi.read(data).utterances} == {""}


MENDABLE: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "bom": ("text", lambda raw: b"\xef\xbb\xbf" + raw),
    "crlf": ("text", lambda raw: raw.replace(b"\n", b"\r\n")),
    "no last line end": ("text", lambda raw: raw[:-1]),
    "tab": ("utt2spk", lambda raw: raw.replace(b" ", b"\t")),
    "ideographic space": ("text", lambda raw: raw.replace(" です".encode(), "\u3000です".encode())),
    "order": ("text", lambda raw: b"".join(reversed(raw.splitlines(keepends=True)))),
    "twice": ("wav.scp", lambda raw: raw + raw),
    "not NFC": ("text", lambda raw: raw.replace("で".encode(), "て\u3099".encode())),
    "Shift-JIS": ("text", lambda raw: raw.decode().encode("cp932")),
    "UTF-16": ("text", lambda raw: raw.decode().encode("utf-16")),
    "spk2utt": ("spk2utt", lambda raw: raw.replace(" 声-b".encode(), b"")),
    "spk2utt order": ("spk2utt", lambda raw: raw.replace("声-a 声-b".encode(), "声-b 声-a".encode())),
    "duration": ("utt2dur", lambda raw: raw.replace(b"1.500000", b"2.0")),
    "recording": ("utt2recording", lambda raw: raw.split(b"\n", 1)[1]),
}


@pytest.mark.parametrize("name", MENDABLE)
def test_what_needs_no_guess_is_mended_once_with_a_backup(
    data: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file, spoil = MENDABLE[name]
    good = {path.name: path.read_bytes() for path in data.iterdir() if path.is_file()}
    bad = spoil(good[file])
    (data / file).write_bytes(bad)
    assert status(data) == 1
    assert status(data, "--repair") == 0
    if name != "recording":
        assert {path.name: path.read_bytes() for path in data.iterdir() if path.is_file()} == good
    (backup,) = data.glob(".backup-*")
    assert (backup / file).read_bytes() == bad
    assert f"{data / file}:" in capsys.readouterr().out
    assert "nothing to mend" in repair(data)[0]
    assert len(list(data.glob(".backup-*"))) == 1


NEEDS_A_PERSON = {
    "other transcript": ("text", "声-a 別の文\n", "'声-a' is already in line"),
    "pipe": ("wav.scp", "声-d cat wav/声-a.wav |\n", "commands are not run"),
    "missing wav": ("wav.scp", "声-d wav/gone.wav\n", "no such file"),
    "NUL": ("text", "声-c a\0b\n", "a NUL character"),
    "gender": ("spk2gender", "声 x\n", "'x' is not m or f"),
}


@pytest.mark.parametrize("name", NEEDS_A_PERSON)
def test_what_needs_a_person_is_left_and_named(data: Path, name: str) -> None:
    file, line, words = NEEDS_A_PERSON[name]
    append(data / file, line.encode())
    if file == "wav.scp":
        append(data / "text", "声-d 文\n".encode())
        append(data / "utt2spk", "声-d 声\n".encode())
    with pytest.raises(UserError, match=words) as mistake:
        main([str(data), "--repair"])
    assert mistake.value.exit_status == 1
    assert line.encode() in (data / file).read_bytes()


@pytest.mark.parametrize(("file", "reason"), [("wav.scp", "no audio"), ("text", "no transcript")])
def test_an_utterance_that_cannot_be_is_dropped_and_counted(data: Path, file: str, reason: str) -> None:
    (data / file).write_bytes((data / file).read_bytes().split(b"\n", 1)[1])
    assert f"3 utterances = 2 kept + 1 dropped ({reason})" in repair(data)[-1]
    assert kaldi.validate(data, deep=True) == []
    assert len(list((data / "wav").iterdir())) == 3


def test_audio_that_is_wrong_is_left_alone(data: Path) -> None:
    path = data / "wav" / "声-b.wav"
    path.write_bytes(b"no wav at all")
    assert status(data, "--repair") == 1
    assert path.read_bytes() == b"no wav at all"
    assert {one.name for one in data.iterdir()} == {*kaldi.FILES, kaldi.RECORDINGS, "wav"}


def test_each_change_is_told_with_the_line_where_it_was(data: Path) -> None:
    """Lines that were not there have no number."""
    edit(data / "text", "声-b 今日は", "声-b\t今日は")
    edit(data / "utt2spk", "声-c 声\n", "声-d 声\n")
    edit(data / "utt2dur", "声-b 1.500000\n", "声-b 2\n")
    edit(data / "utt2dur", "声-a 1.500000\n", "\n")
    edit(data / "utt2recording", "声-b take_1\n", "")
    assert repair(data)[:-1] == [
        f"{data / 'wav.scp'}:3: '声-c' dropped: no speaker",
        f"{data / 'text'}:2: '声-b': white space or composed letters mended",
        f"{data / 'text'}:3: '声-c' dropped: no speaker",
        f"{data / 'utt2spk'}:3: '声-d' dropped: no audio",
        f"{data / 'utt2dur'}:1: empty line deleted",
        f"{data / 'utt2dur'}:3: '声-c' dropped: no speaker",
        f"{data / 'utt2dur'}:2: '声-b': 2 made 1.500000, as its audio lasts",
        f"{data / 'utt2dur'}: '声-a 1.500000' added, as its audio lasts",
        f"{data / 'utt2recording'}:2: '声-c' dropped: no speaker",
        f"{data / 'utt2recording'}: '声-b 声-b' added, a recording of its own",
        f"{data / 'spk2utt'}: made from utt2spk",
    ]


@pytest.fixture
def rich(data: Path) -> Path:
    """A second speaker with one utterance, files of utterances, of speakers and of recordings, and texts as typed."""
    wav = write_audio(data / "wav" / "花-a.wav", np.ones(36000) / 2)
    kaldi.write(data, [*kaldi.read(data).utterances, kaldi.Utterance("花-a", "花", wav, "はい", 1.5)])
    utts = [one.utt for one in kaldi.read(data).utterances]
    kaldi.write_table(data / "utt2lang", dict.fromkeys(utts, "ja"))
    kaldi.write_table(data / "reco2dur", dict.fromkeys(utts, "1.5"))
    kaldi.write_table(data / "text.original", dict.fromkeys(utts, "か\u3099  は\u200bい"))
    kaldi.write_table(data / "spk2gender", {"声": "f", "花": "m"})
    assert kaldi.validate(data, deep=True) == []
    return data


def test_what_is_dropped_leaves_every_file_and_a_speaker_with_the_last_of_it(rich: Path) -> None:
    edit(rich / "text", "花-a はい\n", "花-a\n")
    told = repair(rich)
    assert told[-1].startswith(f"{rich}: 4 utterances = 3 kept + 1 dropped (no transcript); 10 files changed")
    assert f"{rich / 'spk2gender'}:2: '花' dropped: no utterance of this speaker" in told
    assert f"{rich / 'text.original'}:4: '花-a' dropped: no transcript" in told
    assert not [one.name for one in rich.iterdir() if one.is_file() and "花" in one.read_text(encoding="utf-8")]
    assert (rich / "text.original").read_text(encoding="utf-8").startswith("声-a か\u3099  は\u200bい\n"), "as typed"
    assert kaldi.validate(rich, deep=True) == []
    assert (rich / "wav" / "花-a.wav").is_file()


def test_a_repair_that_was_killed_is_finished_by_the_next(rich: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(rich / "text", "花-a はい\n", "花-a\n")
    edit(rich / "utt2dur", "1.500000", "2")
    before = {path.name: path.read_bytes() for path in rich.iterdir() if path.is_file()}
    whole = files.write_bytes
    for written in range(10):  # of the ten files that change
        for name, content in before.items():
            (rich / name).write_bytes(content)
        left = written

        def write_or_stop(path: Path, data: bytes) -> None:
            nonlocal left
            if not left:
                raise KeyboardInterrupt
            left -= 1
            whole(path, data)

        monkeypatch.setattr(files, "write_bytes", write_or_stop)
        with pytest.raises(KeyboardInterrupt):
            repair(rich)
        monkeypatch.setattr(files, "write_bytes", whole)
        backups = [{one.name: one.read_bytes() for one in folder.iterdir()} for folder in rich.glob(".backup-*")]
        assert all(before[name] == content for folder in backups for name, content in folder.items())
        assert status(rich, "--repair") == 0
        assert [one.utt for one in kaldi.read(rich).utterances] == list(UTTS)
        assert "nothing to mend" in repair(rich)[0]
        for folder in rich.glob(".backup-*"):
            shutil.rmtree(folder)


def test_what_would_leave_nothing_is_no_repair(data: Path) -> None:
    """As in a directory of long recordings with segments: one wav for many utterances."""
    (data / "wav.scp").write_text("talk wav/声-a.wav\n", encoding="utf-8")
    before = {path.name: path.read_bytes() for path in data.iterdir() if path.is_file()}
    (told,) = repair(data)
    assert "4 utterances = 0 kept + " in told
    assert told.endswith("nothing was changed")
    assert {path.name: path.read_bytes() for path in data.iterdir() if path.is_file()} == before


def test_an_encoding_that_would_be_a_guess_is_left_alone(data: Path) -> None:
    raw = "声-a 今日は\n".encode("euc_jp")
    (data / "text").write_bytes(raw)
    assert status(data, "--repair") == 1
    assert (data / "text").read_bytes() == raw
