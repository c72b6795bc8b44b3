"""Stages 1 and 2 on a data directory: one-by-one values in upstream's files, whatever is known and however many run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from cosytune import base, families, files, kaldi
from cosytune.errors import UserError
from cosytune.features import onnx, sound, speech
from cosytune.kaldi import Utterance
from cosytune.layout import Layout
from cosytune.schema import Config
from cosytune.stages import embed, tokenize
from cosytune.stages.runner import Context

FAMILY = families.get("cosyvoice2-0.5b")
DURATIONS_S = {"a-1": 2.0, "a-2": 31.5, "a-3": 1.001, "b-1": 3.0, "b-2": 0.4}

Run = Callable[..., None]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "話者 1")
    for utt, duration_s in DURATIONS_S.items():
        write_clip(layout, utt, noise(utt, duration_s))
    write_data(layout, DURATIONS_S)
    return layout


@pytest.fixture
def run(layout: Layout, random_model: Path) -> Run:
    """Both stages, or the one that is named."""

    def start(*stages: str, again: bool = False, threads: int = 2) -> None:
        config = Config.model_validate({"base": "random", "features": {"threads": threads, "provider": "cpu"}})
        context = Context(config, layout, again)
        for stage in stages or ("embed", "tokenize"):
            {"embed": embed.work, "tokenize": tokenize.work}[stage](context)

    return start


def noise(utt: str, duration_s: float) -> np.ndarray:
    draw = np.random.default_rng(sum(utt.encode()))
    return np.sin(np.cumsum(draw.normal(0, 0.4, int(24000 * duration_s)))) * 0.3


def write_clip(layout: Layout, utt: str, samples: np.ndarray, subtype: str = "PCM_16") -> None:
    path = layout.data_all / "wav" / f"{utt}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, 24000, subtype=subtype)


def write_data(layout: Layout, utts: dict[str, float]) -> None:
    wav = layout.data_all / "wav"
    kaldi.write(
        layout.data_all, [Utterance(utt, utt[0], wav / f"{utt}.wav", "はい", seconds) for utt, seconds in utts.items()]
    )


def results(layout: Layout) -> dict[str, bytes]:
    names = ("utt2embedding.pt", "spk2embedding.pt", "utt2speech_token.pt")
    return {name: (layout.data_all / name).read_bytes() for name in names}


def test_the_values_are_those_of_one_clip_at_a_time(layout: Layout, run: Run, random_model: Path) -> None:
    run()
    tokenizer = onnx.open_session(random_model / FAMILY.speech_tokenizer, "cpu", 1)
    encoder = onnx.open_session(random_model / FAMILY.speaker_encoder, "cpu", 1)
    sounds = {utt: speech.read_16k(layout.data_all / "wav" / f"{utt}.wav") for utt in DURATIONS_S}
    tokens = files.read_torch(layout.data_all / "utt2speech_token.pt")
    assert tokens == {utt: speech.speech_tokens(tokenizer, one) for utt, one in sounds.items()}
    assert len(tokens["a-2"]) == 31.5 * 25 + 0.5, "25 tokens a second of a long clip too"
    embeddings = files.read_torch(layout.data_all / "utt2embedding.pt")
    assert embeddings == {utt: speech.speaker_embedding(encoder, one) for utt, one in sounds.items()}
    assert list(tokens) == list(embeddings) == sorted(DURATIONS_S)
    means = files.read_torch(layout.data_all / "spk2embedding.pt")
    assert torch.tensor(means["b"]).equal(torch.tensor([embeddings["b-1"], embeddings["b-2"]]).mean(dim=0))


def test_the_files_have_the_same_bytes_however_they_were_made(layout: Layout, run: Run) -> None:
    run(threads=1)
    expected = results(layout)
    for again, threads in ((True, 3), (False, 1)):
        run(again=again, threads=threads)
        assert results(layout) == expected


def test_a_second_run_asks_no_model(layout: Layout, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    expected = results(layout)
    monkeypatch.setattr(onnx, "open_session", lambda *_, **__: pytest.fail("a model was opened"))
    run()
    assert results(layout) == expected
    with pytest.raises(pytest.fail.Exception):
        run("tokenize", again=True)


def test_just_the_new_clip_is_computed_and_the_lost_one_forgotten(
    layout: Layout, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run()
    write_clip(layout, "a-9", noise("a-9", 1.0))
    utts = {utt: seconds for utt, seconds in DURATIONS_S.items() if utt != "b-2"} | {"a-9": 1.0}
    write_data(layout, utts)
    capsys.readouterr()
    run()
    said = capsys.readouterr().out
    assert "5 clips = 5 embedded + 0 failed; 1 new, the rest known" in said
    assert "5 clips = 5 tokenized + 0 failed; 1 new, the rest known" in said
    partly_known = results(layout)
    for name in ("embeddings.txt", "tokens.txt"):
        assert len((layout.features / name).read_text().splitlines()) == 5
    run(again=True)
    assert results(layout) == partly_known


def test_a_changed_clip_is_computed_anew_and_two_of_one_content_once(
    layout: Layout, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run()
    for utt in ("a-1", "b-1"):
        write_clip(layout, utt, noise("other", 2.0))
    write_data(layout, DURATIONS_S | {"b-1": 2.0})
    run()
    assert "; 1 new, the rest known" in capsys.readouterr().out
    tokens = files.read_torch(layout.data_all / "utt2speech_token.pt")
    assert tokens["a-1"] == tokens["b-1"]
    partly_known = results(layout)
    run(again=True)
    assert results(layout) == partly_known


def test_another_model_file_voids_what_is_known(
    layout: Layout, run: Run, random_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("embed")
    known = base.hashes(random_model) | {FAMILY.speaker_encoder: "0" * 64}
    monkeypatch.setattr(base, "hashes", lambda _: known)
    monkeypatch.setattr(base, "file", lambda config, name: random_model / name)
    run("embed")
    assert "; 5 new, the rest known" in capsys.readouterr().out.rpartition("clips =")[2]


def test_stage_2_hears_what_stage_1_decoded(layout: Layout, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    expected = results(layout)
    archive = layout.features / sound.ARCHIVE
    assert not archive.exists(), "stage 2 has done with it"
    run("embed", again=True)
    assert archive.stat().st_size > sum(DURATIONS_S.values()) * 16000 * 4
    with monkeypatch.context() as patch:
        patch.setattr(sound, "read_16k", lambda path: pytest.fail(f"{path} was decoded again"))
        run("tokenize", again=True)
    assert results(layout) == expected


@pytest.mark.parametrize("damage", ["flipped", "cut", "no archive", "gone"])
def test_a_damaged_archive_is_not_believed(layout: Layout, run: Run, damage: str) -> None:
    run()
    expected = results(layout)
    run("embed", again=True)
    archive = layout.features / sound.ARCHIVE
    content = bytearray(archive.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 0x40
    archive.write_bytes({"cut": content[: len(content) // 2], "no archive": b"<html>"}.get(damage, bytes(content)))
    if damage == "gone":
        archive.unlink()
    run("tokenize", again=True)
    assert results(layout) == expected


def test_what_cannot_be_heard_is_named_and_counted_and_the_rest_is_kept(
    layout: Layout, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (layout.data_all / "wav" / "a-1.wav").read_bytes()
    write_clip(layout, "c-1", np.zeros(24000))
    write_clip(layout, "c-2", noise("c-2", 0.02))
    write_clip(layout, "c-3", np.full(24000, np.nan), "FLOAT")
    write_data(layout, DURATIONS_S | {"c-1": 1.0, "c-2": 0.02, "c-3": 1.0})
    for stage, done in (("embed", "embedded"), ("tokenize", "tokenized")):
        with pytest.raises(UserError) as mistakes:
            run(stage)
        assert f"8 clips = 5 {done} + 3 failed; 5 new" in capsys.readouterr().out
        silent, short, no_numbers = mistakes.value.messages
        assert "c-1.wav: 'c-1' is silent" in silent and "--stage 0" in silent
        assert "'c-2' is too short (20.0 ms)" in short
        assert "'c-3' holds samples that are no numbers" in no_numbers
        with pytest.raises(UserError):
            run(stage)
        assert f"8 clips = 5 {done} + 3 failed; 0 new" in capsys.readouterr().out
    (layout.data_all / "wav" / "a-1.wav").write_bytes(whole[:20])
    write_data(layout, DURATIONS_S)
    with pytest.raises(UserError, match=r"a-1"):
        run("embed")
