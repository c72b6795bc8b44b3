"""Deep validation: every mistake ends with exit status 1 and is named by its own message, with file and line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cosytune import kaldi
from cosytune.audio.folder import scan
from cosytune.audio.sources import find_sources
from cosytune.errors import UserError
from cosytune.kaldi.__main__ import main
from cosytune.layout import ROOT
from recordings import write_audio, write_clip

UTTS = ("声-a", "声-b", "声-c")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three good utterances, and every file that Kaldi knows beside them."""
    directory = tmp_path / "データ 1" / "all"
    samples = np.sin(np.arange(36000) / 20).astype(np.float32) / 2
    kaldi.write(
        directory,
        [
            kaldi.Utterance(utt, "声", write_audio(directory / "wav" / f"{utt}.wav", samples), f"今日は {utt}", 1.5)
            for utt in UTTS
        ],
    )
    for name, value in {
        "feats.scp": "feats.ark:1",
        "vad.scp": "vad.ark:1",
        "utt2lang": "ja",
        "utt2uniq": "x",
        "utt2num_frames": "150",
        "utt2warp": "1.0",
        "reco2dur": "1.5",
        "reco2file_and_channel": "file A",
        "text.original": "今日\u200bは か\u3099",
    }.items():
        kaldi.write_table(directory / name, dict.fromkeys(UTTS, value))
    kaldi.write_table(directory / "segments", {utt: f"{utt} 0 1.5" for utt in UTTS})
    for name, value in {"cmvn.scp": "cmvn.ark:1", "spk2gender": "f", "spk2warp": "1.0"}.items():
        kaldi.write_table(directory / name, {"声": value})
    return directory


def test_a_good_directory_with_every_file_is_well(data: Path) -> None:
    assert kaldi.validate(data, deep=True) == []


def more(line: str) -> Callable[[str], str]:
    return lambda content: f"{content}{line}\n"


def other(old: str, new: str) -> Callable[[str], str]:
    def change(content: str) -> str:
        assert old in content
        return content.replace(old, new, 1)

    return change


