"""Audio samples: real sound of the right length, the same bytes twice, and no trace in training."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cosytune.schema import LlmTrainConfig
from cosytune.training import draws, machine, plan, trainer
from cosytune.training.job import Job
from cosytune.training.journal import Journal
from cosytune.training.samples import Studio
from training_data import FAMILY, make_job, write_subset

MakeJob = Callable[[str], Job]
CPU = torch.device("cpu")


@pytest.fixture
def job(random_model: Path, training_features: Path, tmp_path: Path) -> MakeJob:
    """A module with adapters that have learned something: fresh ones change nothing."""

    def make(name: str) -> Job:
        clips = write_subset(training_features, tmp_path / "clips.arrow", [1, 4])
        made = make_job(name, random_model, tmp_path / name, clips, clips)
        torch.manual_seed(3)
        for key, parameter in made.model.named_parameters():
            if "lora_B" in key:
                parameter.data.normal_(std=0.02)
        return made

    return make


def studio(job: Job, model_dir: Path, **more: object) -> Studio:
    return Studio(job.name, model_dir, FAMILY, [job.cv[index] for index in range(2)], 7, CPU, **more)  # type: ignore[arg-type]


def journal(job: Job, update: int = 0) -> Journal:
    planned = plan.make(["a", "b"], [9, 9], LlmTrainConfig(), 100, "train.llm")
    return Journal(job.directory, job.name, planned, update)


def listen(job: Job, model_dir: Path, update: int) -> dict[str, bytes]:
    with journal(job, update) as notes:
        studio(job, model_dir).listen(job.model, update, notes, lambda: False)
    return {path.name: path.read_bytes() for path in sorted((job.directory / "samples").iterdir())}


@pytest.mark.parametrize("name", ["llm", "flow"])
def test_the_samples_of_an_evaluation(
    name: str, job: MakeJob, random_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = job(name)
    first = listen(run, random_model, 0)
    assert sorted(first) == ["real-1.wav", "real-2.wav", "update-000000-1.wav", "update-000000-2.wav"]
    assert run.cv[0].text in capsys.readouterr().out
    for number in range(2):
        clip = run.cv[number]
        for file in (f"real-{number + 1}.wav", f"update-000000-{number + 1}.wav"):
            info = soundfile.info(run.directory / "samples" / file)
            assert (info.samplerate, info.subtype, info.channels) == (24000, "PCM_16", 1)
            sound, _ = soundfile.read(run.directory / "samples" / file)
            assert np.sqrt(np.mean(sound**2)) > 1e-3, "it can be heard"
            if name == "flow" or file.startswith("real"):
                assert len(sound) == len(clip.speech_token) * 960
            else:
                assert len(sound) % 960 == 0
                assert 2 * len(clip.text_token) <= len(sound) / 960 <= 2 * len(clip.speech_token)
    again = listen(run, random_model, 5)
    assert again["update-000005-1.wav"] == first["update-000000-1.wav"], "the same draws in each evaluation"
    for key, parameter in run.model.named_parameters():
        if "lora_B" in key:
            parameter.data.mul_(-3)
    tuned = listen(run, random_model, 6)
    assert tuned["update-000006-1.wav"] != first["update-000000-1.wav"], "the adapters are heard"
    assert tuned["real-1.wav"] == first["real-1.wav"]


@pytest.mark.parametrize("name", ["llm", "flow"])
def test_listening_leaves_no_trace_in_training(name: str, job: MakeJob, random_model: Path) -> None:
    """The same update after it as without it, to the last bit."""
    gradients = []
    for is_heard in (False, True):
        run = job(name)
        _forget_positions(run.model)
        run.model.train()
        next(iter(run.model.modules())).training = False  # modes are put back one by one
        modes = [part.training for part in run.model.modules()]
        weights = {key: value.clone() for key, value in run.model.state_dict().items()}
        torch.manual_seed(11)
        random.seed(11)
        np.random.seed(11)
        if is_heard:
            assert studio(run, random_model).speak(run.model, run.cv[0]) is not None
        drawn = [torch.rand(1).item(), random.random(), np.random.rand()]
        assert [part.training for part in run.model.modules()] == modes
        assert all(torch.equal(value, weights[key]) for key, value in run.model.state_dict().items())
        assert all(parameter.grad is None for parameter in run.model.parameters())
        assert not any(table.is_inference() for table in _positions(run.model)), "autograd would refuse them"
        batch = run.task.batch([run.train[0]], draws.Epoch(1, 0))
        run.model.train()
        run.task.loss(run.model.get_base_model(), batch).total.backward()
        found = [parameter.grad for parameter in run.model.parameters() if parameter.grad is not None]
        gradients.append((drawn, found))
    (drawn, found), (drawn_after, found_after) = gradients
    assert drawn == drawn_after
    assert len(found) == len(found_after) > 0
    assert all(torch.equal(one, other) for one, other in zip(found, found_after, strict=True))


def _positions(model: torch.nn.Module) -> list[torch.Tensor]:
    """The flow's tables of positions."""
    return [part.pe for part in model.modules() if isinstance(getattr(part, "pe", None), torch.Tensor)]


def _forget_positions(model: torch.nn.Module) -> None:
    """Upstream makes them anew for a longer clip: listening may be what makes them."""
    for part in model.modules():
        if isinstance(getattr(part, "pe", None), torch.Tensor):
            part.pe = part.pe[:, :3]  # type: ignore[assignment]


