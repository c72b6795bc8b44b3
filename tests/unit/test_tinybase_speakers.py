"""Both models that say who speaks: they learn to, their files say what they say, and any sound can be heard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyopenjtalk
import pytest
import soundfile
import soxr
import torch

from cosytune.errors import UserError
from cosytune.features.onnx import open_session
from cosytune.features.sound import read_16k
from cosytune.features.speech import speaker_embedding
from cosytune.tinybase import learn, speaker_encoder, speakers, verifier, voices
from cosytune.tinybase.corpus import Utterance
from cosytune.tinybase.learn import Plan
from cosytune.tinybase.voices import RATE_HZ, speak, take_apart
from cosytune.voice.verifier import Verifier, equal_error_rate, similarity

TEXTS = ("新しい本を買いました。", "電車が遅れているようです。", "雨が降る。", "どこへ行くの？", "冷たい風が吹いた。")
CAST = voices.cast(4, 0)
PLAN = Plan(steps=90, learning_rate=3e-3, batch=12, warmup=10, ema=0.9)
MODULES = {"speaker_encoder": speaker_encoder, "verifier": verifier}


@dataclass
class FourVoices:
    """As `Corpus`, as far as these parts read one; the last two sentences of each speaker are held out."""

    utterances: list[Utterance]
    sounds: dict[str, np.ndarray]

    @property
    def speakers(self) -> list[str]:
        return [voice.name for voice in CAST]

    def of(self, split: str) -> list[Utterance]:
        return [one for one in self.utterances if one.split == split]

    def sound(self, utterance: Utterance) -> np.ndarray:
        return self.sounds[utterance.utt]


@pytest.fixture(scope="module")
def corpus() -> FourVoices:
    utterances, sounds = [], {}
    for number, text in enumerate(TEXTS):
        spoken, rate_hz = pyopenjtalk.tts(text)
        sound = np.ascontiguousarray(soxr.resample(spoken / 32768, rate_hz, RATE_HZ))
        parts = take_apart(sound)
        for voice in CAST:
            name = f"{voice.name}-{number}"
            sounds[name] = np.rint(np.clip(speak(parts, voice, len(sound)), -1, 1) * 32767).astype(np.int16)
            split = "train" if number < 3 else "held_out"
            utterances.append(Utterance(name, voice.name, "", split, 0, len(sound)))  # type: ignore[arg-type]
    return FourVoices(utterances, sounds)


@pytest.fixture(scope="module")
def made(corpus: FourVoices, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a part after a short training, model.onnx beside the weights."""
    directories: dict[str, Path] = {}

    def make(part: str) -> Path:
        if part not in directories:
            directories[part] = tmp_path_factory.mktemp(part)
            MODULES[part].make(corpus, directories[part], "cpu", PLAN)
            MODULES[part].export(MODULES[part].load(directories[part]), directories[part] / "model.onnx")
        return directories[part]

    return make


def test_a_short_training_tells_four_voices_apart(corpus: FourVoices, made: Callable[[str], Path]) -> None:
    encoder = speaker_encoder.load(made("speaker_encoder"))
    embedded = speaker_encoder.embed(encoder, corpus, corpus.utterances, "cpu").numpy()  # type: ignore[arg-type]
    assert _nearest(corpus, list(embedded)) == [one.speaker for one in corpus.of("held_out")]
    judge = Verifier(made("verifier") / "model.onnx")
    judged = [judge.embed(corpus.sound(one).astype(np.float32) / 32768, RATE_HZ) for one in corpus.utterances]
    assert _nearest(corpus, judged) == [one.speaker for one in corpus.of("held_out")]
    assert judged[0].shape == (verifier.EMBEDDING,)
    assert similarity(judged[0], judged[0]) == pytest.approx(1, abs=1e-5)


