"""A voice becomes a model directory, and upstream's own class speaks from it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
import torch

from cosytune import base, families, files
from cosytune.errors import UserError
from cosytune.layout import ROOT
from cosytune.schema import Config
from cosytune.voice import assemble, bundle, origin, synthesis
from cosytune.voice.bundle import Voice

FAMILY = families.get("cosyvoice2-0.5b")
SPEAKER = "声 'A'"


@pytest.fixture(scope="module")
def voice(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Voice:
    """The base's own weights as a voice: all that assembling and speaking need."""
    root = tmp_path_factory.mktemp("声 dir") / "voice"
    root.mkdir()
    for module in ("llm", "flow"):
        shutil.copyfile(random_model / f"{module}.pt", root / f"{module}.pt")
    embedding = torch.linspace(-1, 1, 192).unsqueeze(0)
    files.write_torch(root / "spk2info.pt", {SPEAKER: {"embedding": embedding}})
    files.write_json(root / "speaker_config.json", {"speakers": {SPEAKER: {}}, "default_speaker": SPEAKER})
    files.write_json(root / "versions.json", origin.versions(Config(base="random"), SPEAKER, random_model))
    bundle.seal(root)
    return bundle.read(root)


@pytest.fixture(scope="module")
def model(voice: Voice, random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return assemble.assemble(voice, tmp_path_factory.mktemp("assembled") / "モデル dir", random_model)


@pytest.fixture(scope="module")
def reader(model: Path) -> Iterator[synthesis.Speaker]:
    threads = torch.get_num_threads()
    yield synthesis.Speaker(model, FAMILY)
    torch.set_num_threads(threads)  # a tiny model sets one for its process


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cosytune.voice", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tools")}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_the_directory_has_the_layout_of_the_real_one(model: Path, voice: Voice) -> None:
    for name in FAMILY.published:
        assert (model / name).is_file(), name
    assert (model / "hift.pt").is_symlink()
    assert (model / "llm.pt").resolve() == (voice.root / "llm.pt").resolve()


def test_what_upstream_writes_does_not_reach_the_voice(model: Path, voice: Voice) -> None:
    assert not (model / "spk2info.pt").is_symlink()
    assert bundle.check(voice.root).ok


def test_upstreams_own_class_speaks_from_it(reader: synthesis.Speaker) -> None:
    said = reader.say("おはようございます。よい一日を。", SPEAKER, "ja", seed=3)
    assert said.rate_hz == 24000 and said.samples.dtype == "float32"
    assert len(said.sentences) == 2 and said.duration_s > 0.5
    assert abs(said.samples).max() > 0.001


def test_a_seed_gives_the_same_samples_and_another_seed_others(reader: synthesis.Speaker) -> None:
    text = "きょうは、いい天気です。"
    first, again, other = (reader.say(text, SPEAKER, "ja", seed).samples for seed in (3, 3, 4))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_a_sentence_sounds_the_same_alone_and_in_a_text(reader: synthesis.Speaker) -> None:
    both = reader.say("はい。きょうは、いい天気です。", SPEAKER, "ja", seed=3).samples
    alone = reader.say("きょうは、いい天気です。", SPEAKER, "ja", seed=3).samples
    assert both[-len(alone) :].tobytes() == alone.tobytes()


def test_a_sentence_that_does_not_end_is_cut_and_named(reader: synthesis.Speaker) -> None:
    """One short token: upstream's limit of 20 speech tokens comes before most seeds' end of speech."""
    said = [reader.say("あ", SPEAKER, "ja", seed) for seed in range(4)]
    tokens = [round(one.duration_s * FAMILY.token_rate_hz) for one in said]
    assert any(one.cut for one in said)
    for one, count in zip(said, tokens, strict=True):
        assert one.cut == (["あ"] if count == max(tokens) else [])


