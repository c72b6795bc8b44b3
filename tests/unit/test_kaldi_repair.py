"""Repair and deep validation: every bad directory exits with 1; what needs no guess is mended, once, with a backup."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cosytune import kaldi
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


BAD = {
    "other transcript": ("text", "声-a 別の文\n".encode()),
    "pipe": ("wav.scp", "声-d cat wav/声-a.wav |\n".encode()),
    "missing wav": ("wav.scp", "声-d wav/gone.wav\n".encode()),
    "path with space": ("wav.scp", "声-d wav/a b.wav\n".encode()),
    "path out": ("wav.scp", "声-d ../../../声-a.wav\n".encode()),
    "tilde": ("wav.scp", "声-d ~/a.wav\n".encode()),
    "NUL": ("text", "声-d a\0b\n".encode()),
    "two speakers": ("utt2spk", "声-d 声 x\n".encode()),
    "prefix": ("utt2spk", "x-d 声\n".encode()),
    "empty transcript": ("text", "声-d\n".encode()),
    "reserved": ("text", "声-d <s> a\n".encode()),
    "spk2gender": ("spk2gender", "声 x\n".encode()),
    "utt2num_frames": ("utt2num_frames", "声-a 1.5\n".encode()),
    "segments": ("segments", "声-a 声-a 3 1\n".encode()),
    "reco2dur": ("reco2dur", "声-a 0\n".encode()),
    "feats.scp": ("feats.scp", "声-x a.ark:1\n".encode()),
    "cmvn.scp": ("cmvn.scp", b"x a.ark:1\n"),
}


@pytest.mark.parametrize("name", BAD)
def test_every_bad_directory_exits_with_one(data: Path, name: str) -> None:
    file, line = BAD[name]
    append(data / file, line)
    assert status(data) == 1
    assert any(f"{data / file}:" in problem for problem in kaldi.validate(data, deep=True))


@pytest.mark.parametrize("name", ["other transcript", "missing wav", "pipe"])
def test_what_needs_a_person_is_left_and_named(data: Path, name: str) -> None:
    file, line = BAD[name]
    append(data / file, line)
    if file == "wav.scp":
        append(data / "text", "声-d 文\n".encode())
        append(data / "utt2spk", "声-d 声\n".encode())
    assert status(data, "--repair") == 1
    assert line in (data / file).read_bytes()


@pytest.mark.parametrize(("file", "reason"), [("wav.scp", "no audio"), ("text", "no transcript")])
def test_an_utterance_that_cannot_be_is_dropped_and_counted(data: Path, file: str, reason: str) -> None:
    (data / file).write_bytes((data / file).read_bytes().split(b"\n", 1)[1])
    assert f"3 utterances = 2 kept + 1 dropped ({reason})" in repair(data)[-1]
    assert kaldi.validate(data, deep=True) == []
    assert len(list((data / "wav").iterdir())) == 3


@pytest.mark.parametrize(
    ("samples", "rate_hz", "what"),
    [(np.zeros(0), 24000, "no samples"), (np.ones(24000) / 2, 16000, "16000 Hz"), (None, 0, "not audio")],
)
def test_audio_is_opened(data: Path, samples: np.ndarray | None, rate_hz: int, what: str) -> None:
    path = data / "wav" / "声-b.wav"
    if samples is None:
        path.write_bytes(b"no wav at all")
    else:
        soundfile.write(path, samples, rate_hz)
    assert any(what in problem for problem in kaldi.validate(data, deep=True))
    assert kaldi.validate(data) == []
    before = path.read_bytes()
    assert status(data, "--repair") == 1
    assert path.read_bytes() == before


def test_an_encoding_that_would_be_a_guess_is_left_alone(data: Path) -> None:
    raw = "声-a 今日は\n".encode("euc_jp")
    (data / "text").write_bytes(raw)
    assert status(data, "--repair") == 1
    assert (data / "text").read_bytes() == raw