def _nearest(corpus: FourVoices, embeddings: list[np.ndarray]) -> list[str]:
    """Of each held-out clip the speaker whose training clips are most like it."""
    known = dict(zip(corpus.utterances, embeddings, strict=True))
    means = {
        speaker: np.mean([known[one] for one in corpus.of("train") if one.speaker == speaker], axis=0)
        for speaker in corpus.speakers
    }
    return [max(means, key=lambda speaker: similarity(means[speaker], known[one])) for one in corpus.of("held_out")]


def test_a_batch_says_what_stage_2_will_say(corpus: FourVoices, made: Callable[[str], Path], tmp_path: Path) -> None:
    directory, held_out = made("speaker_encoder"), corpus.of("held_out")
    session = open_session(directory / "model.onnx", "cpu", threads=1)
    together = speaker_encoder.embed(speaker_encoder.load(directory), corpus, held_out, "cpu")  # type: ignore[arg-type]
    for one, row in zip(held_out, together, strict=True):
        soundfile.write(tmp_path / "clip.wav", corpus.sound(one), RATE_HZ)
        wanted = torch.tensor(speaker_embedding(session, read_16k(tmp_path / "clip.wav")))
        # Frames are kept as float16: a thousandth of the embedding's length.
        assert float((row - wanted).norm() / wanted.norm()) < 2e-3


@pytest.mark.parametrize("samples", [400, 4800, 16000, 16159, 16160])
def test_the_banks_are_kaldis(samples: int) -> None:
    from torchaudio.compliance import kaldi

    sound = 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(samples))
    wanted = kaldi.fbank(sound, num_mel_bins=80, dither=0, sample_frequency=16000)
    hearing = speaker_encoder.hearing("cpu")
    padded = torch.cat([sound, torch.zeros(1, 700)], dim=1)
    for found in (hearing.hear(sound)[0], hearing.hear(padded)[0, : hearing.frames(samples)]):
        torch.testing.assert_close(found, wanted, atol=1e-3, rtol=0)


def _untrained(part: str, path: Path) -> tuple[Any, Any]:
    torch.manual_seed(0)
    made = {"speaker_encoder": speaker_encoder.SpeakerEncoder, "verifier": verifier.Verifier}[part]()
    for one in made.modules():  # so that folding the norms into the convolutions is put to the test
        if isinstance(one, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(one.weight, 0.5, 2)
            one.running_mean.normal_(0, 0.1)
            one.running_var.uniform_(0.5, 2)
    MODULES[part].export(made.eval(), path)
    return made, open_session(path, "cpu", threads=1)


@pytest.mark.parametrize(
    ("part", "names", "shapes"),
    [
        ("speaker_encoder", ("input", "output"), [(1, frames, 80) for frames in (1, 28, 301)]),
        ("verifier", ("sound", "voice"), [(1, samples) for samples in (1, 4800, 16000, 50123)]),
    ],
)
def test_the_file_says_what_the_module_says(
    part: str, names: tuple[str, str], shapes: list[tuple[int, ...]], tmp_path: Path
) -> None:
    model, session = _untrained(part, tmp_path / "model.onnx")
    assert tuple(one.name for one in (*session.get_inputs(), *session.get_outputs())) == names
    assert onnx.load(tmp_path / "model.onnx").opset_import[0].version == 17
    for shape in shapes:
        heard = 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(7))
        with torch.inference_mode():
            wanted = model(heard).numpy()
        found = session.run(None, {names[0]: heard.numpy()})[0]
        assert found.shape == wanted.shape == (1, MODULES[part].EMBEDDING)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_both_are_small() -> None:
    assert sum(one.numel() for one in speaker_encoder.SpeakerEncoder().parameters()) <= 800_000
    assert sum(one.numel() for one in verifier.Verifier().parameters()) <= 600_000


def test_short_clips_and_silence_are_heard_without_harm(made: Callable[[str], Path]) -> None:
    session = open_session(made("speaker_encoder") / "model.onnx", "cpu", threads=1)
    judge = Verifier(made("verifier") / "model.onnx")
    for sound in (torch.zeros(1, 16000), 0.1 * torch.randn(1, 4800), torch.zeros(1, 400)):
        assert np.isfinite(speaker_embedding(session, sound)).all()
        assert np.isfinite(judge.embed(sound[0].numpy(), 16000)).all()
    for nothing in (np.zeros(0, np.float32), np.zeros((2, 100), np.float32)):
        with pytest.raises(ValueError, match="one channel"):
            judge.embed(nothing, 16000)