BAD: dict[str, tuple[str, Callable[[str], str], str, str]] = {
    # name -> the file, what is done to it, the place of the error, its words
    "two transcripts": ("text", more("声-a 別の文"), "text:4", "'声-a' is already in line 1"),
    "no audio": ("text", more("声-d 文"), "text:4", "'声-d' has no audio"),
    "no transcript": ("text", other("声-b 今日は 声-b\n", ""), "wav.scp:2", "'声-b' has no transcript"),
    "no speaker": ("utt2spk", other("声-b 声\n", ""), "wav.scp:2", "'声-b' has no speaker"),
    "no duration": ("utt2dur", other("声-b 1.500000\n", ""), "wav.scp:2", "'声-b' has no duration"),
    "no recording": ("utt2recording", other("声-b 声-b\n", ""), "wav.scp:2", "'声-b' has no recording"),
    "empty transcript": ("text", other(" 今日は 声-c", ""), "text:3", "'声-c' has no transcript"),
    "reserved word": ("text", other("今日は 声-b", "<s> 今日"), "text:2", "'<s>' is reserved"),
    "reserved end": ("text", other("今日は 声-b", "今日 </s>"), "text:2", "'</s>' is reserved"),
    "reserved number": ("text", other("今日は 声-b", "#0"), "text:2", "'#0' is reserved"),
    "NUL": ("text", other("今日は", "今\0日は"), "text:1", "a NUL character"),
    "tab": ("text", other("声-b ", "声-b\t"), "text:2", "a tab"),
    "two tabs": ("spk2gender", other(" ", "\t"), "spk2gender:1", "a tab"),
    "empty line": ("text", other("声-b", "\n声-b"), "text:2", "an empty line"),
    "space before": ("text", other("声-b", " 声-b"), "text:2", "begins with a space"),
    "not in order": ("text", other("声-a 今", "声-z 今"), "text:2", "'声-b' is not in order after '声-z'"),
    "byte order mark": ("text", lambda content: "\ufeff" + content, "text:1", "a byte order mark"),
    "Windows line end": ("text", other("声-b\n", "声-b\r\n"), "text:2", "a Windows line end"),
    "no last line end": ("text", lambda content: content[:-1], "text:3", "the last line has no line end"),
    "ideographic space": ("text", other("は 声-b", "は\u3000声-b"), "text:2", "U+3000 (IDEOGRAPHIC SPACE)"),
    "control character": ("text", other("は 声-b", "は\x07"), "text:2", "U+0007 (a control character)"),
    "mark inside": ("text", other("は 声-b", "は\ufeff"), "text:2", "U+FEFF"),
    "not composed": ("text", other("今日は 声-b", "か\u3099"), "text:2", "not composed (NFC)"),
    "empty file": ("vad.scp", lambda _: "", "vad.scp:1", "an empty file"),
    "pipe": ("wav.scp", other("wav/声-b.wav", "cat wav/声-b.wav |"), "wav.scp:2", "commands are not run"),
    "missing wav": ("wav.scp", other("wav/声-b", "wav/gone"), "wav.scp:2", "wav/gone.wav: no such file"),
    "space in a path": ("wav.scp", other("wav/声-b", "wav/声 b"), "wav.scp:2", "white space in a path"),
    "path that leads out": ("wav.scp", other("wav/声-b", "../../../声-b"), "wav.scp:2", "leads out of"),
    "tilde": ("wav.scp", other("wav/声-b", "~/声-b"), "wav.scp:2", "~ is not known to programs"),
    "two speakers": ("utt2spk", other("声-b 声", "声-b 声 x"), "utt2spk:2", "'声 x' is not one word"),
    "order of speakers": ("utt2spk", other("声-a 声", "声-a 声z"), "utt2spk:1", "speakers the other way round"),
    "speaker unlike": ("utt2spk", other("声-b 声", "声-b x"), "spk2utt:1", "'声-b' of '声' is of 'x' in utt2spk"),
    "speaker's utterance": ("spk2utt", more("声z 声-d"), "spk2utt:2", "'声-d' of '声z' is not there in utt2spk"),
    "not in spk2utt": ("spk2utt", other(" 声-b", ""), "utt2spk:2", "'声-b' is not in spk2utt"),
    "spk2utt's order": ("spk2utt", other("声-a 声-b", "声-b 声-a"), "spk2utt:1", "utterances are not in order"),
    "twice in spk2utt": ("spk2utt", other("声-a", "声-a 声-a"), "spk2utt:1", "'声-a' is already in line 1"),
    "duration in words": ("utt2dur", other("1.500000", "long"), "utt2dur:1", "'long' is no duration"),
    "endless duration": ("utt2dur", other("1.500000", "inf"), "utt2dur:1", "'inf' is no duration"),
    "another duration": ("utt2dur", other("1.500000", "1.6"), "utt2dur:1", "is said to last 1.6 s"),
    "two durations": ("utt2dur", other("1.500000", "1.5 2"), "utt2dur:1", "'1.5 2' is not one word"),
    "two recordings": ("utt2recording", other("声-b\n", "声-b x\n"), "utt2recording:2", "'声-b x' is not one word"),
    "features of nobody": ("feats.scp", more("声-x a.ark:1"), "feats.scp:4", "'声-x' is not in utt2spk"),
    "features missing": ("feats.scp", other("声-b feats.ark:1\n", ""), "feats.scp:1", "'声-b' of utt2spk is not there"),
    "voice activity": ("vad.scp", more("声-x a.ark:1"), "vad.scp:4", "'声-x' is not in utt2spk"),
    "two languages": ("utt2lang", other("ja", "ja en"), "utt2lang:1", "'ja en' is not one language"),
    "two uniques": ("utt2uniq", other(" x", " x y"), "utt2uniq:1", "'x y' is not one id"),
    "half a frame": ("utt2num_frames", other("150", "1.5"), "utt2num_frames:1", "'1.5' is not a whole number"),
    "no frames": ("utt2num_frames", other("150", "0"), "utt2num_frames:1", "'0' is not a whole number"),
    "utterance's warp": ("utt2warp", other("1.0", "1.5"), "utt2warp:1", "'1.5' is not a number between"),
    "speaker's warp": ("spk2warp", other("1.0", "x"), "spk2warp:1", "'x' is not a number between"),
    "gender": ("spk2gender", other("f", "x"), "spk2gender:1", "'x' is not m or f"),
    "nobody's gender": ("spk2gender", more("花 m"), "spk2gender:2", "'花' is not in spk2utt"),
    "speaker's statistics": ("cmvn.scp", more("花 a.ark:1"), "cmvn.scp:2", "'花' is not in spk2utt"),
    "segment backwards": ("segments", other("声-a 0 1.5", "声-a 2 1.5"), "segments:1", "is not a recording, its start"),
    "segment in part": ("segments", other("声-a 0 1.5", "声-a 0"), "segments:1", "is not a recording, its start"),
    "segment of nothing": ("segments", other("声-a 0", "x 0"), "segments:1", "'x' is not in wav.scp"),
    "no segment": ("segments", other("声-a 声-a", "声-a 声-b"), "wav.scp:1", "'声-a' is in no line of segments"),
    "recording's length": ("reco2dur", other("1.5", "0"), "reco2dur:1", "'0' is not seconds above 0"),
    "channel": ("reco2file_and_channel", other("A", "C"), "reco2file_and_channel:1", "'file C' is not a file name"),
    "nobody's original": ("text.original", more("声-x a"), "text.original:4", "'声-x' is not in utt2spk"),
}