@pytest.mark.parametrize(("name", "looks"), [("llm", 0), ("llm", 9), ("llm", 40), ("flow", 0), ("flow", 1)])
def test_who_asks_to_stop_hears_nothing(name: str, looks: int, job: MakeJob, random_model: Path) -> None:
    run = job(name)
    left = iter(range(looks))
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return next(left, None) is None

    state = torch.get_rng_state()
    with journal(run) as notes:
        studio(run, random_model).listen(run.model, 1, notes, should_stop)
    assert asked == looks + 1, "not asked again: it ends at once"
    assert not (run.directory / "samples").exists()
    assert torch.equal(torch.get_rng_state(), state)
    assert "sampling_ids" not in vars(run.model.get_base_model())


def test_a_run_that_is_listened_to_learns_the_same(random_model: Path, training_features: Path, tmp_path: Path) -> None:
    clips = write_subset(training_features, tmp_path / "clips.arrow", [1, 4, 7])
    adapters = []
    for is_heard in (False, True):
        run = make_job("llm", random_model, tmp_path / f"{is_heard}" / "llm", clips, clips, num_train_epochs=2)
        run = replace(run, listen=studio(run, random_model).listen) if is_heard else run
        trainer.train(run)
        adapters.append({path.name: path.read_bytes() for path in run.directory.rglob("checkpoint-*/*")})
        history = (run.directory / "history.jsonl").read_text()
    assert adapters[0] == adapters[1]
    evaluated = [json.loads(line)["update"] for line in history.splitlines() if '"cv"' in line]
    assert len(evaluated) == 3
    expected = {f"update-{update:06d}-{number}.wav" for update in evaluated for number in (1, 2)}
    assert {path.name for path in (run.directory / "samples").iterdir()} == expected | {"real-1.wav", "real-2.wav"}
    found = EventAccumulator(str(run.directory / "tensorboard"), size_guidance={"audio": 0, "images": 0})
    found.Reload()
    for number in (1, 2):
        assert [event.step for event in found.Audio(f"sample/{number}")] == evaluated
        assert [event.step for event in found.Images(f"spectrogram/{number}")] == evaluated
    assert (run.directory.parent / "curves.png").is_file()


@pytest.mark.parametrize("name", ["llm", "flow"])
def test_a_base_in_bf16_under_autocast_is_heard(name: str, job: MakeJob, random_model: Path) -> None:
    run = job(name)
    exact = studio(run, random_model).speak(run.model, run.cv[0])
    for parameter in run.model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    context = partial(machine.autocast, CPU, "bf16")
    heard = studio(run, random_model, context=context).speak(run.model, run.cv[0])
    assert exact is not None
    assert heard is not None
    assert np.isfinite(heard.sound).all()
    assert np.sqrt(np.mean(heard.sound**2)) > 1e-3
    if name == "flow":
        assert heard.mel.shape == exact.mel.shape
        assert 0 < np.abs(heard.mel - exact.mel).mean() < 0.1


def test_an_llm_that_diverged_is_said_and_not_heard(job: MakeJob, random_model: Path) -> None:
    run = job("llm")
    for key, parameter in run.model.named_parameters():
        if "lora_B" in key:
            parameter.data.fill_(torch.nan)
    with journal(run) as notes:
        studio(run, random_model).listen(run.model, 1, notes, lambda: False)
    assert "no audio samples after update 1" in (run.directory / "train.log").read_text()
    assert not (run.directory / "samples").exists()


def test_an_llm_that_ends_at_once_is_said_and_not_heard(job: MakeJob, random_model: Path) -> None:
    run = job("llm")
    run.model.get_base_model().llm_decoder.bias.data[FAMILY.speech_token_size] = 1e4
    with journal(run) as notes:
        studio(run, random_model).listen(run.model, 1, notes, lambda: False)
    assert "no audio samples after update 1: the LLM ends before" in (run.directory / "train.log").read_text()
    assert not (run.directory / "samples").exists()


def test_an_llm_that_does_not_end_is_cut(job: MakeJob, random_model: Path) -> None:
    run = job("llm")
    module = run.model.get_base_model()
    module.llm_decoder.bias.data[FAMILY.speech_token_size :] = -1e4  # no end of speech, no other special token
    with journal(run) as notes:
        studio(run, random_model).listen(run.model, 1, notes, lambda: False)
    clip = run.cv[0]
    longest_s = min(20 * len(clip.text_token), 2 * len(clip.speech_token)) / 25
    said = (run.directory / "train.log").read_text()
    assert f"audio sample 1: the LLM did not end; cut after {longest_s:.1f} s" in said
    assert soundfile.info(run.directory / "samples" / "update-000001-1.wav").duration == pytest.approx(longest_s)


def test_the_flow_is_heard_without_reading_the_bases_own(job: MakeJob, random_model: Path, tmp_path: Path) -> None:
    run = job("flow")
    vocoder_alone = tmp_path / "model"
    vocoder_alone.mkdir()
    for file in random_model.iterdir():
        if file.name not in (FAMILY.flow, FAMILY.llm):
            (vocoder_alone / file.name).symlink_to(file)
    assert studio(run, vocoder_alone).speak(run.model, run.cv[0]) is not None


def test_a_full_gpu_ends_the_samples_and_not_the_training(job: MakeJob, random_model: Path) -> None:
    run = job("flow")

    @contextmanager
    def full() -> Iterator[None]:
        raise torch.OutOfMemoryError
        yield

    made = studio(run, random_model, context=full)
    with journal(run) as notes:
        made.listen(run.model, 1, notes, lambda: False)
        made.listen(run.model, 2, notes, lambda: False)
    said = (run.directory / "train.log").read_text()
    assert said.count("train.audio_samples=false") == 1
    assert not (run.directory / "samples").exists()