def test_loudness_is_no_part_of_a_voice(corpus: FourVoices, made: Callable[[str], Path]) -> None:
    judge = Verifier(made("verifier") / "model.onnx")
    sound = corpus.sound(corpus.utterances[0]).astype(np.float32) / 32768
    assert similarity(judge.embed(sound, RATE_HZ), judge.embed(0.25 * sound, RATE_HZ)) > 0.999


def test_padding_beside_longer_clips_changes_nothing(corpus: FourVoices) -> None:
    few = corpus.utterances[:6]
    names = sorted({one.speaker for one in few})
    for hearing in (
        speaker_encoder.hearing("cpu"),
        speakers.Hearing(verifier.Ear(), lambda samples: samples // speakers.HOP + 1),
    ):
        together = speakers.hear(corpus, few, hearing, (0.9, 1.0), "cpu", "all")  # type: ignore[arg-type]
        for number, one in enumerate(few):
            alone = speakers.hear(corpus, [one], hearing, (0.9, 1.0), "cpu", "one")  # type: ignore[arg-type]
            for speed in (0, 1):
                row = number + speed * len(few)
                start, length = int(together.starts[row]), int(together.lengths[row])
                assert int(together.classes[row]) == names.index(one.speaker) + speed * len(names)
                first = int(alone.starts[speed])
                wanted = alone.frames[first : first + int(alone.lengths[speed])].float()
                found = together.frames[start : start + length].float()
                # As power: what is next to nothing differs in its last bits. float16 of a logarithm: a percent.
                torch.testing.assert_close(found.exp(), wanted.exp(), atol=1e-5, rtol=0.02)


def test_a_margin_makes_the_right_answer_harder() -> None:
    torch.manual_seed(0)
    classes, heard = speakers.Classes(8, torch.eye(3)), torch.randn(5, 8)
    labels = torch.tensor([0, 1, 2, 0, 1])
    plain, with_margin = (float(classes(heard, labels, share)[0].detach()) for share in (0.0, 1.0))
    assert with_margin > plain
    own = classes.directions.detach()[[0]]
    assert float(classes(-own, labels[:1], 1.0)[0].detach()) > float(classes(own, labels[:1], 1.0)[0].detach())


def test_a_voice_is_like_itself_and_less_like_one_that_is_farther_away() -> None:
    speeds = (0.84, 0.91, 1.0, 1.09, 1.18)
    found = speakers.likeness(["s01", "s02", "s03"], speeds)
    assert found.shape == (15, 15)
    torch.testing.assert_close(found.diagonal(), torch.ones(15))
    torch.testing.assert_close(found, found.T)
    slower_and_slower = found[0, ::3].tolist()
    assert slower_and_slower == sorted(slower_and_slower, reverse=True)
    with pytest.raises(KeyError):
        speakers.likeness(["x01"], speeds)


def test_the_equal_error_rate_of_known_scores() -> None:
    x, y = np.eye(2, dtype=np.float32)
    assert equal_error_rate([x, x, y, y], ["a", "a", "b", "b"]) == 0
    between = [np.array([np.cos(turn), np.sin(turn)]) for turn in (0.0, 0.1, 0.15, 1.5)]
    # a: 0.1 apart; b: 1.35 apart, farther than three of the four pairs of two speakers
    assert equal_error_rate(between, ["a", "a", "b", "b"]) == pytest.approx(0.5)
    with pytest.raises(UserError, match="at least two speakers"):
        equal_error_rate([x, y], ["a", "b"])


def test_what_was_not_made_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--only verifier"):
        Verifier(tmp_path / "model.onnx")
    with pytest.raises(UserError, match=r"weights\.pt: missing"):
        speaker_encoder.load(tmp_path)
    assert learn.WEIGHTS == "weights.pt"
