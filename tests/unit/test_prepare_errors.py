"""Bad input of stage 0: one line for each mistake, all at once, with a remedy; exit status 1; data/all untouched."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cosytune import files
from cosytune.errors import UserError
from cosytune.layout import Layout
from recordings import make_recipe, run_prepare, run_stage_0, speech, write_audio, write_clip


def put(layout: Layout, name: str, content: str | bytes) -> None:
    path = layout.audio / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def messages(layout: Layout, *overrides: str) -> list[str]:
    with pytest.raises(UserError) as mistake:
        run_prepare(layout, *overrides)
    assert mistake.value.exit_status == 1
    assert all("\n" not in message for message in mistake.value.messages)
    assert not (layout.data_all / "text").exists()
    return list(mistake.value.messages)


def clip(name: str, text: str | None = "はい。", suffix: str = ".txt") -> Callable[[Layout], None]:
    return lambda layout: write_clip(layout.audio / name, text, suffix) and None


def both(*steps: Callable[[Layout], None]) -> Callable[[Layout], None]:
    def run(layout: Layout) -> None:
        for step in steps:
            step(layout)

    return run


def content(name: str, text: str | bytes) -> Callable[[Layout], None]:
    return lambda layout: put(layout, name, text)


def cut(name: str, keep: float) -> Callable[[Layout], None]:
    """A clip of which only a share of the bytes arrived."""

    def run(layout: Layout) -> None:
        path = write_clip(layout.audio / name, samples=speech(3.0))
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * keep)])

    return run


def samples(name: str, values: np.ndarray, **options: str) -> Callable[[Layout], None]:
    def run(layout: Layout) -> None:
        soundfile.write(layout.audio / name, values, 24000, **options)
        put(layout, Path(name).with_suffix(".txt").name, "はい。")

    return run


def link(name: str) -> Callable[[Layout], None]:
    return lambda layout: (layout.audio / name).symlink_to("/nowhere/a.wav")


def speaker_folders(layout: Layout) -> None:
    for folder in ("SPK1", "SPK2"):
        write_clip(layout.audio / folder / "a.wav")


def labelled_folders(layout: Layout) -> None:
    for folder in ("alice", "bob"):
        write_clip(layout.audio / folder / "a.wav", suffix=".lab")


GOOD = clip("good.wav")
NAN = np.where(np.arange(36000) == 500, np.nan, speech())

BAD = {
    "nothing": (lambda layout: None, "audio: no audio; put recordings there"),
    "only text": (content("a.txt", "はい"), "audio: no audio"),
    "empty transcript": (clip("a.wav", " \ufeff\r\n"), "audio/a.txt: empty transcript; write what is said"),
    "only marks": (clip("a.wav", "。。。"), "audio/a.txt: empty transcript"),
    "an encoding that cannot be told": (
        both(clip("a.wav", None), content("a.txt", "Ça va déjà très bien.".encode("latin-1"))),
        "audio/a.txt: not UTF-8, it looks like some other encoding",
    ),
    "half a utf-16 file": (
        both(clip("a.wav", None), content("a.txt", "日本語です。".encode("utf-16")[:-1])),
        "audio/a.txt: not UTF-8, it looks like UTF-16; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)",
    ),
    "stem twice": (both(clip("a.wav"), clip("a.mp3")), "audio/a.mp3: one id twice, the other is audio/a.wav"),
    "txt and lab differ": (
        both(clip("a.wav"), content("a.lab", "いいえ。")),
        "audio/a.wav: two different transcripts, audio/a.lab and audio/a.txt; keep one",
    ),
    "metadata and txt differ": (
        both(clip("a.wav"), content("metadata.csv", "a|いいえ。\n")),
        "two different transcripts, audio/metadata.csv:1 and audio/a.txt",
    ),
    "metadata id twice": (
        both(clip("wavs/a.wav", None), content("metadata.csv", "a|一\na|三\n")),
        "audio/metadata.csv:2: id 'a' is already in audio/metadata.csv:1",
    ),
    "metadata audio twice": (
        both(clip("wavs/a.wav", None), content("metadata.csv", "a|一\na.wav|一\n")),
        "audio/metadata.csv:2: audio/wavs/a.wav is already in audio/metadata.csv:1",
    ),
    "metadata without audio": (
        both(GOOD, content("metadata.csv", "good|はい。\nx|y\n")),
        "audio/metadata.csv:2: no audio 'x' in audio or its wavs/; add it or delete the line",
    ),
    "metadata malformed": (both(GOOD, content("metadata.csv", "a,b\n")), "audio/metadata.csv:1: 1 column(s)"),
    "metadata four columns": (both(GOOD, content("metadata.csv", "a|b|c|d\n")), "audio/metadata.csv:1: 4 column(s)"),
    "metadata empty text": (
        both(clip("a.wav", None), content("metadata.csv", "a|\n")),
        "audio/metadata.csv:1: empty transcript",
    ),
    "jsonl no json": (both(GOOD, content("l.jsonl", "\n{'a'}\n")), "audio/l.jsonl:2: not JSON"),
    "jsonl no text": (both(GOOD, content("l.jsonl", '{"audio": "good.wav"}')), 'l.jsonl:1: no "audio" or no "text"'),
    "jsonl not an object": (both(GOOD, content("l.jsonl", "[1]")), 'l.jsonl:1: no "audio" or no "text"'),
    "jsonl no file": (
        both(GOOD, content("l.jsonl", '{"audio": "x.wav", "text": "a"}')),
        "audio/l.jsonl:1: no audio x.wav; add it or delete the line",
    ),
    "jsonl twice": (
        both(GOOD, content("l.jsonl", '{"audio": "good.wav", "text": "はい。"}\n' * 2)),
        "audio/l.jsonl:2: audio/good.wav is already in audio/l.jsonl:1",
    ),
    "kaldi no file": (both(GOOD, content("k/wav.scp", "u x.wav\n"), content("k/text", "u a")), "k/wav.scp:1: no audio"),
    "kaldi command": (
        both(GOOD, content("k/wav.scp", "u touch X |\n"), content("k/text", "u a")),
        "audio/k/wav.scp:1: 'touch X |' is a command and is not run",
    ),
    "kaldi id twice": (
        both(GOOD, content("k/wav.scp", "u ../good.wav\nu ../good.wav\n"), content("k/text", "u はい。")),
        "audio/k/wav.scp:2: 'u' is already in line 1",
    ),
    "kaldi text without audio": (
        both(GOOD, content("k/wav.scp", "u ../good.wav\n"), content("k/text", "u はい。\nv x\n")),
        "audio/k/text:2: 'v' has no audio; add it to wav.scp",
    ),
    "kaldi empty text": (
        both(clip("a.wav", None), content("wav.scp", "u a.wav\n"), content("text", "u \n")),
        "audio/text:1: empty transcript",
    ),
    "kaldi segments": (
        both(GOOD, content("wav.scp", "u good.wav\n"), content("segments", "s u 0 1\n")),
        "audio/segments: recordings cut by a segments file are not read",
    ),
    "speakers by name": (speaker_folders, "audio: SPK1, SPK2 look like 2 speakers (folders named so); choose"),
    "speakers by lab": (labelled_folders, "audio: alice, bob look like 2 speakers (folders with .lab transcripts)"),
    "0 bytes": (both(clip("a.wav"), content("a.wav", b"")), "audio/a.wav: empty (0 bytes); copy it again"),
    "html": (
        both(clip("a.wav"), content("a.wav", "\n<!DOCTYPE html><title>404")),
        "audio/a.wav: a web page, not audio",
    ),
    "git-lfs": (
        both(clip("a.wav"), content("a.wav", "version https://git-lfs.github.com/spec/v1\n")),
        "audio/a.wav: a git-lfs pointer, not the audio; run git lfs pull",
    ),
    "random bytes": (
        both(clip("a.wav"), content("a.wav", np.random.default_rng(0).bytes(5000))),
        "audio/a.wav: not readable as audio (",
    ),
    "cut header": (cut("a.wav", 30 / 144044), "audio/a.wav: not readable as audio ("),
    "header only": (samples("a.wav", np.zeros(0)), "audio/a.wav: it holds no samples"),
    "half a wav": (cut("a.wav", 0.5), "audio/a.wav: truncated, 72022 bytes of samples are missing"),
    "half a flac": (cut("a.flac", 0.5), "audio/a.flac: cannot be decoded ("),
    "half an m4a": (cut("a.m4a", 0.5), "audio/a.m4a: not readable as audio ("),
    "nan": (samples("a.wav", NAN, subtype="FLOAT"), "audio/a.wav: it holds NaN or infinite samples"),
    "broken link": (both(GOOD, link("b.wav")), "audio/b.wav: a link to a file that is not there"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(tmp_path: Path, case: str) -> None:
    layout = make_recipe(tmp_path)
    make, expected = BAD[case]
    make(layout)
    found = messages(layout)
    assert len(found) == 1, found
    assert expected in found[0]


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    layout = make_recipe(tmp_path)
    GOOD(layout)
    Path(os.fsdecode(bytes(layout.audio) + b"/\x93\xfa.wav")).write_bytes(b"x")
    assert "the file name is not UTF-8; rename it" in messages(layout)[0]


def test_by_folder_needs_folders(tmp_path: Path) -> None:
    layout = make_recipe(tmp_path)
    GOOD(layout)
    assert "audio/good.wav: in no speaker's folder" in messages(layout, "audio.speakers=by_folder")[0]


def test_all_mistakes_come_at_once(tmp_path: Path) -> None:
    layout = make_recipe(tmp_path)
    for number in range(14):
        write_clip(layout.audio / f"empty{number:02d}.wav", "")
        write_audio(layout.audio / f"none{number:02d}.wav")
    put(layout, "zero.wav", b"")
    put(layout, "zero.txt", "はい。")
    put(layout, "metadata.csv", "x\n")
    found = messages(layout)
    assert sum("empty transcript" in message for message in found) == 10
    assert any(message.startswith("... and 4 more: write what is said") for message in found)
    untranscribed = next(message for message in found if ": no transcript" in message)
    assert untranscribed.startswith("audio/none00.wav, ")
    assert " and 4 more: no transcript" in untranscribed
    assert any("zero.wav: empty (0 bytes)" in message for message in found)
    assert any("metadata.csv:1" in message for message in found)


def test_when_nothing_is_left_the_table_says_why(tmp_path: Path) -> None:
    layout = make_recipe(tmp_path)
    write_clip(layout.audio / "a.wav", samples=speech(0.5))
    with pytest.raises(UserError, match=r"no clip is left; the table above says why.*another value.*, or audio.keep"):
        run_prepare(layout)
    assert (layout.quarantine / "mine-a.wav").is_file()
    report = files.read_json(layout.data_all / "report.json")
    assert (report["input"], report["kept"], report["dropped"]) == (1, 0, {"too_short": 1})


def test_without_a_transcript_the_commands_that_fetch_the_models(tmp_path: Path) -> None:
    layout = make_recipe(tmp_path)
    write_clip(layout.audio / "a.wav", None)
    whisper, align = messages(layout, "transcribe.model=large-v2")
    assert whisper.startswith("audio/a.wav: no transcript; transcribe.model: ")
    assert "huggingface-cli download Systran/faster-whisper-large-v2 --local-dir" in whisper
    assert "put X.txt with its text beside every X.wav" in whisper
    assert "transcribe.model=none" in whisper
    assert "huggingface-cli download jonatasgrosman/wav2vec2-large-xlsr-53-japanese" in align
    assert "transcribe.align_model=none" in align


def test_a_mistake_is_a_line_and_a_status_and_mending_it_goes_on(tmp_path: Path) -> None:
    layout = make_recipe(tmp_path, "私の 声")
    write_clip(layout.audio / "a.wav", "")
    failed = run_stage_0(layout)
    assert failed.returncode == 1
    errors = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
    assert errors == [
        "error: audio/a.txt: empty transcript; write what is said, or remove it to have the recording transcribed"
    ]
    assert "Traceback" not in failed.stderr
    put(layout, "a.txt", "はい。")
    assert run_stage_0(layout).returncode == 0


def test_without_sox_the_error_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = make_recipe(tmp_path)
    GOOD(layout)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "sox, ffmpeg, ffprobe: not installed; run tools/install.sh" in messages(layout)[0]
