"""Real features for the training tests: short Japanese sentences that Open JTalk reads, tokens by the random base."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from cosytune import families, files
from cosytune.features import cache, onnx, speech
from cosytune.features.cache import FeatureCache
from cosytune.schema import FlowTrainConfig, LlmTrainConfig, LoraConfig
from cosytune.training import adapters, tasks
from cosytune.training.draws import Epoch
from cosytune.training.hardware import Setup
from cosytune.training.job import Job
from cosytune.training.tasks import Task
from cosytune.upstream import bridge

MakeJob = Callable[..., Job]
FAMILY = families.get("cosyvoice2-0.5b")
SENTENCES = [
    "春の朝、川のそばを歩きました。",
    "雨。",
    "駅前の店で、温かいお茶を飲みます。",
    "明日は晴れるでしょう。",
    "ねこがないた。",
    "山の上から、青い海が見えました。",
]


def write_features(path: Path, model_dir: Path, count: int) -> Path:
    """features.arrow of `count` clips, made as stages 0 to 3 make it."""
    cache.write(path, _rows(path.parent, model_dir, count))
    return path


def _rows(directory: Path, model_dir: Path, count: int) -> Iterator[dict[str, Any]]:
    import pyopenjtalk
    import torchaudio

    tokenizer = bridge.load_tokenizer(model_dir, FAMILY)
    tokens_of = onnx.open_session(model_dir / FAMILY.speech_tokenizer, "cpu", 1)
    embedding_of = onnx.open_session(model_dir / FAMILY.speaker_encoder, "cpu", 1)
    directory.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        text = SENTENCES[number % len(SENTENCES)]
        samples, rate_hz = pyopenjtalk.tts(text, speed=1 + 0.1 * (number // len(SENTENCES)))
        sound = torch.from_numpy(samples.astype(np.float32) / 65536)
        sound = torchaudio.functional.resample(sound, rate_hz, FAMILY.sample_rate_hz)
        wav = directory / f"{number:02d}.wav"
        soundfile.write(wav, sound.numpy(), FAMILY.sample_rate_hz, subtype="PCM_16")
        sound_16k = speech.read_16k(wav)
        tokens = speech.speech_tokens(tokens_of, sound_16k)
        mel = bridge.mel_spectrogram(sound, FAMILY)
        length = min(len(tokens), len(mel) // 2)
        yield {
            "utt": f"話者-{number:02d}",
            "spk": "話者",
            "text": text,
            "text_token": tokenizer.encode(text),
            "speech_token": tokens[:length],
            "mel": mel[: 2 * length].numpy(),
            "spk_embedding": speech.speaker_embedding(embedding_of, sound_16k),
        }


def write_subset(source: Path, destination: Path, indices: Sequence[int]) -> FeatureCache:
    """Some clips of a features.arrow as one of their own."""
    features = cache.open(source)
    cache.write(destination, (vars(features[index]) for index in indices))
    return cache.open(destination)


def make_job(
    name: str,
    model_dir: Path,
    directory: Path,
    train: FeatureCache,
    cv: FeatureCache,
    lora: LoraConfig = LoraConfig(r=4),  # noqa: B008 - frozen
    **settings: Any,
) -> Job:
    """A training run of the random base with fresh adapters; `settings` are those of train.llm or train.flow."""
    return Job(
        name=name,
        directory=directory,
        settings=(configured := {"llm": LlmTrainConfig, "flow": FlowTrainConfig}[name](**settings)),
        task=_task(name, configured),
        setup=_setup(configured),
        model=adapters.attach(_built(name, model_dir), lora, FAMILY.lora_targets[name], seed=5),
        seed=5,
        device="cpu",
        train=train,
        cv=cv,
    )


def _setup(settings: LlmTrainConfig | FlowTrainConfig) -> Setup:
    """As on a CPU, with what the settings ask for by name."""
    budget = settings.max_tokens_per_batch
    return Setup(
        precision="bf16" if settings.bf16 is True else "fp32",
        max_tokens_per_batch=2000 if budget == "auto" else budget,
        gradient_checkpointing=settings.gradient_checkpointing is True,
        optim="adamw_torch" if settings.optim == "auto" else settings.optim,
        num_workers=0 if settings.dataloader_num_workers == "auto" else settings.dataloader_num_workers,
        audio_samples=False,
    )


def _built(name: str, model_dir: Path) -> Any:
    return {"llm": bridge.build_llm, "flow": bridge.build_flow}[name](model_dir, FAMILY)


def _task(name: str, settings: Any) -> Task:
    return tasks.LlmTask(settings, FAMILY) if name == "llm" else tasks.FlowTask(settings, guidance_dropout=0.2)


def drop_nothing(job: Job) -> None:
    """Turn the dropout of the base off; that of the adapters is a setting."""
    for layer in job.model.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0


def history(job: Job) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (job.directory / "history.jsonl").read_text().splitlines()]


def contents(job: Job) -> dict[str, str]:
    """sha256 of everything but logs."""
    return {
        str(path.relative_to(job.directory)): files.sha256(path)
        for path in sorted(job.directory.rglob("*"))
        if path.is_file() and "tensorboard" not in path.parts and path.name != "train.log"
    }


@dataclass(frozen=True)
class Disturbed:
    """A task during which something happens: when it makes the `number`th micro-batch that `counts`."""

    task: Any
    number: int
    happens: Callable[[], None]
    counts: Callable[[Epoch], bool]
    seen: list[Epoch] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def batch(self, clips: Any, epoch: Epoch) -> Any:
        if self.counts(epoch):
            self.seen.append(epoch)
            if len(self.seen) == self.number:
                self.happens()
        return self.task.batch(clips, epoch)


def in_training(epoch: Epoch) -> bool:
    """Whether the draws are not those of cross-validation."""
    return epoch.seed >= 0


def terminate() -> None:
    """SIGTERM to this process, as from `docker stop`."""
    os.kill(os.getpid(), signal.SIGTERM)