@pytest.mark.parametrize("name", BAD)
def test_every_mistake_is_named(data: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    file, spoil, place, words = BAD[name]
    path = data / file
    path.write_bytes(spoil(path.read_bytes().decode()).encode())
    with pytest.raises(UserError) as mistake:
        main([str(data)])
    assert mistake.value.exit_status == 1
    assert [one for one in mistake.value.messages if one.startswith(f"{data / place}: ") and words in one]
    assert "all is well" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("samples", "rate_hz", "words"),
    [
        (np.zeros(0), 24000, "no samples"),
        (np.ones(24000) / 2, 16000, "16000 Hz, 1 channel, the others have 24000 Hz, 1 channel"),
        (np.ones((36000, 2)) / 2, 24000, "24000 Hz, 2 channels, the others have 24000 Hz, 1 channel"),
    ],
)
def test_audio_is_opened(data: Path, samples: np.ndarray, rate_hz: int, words: str) -> None:
    soundfile.write(data / "wav" / "声-b.wav", samples, rate_hz)
    (problem,) = kaldi.validate(data, deep=True)
    assert problem.startswith(f"{data / 'wav.scp'}:2: wav/声-b.wav: ")
    assert words in problem
    assert kaldi.validate(data) == [], "a stage that asks each time opens no audio"


BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut short": (lambda wav: wav[:5000], "truncated, 67044 bytes of samples are missing; copy or export it again"),
    "empty": (lambda _: b"", "empty (0 bytes); copy it again"),
    "web page": (lambda _: b"<!DOCTYPE html><p>Not found</p>", "a web page, not audio"),
    "pointer": (lambda _: b"version https://git-lfs.github.com/spec/v1\n", "a git-lfs pointer, not the audio"),
    "no audio": (lambda _: b"no wav at all", "not readable as audio"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_audio_that_is_none_or_half_is_named_for_what_it_is_and_never_mended(data: Path, name: str) -> None:
    spoil, words = BROKEN[name]
    path = data / "wav" / "声-b.wav"
    path.write_bytes(spoil(path.read_bytes()))
    (problem,) = kaldi.validate(data, deep=True)
    assert problem.startswith(f"{data / 'wav.scp'}:2: wav/声-b.wav: {words}")
    before = (data / "utt2dur").read_bytes()
    with pytest.raises(UserError) as mistake:
        main([str(data), "--repair"])
    assert (mistake.value.exit_status, list(mistake.value.messages)) == (1, [problem])
    assert (data / "utt2dur").read_bytes() == before


@pytest.mark.parametrize(("stated", "is_mended"), [("1.0", True), ("2.9", True), ("0.9", False), ("3.1", False)])
def test_a_length_that_is_far_off_is_a_question_to_a_person(data: Path, stated: str, is_mended: bool) -> None:
    """1.5 s of audio: within half of what is stated it is mended."""
    path = data / "utt2dur"
    good = path.read_bytes()
    path.write_bytes(bad := good.replace("声-b 1.500000".encode(), f"声-b {stated}".encode()))
    if is_mended:
        assert main([str(data), "--repair"]) == 0
    else:
        with pytest.raises(UserError, match="is it the right audio"):
            main([str(data), "--repair"])
    assert path.read_bytes() == (good if is_mended else bad)


@pytest.mark.parametrize("options", [[], ["--repair"]])
def test_a_directory_that_is_not_there_is_one_line(tmp_path: Path, options: list[str]) -> None:
    with pytest.raises(UserError) as mistake:
        main([str(tmp_path / "nope"), *options])
    assert list(mistake.value.messages) == [f"{tmp_path / 'nope'}: no such directory"]


@pytest.mark.parametrize(
    "speakers", [("a", "b"), ("a", "a-b"), ("spk1", "spk10"), ("a", "a!"), ("a", "a_b"), ("花", "花子"), ("x", "x.y")]
)
def test_the_order_of_speakers_is_judged_as_sort_judges_it(data: Path, speakers: tuple[str, str]) -> None:
    wav = data / "wav" / "声-a.wav"
    made = [kaldi.Utterance(f"{who}-{utt}", who, wav, "文", 1.5) for who in speakers for utt in ("1", "c", "に")]
    directory = data.parent / "two"
    kaldi.write(directory, made)
    lines = (directory / "utt2spk").read_bytes()
    by_speaker = subprocess.run(
        ["sort", "-k2"], input=lines, env={"LC_ALL": "C"}, capture_output=True, check=True
    ).stdout
    assert (kaldi.validate(directory, deep=True) == []) == (by_speaker == lines)


def test_ids_of_one_speaker_need_no_name_in_them(data: Path) -> None:
    """Kaldi advises it and does not ask for it."""
    made = [kaldi.Utterance(utt, "声", data / "wav" / "声-a.wav", "文", 1.5) for utt in ("x-1", "Z", "花")]
    kaldi.write(data.parent / "plain", made)
    assert kaldi.validate(data.parent / "plain", deep=True) == []


def test_stage_0s_own_ids_are_in_the_order_of_speakers(data: Path, tmp_path: Path) -> None:
    audio = tmp_path / "mine" / "audio"
    for name in ("spk1/a b.wav", "spk1/子/c.wav", "spk10/a.wav", "spk10/-a.wav", "spk2/'q'.wav", "花子/a.wav"):
        write_clip(audio / name, samples=np.zeros(10))
    found = find_sources(scan(audio), "mine", "by_folder", "ja")
    assert not found.problems
    assert len({source.speaker for source in found.sources}) == 4
    wav = data / "wav" / "声-a.wav"
    made = [kaldi.Utterance(source.utt, source.speaker, wav, "文", 1.5) for source in found.sources]
    kaldi.write(data.parent / "ours", made)
    assert kaldi.validate(data.parent / "ours", deep=True) == []


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8", "ja_JP.eucJP"])
def test_japanese_under_any_locale(data: Path, locale: str) -> None:
    """Kaldi's own script refuses all Japanese under some, and sorts it otherwise under others."""

    def run(*options: str) -> subprocess.CompletedProcess[bytes]:
        environment = {"PYTHONPATH": str(ROOT / "tools"), "PATH": "/usr/bin:/bin", "LC_ALL": locale}
        return subprocess.run(
            [sys.executable, "-m", "cosytune.kaldi", str(data), *options], env=environment, capture_output=True
        )

    good = run()
    assert good.returncode == 0, good.stderr.decode()
    assert f"{data}: 3 utterances, 1 speakers, 4.5 s; all is well" in good.stdout.decode()
    (data / "utt2dur").write_text("声-a 1.5\n", encoding="utf-8")
    bad = run()
    assert bad.returncode == 1
    assert "'声-b' has no duration" in bad.stderr.decode()
    assert run("--repair").returncode == 0