def test_an_error_in_upstreams_thread_is_an_error(reader: synthesis.Speaker, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ArithmeticError("sampling")

    monkeypatch.setattr(reader._model.model.llm, "sampling_ids", fail)
    with pytest.raises(RuntimeError) as caught:
        reader.say("こんにちは。", SPEAKER, "ja", seed=1)
    assert isinstance(caught.value.__cause__, ArithmeticError)


@pytest.mark.parametrize("text", ["", "  ", "。。。", "\u200b"])
def test_nothing_to_say_is_refused(reader: synthesis.Speaker, text: str) -> None:
    with pytest.raises(UserError, match="nothing to say"):
        reader.say(text, SPEAKER, "ja", seed=1)


def test_another_base_is_refused(voice: Voice, random_model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other base"
    shutil.copytree(random_model, other)
    description = files.read_json(other / "cosytune_model.json")
    weights = files.read_torch(other / "llm.pt")
    next(iter(weights.values())).add_(1)
    files.write_torch(other / "llm.pt", weights)
    description["files"]["llm.pt"] = {"size": 1, "sha256": files.sha256(other / "llm.pt")}
    files.write_json(other / "cosytune_model.json", description)
    base.check(other, FAMILY)
    with pytest.raises(UserError, match=r"not the base that this voice was tuned on .*llm\.pt differ"):
        assemble.assemble(voice, tmp_path / "out", other)
    assert not (tmp_path / "out").exists()


def test_a_missing_base_is_named(voice: Voice, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--base DIR"):
        assemble.assemble(voice, tmp_path / "out", tmp_path / "nowhere")


def test_foreign_directories_stay_as_they_are(voice: Voice, random_model: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"not empty \(it holds 'thesis\.txt'\)"):
        assemble.assemble(voice, mine, random_model)
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]
    with pytest.raises(UserError, match="is a file"):
        assemble.assemble(voice, mine / "thesis.txt", random_model)
    with pytest.raises(UserError, match="inside the voice"):
        assemble.assemble(voice, voice.root / "model", random_model)


def test_an_empty_directory_and_one_assembled_before_are_filled(
    voice: Voice, random_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for _ in range(2):
        assemble.assemble(voice, out, random_model)
        assert (out / "cosyvoice2.yaml").is_file()
    (out / "my.wav").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"my\.wav"):
        assemble.assemble(voice, out, random_model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_files_are_copied_where_links_do_not_work(
    voice: Voice, random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    out = assemble.assemble(voice, tmp_path / "out", random_model)
    assert not any(path.is_symlink() for path in out.rglob("*"))
    assert files.sha256(out / "hift.pt") == files.sha256(random_model / "hift.pt")
    assert (out / "CosyVoice-BlankEN" / "vocab.json").is_file()


def test_exports_of_the_bases_flow_are_left_out(voice: Voice, random_model: Path, tmp_path: Path) -> None:
    """Upstream's load_jit and load_trt would put them in the place of the tuned flow."""
    with_exports = tmp_path / "base"
    shutil.copytree(random_model, with_exports)
    (with_exports / "flow.decoder.estimator.fp32.onnx").write_bytes(b"the base's own flow")
    out = assemble.assemble(voice, tmp_path / "out", with_exports)
    assert not list(out.glob("flow.*.onnx"))


def test_a_damaged_voice_is_not_assembled(voice: Voice, random_model: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "voice"
    shutil.copytree(voice.root, damaged)
    content = bytearray((damaged / "flow.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (damaged / "flow.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"flow\.pt: changed since it was made"):
        assemble.assemble(bundle.read(damaged), tmp_path / "out", random_model)


def test_say_writes_what_another_process_says_with_the_same_seed(
    voice: Voice, random_model: Path, reader: synthesis.Speaker, tmp_path: Path
) -> None:
    text = "はい、12.5度です。"
    path, here = tmp_path / "出力 1.wav", tmp_path / "here.wav"
    done = run("say", text, "--voice", voice.root, "--base", random_model, "-o", path, "--seed", 5)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "s of speech" in done.stdout and "real-time factor" in done.stdout and "noise" in done.stdout
    said = reader.say(text, SPEAKER, "ja", seed=5)
    synthesis.write_wav(here, said.samples, said.rate_hz)
    assert path.read_bytes() == here.read_bytes()
    info = soundfile.info(path)
    assert (info.samplerate, info.channels, info.subtype) == (24000, 1, "PCM_16")
    assert bundle.check(voice.root).ok


def test_mistakes_of_say_are_one_line_each(voice: Voice, tmp_path: Path) -> None:
    there = tmp_path / "there.wav"
    there.write_bytes(b"mine")
    free = tmp_path / "free.wav"
    cases = [
        (("", "--voice", voice.root, "-o", free), "nothing to say"),
        (("あ", "--voice", tmp_path / "nowhere", "-o", free), "no such voice"),
        (("あ", "--voice", voice.root, "-o", there), "add --force"),
        (("あ", "--voice", voice.root, "-o", tmp_path), "is a directory"),
        (("あ", "--voice", voice.root, "-o", tmp_path / "none" / "a.wav"), "no such directory"),
        (("あ", "--voice", voice.root, "-o", tmp_path / "a.mp3"), "end with .wav"),
        (("あ", "--voice", voice.root, "-o", "/proc/a.wav"), "/proc: cannot be written to"),
        (("あ", "--voice", voice.root, "-o", free, "--speaker", "B"), f"no speaker 'B'; it has: {SPEAKER}"),
    ]
    for arguments, message in cases:
        done = run("say", *arguments)
        assert done.returncode in (1, 2), arguments
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
        assert message in done.stderr
    assert there.read_bytes() == b"mine" and not free.exists()


def test_a_language_that_is_not_known_is_refused(voice: Voice, tmp_path: Path) -> None:
    done = run("say", "あ", "--voice", voice.root, "-o", tmp_path / "a.wav", "--language", "jp")
    assert done.returncode == 2 and "'jp' is none of ja, zh" in done.stderr
