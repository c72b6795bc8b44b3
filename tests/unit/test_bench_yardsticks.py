"""The bench compares the same work: (a) and (b), upstream's trainer, and ours have one loss on the same clips."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from bench.yardsticks import corpus as corpora
from bench.yardsticks import measure, ours, theirs
from bench.yardsticks.corpus import Corpus
from cosytune.training import draws
from cosytune.training.draws import Epoch
from cosytune.upstream import bridge
from training_data import FAMILY

CPU = torch.device("cpu")
MAX_FRAMES = 180
EPOCH = Epoch(seed=0, number=0)


@pytest.fixture(scope="module")
def corpus(upstream_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Six clips of different lengths, 4 batches of upstream's, 2 updates."""
    return corpora.make(tmp_path_factory.mktemp("bench") / "corpus", FAMILY, corpora.spread(6, 1.1, 1.9))


@pytest.fixture(autouse=True)
def no_process_group() -> Iterator[None]:
    """Upstream joins one; the tests behind these know of none."""
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


def _module(name: str) -> Any:
    torch.manual_seed(3)
    with bridge.keep_random_state():
        return {"llm": bridge.new_llm, "flow": bridge.new_flow}[name](FAMILY, FAMILY.random).eval()


def _batches(corpus: Corpus, workers: int = 0) -> list[dict[str, Any]]:
    return list(theirs.loader(corpus, FAMILY, workers, MAX_FRAMES))


def _indices(corpus: Corpus, batch: dict[str, Any]) -> list[int]:
    return [corpus.features.utts.index(utt) for utt in batch["utts"]]


def _draw_as_we_do(name: str, task: Any, clips: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Upstream's random calls give our draws for these clips, in their order."""
    if name == "llm":
        coins = iter([draws.interleaved(EPOCH, clip.utt, task.settings.bistream_probability) for clip in clips])
        upstream = bridge._module("cosyvoice.llm.llm")
        monkeypatch.setattr(upstream, "random", SimpleNamespace(random=lambda: 0.0 if next(coins) else 0.9))
        return
    made = [draws.flow(EPOCH, clip.utt, len(clip.mel), FAMILY.mel.num_mels, task.guidance_dropout) for clip in clips]
    noise = torch.zeros(len(clips), FAMILY.mel.num_mels, max(len(clip.mel) for clip in clips))
    for row, draw in zip(noise, made, strict=True):
        row[:, : len(draw.noise)] = torch.from_numpy(draw.noise.T)
    uniform = iter(
        [
            torch.tensor([draw.time for draw in made]).view(-1, 1, 1),
            torch.tensor([0.9 if draw.guided else 0.0 for draw in made]),
        ]
    )

    class Torch:
        rand = staticmethod(lambda *_, **__: next(uniform))
        randn_like = staticmethod(lambda _: noise)

        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

    is_streaming = task.coin(EPOCH, clips[0].utt)
    coins = iter([0.0 if is_streaming else 0.9, *(0.9 if draw.prompt_frames else 0.0 for draw in made)])
    cuts = iter([draw.prompt_frames for draw in made if draw.prompt_frames])
    fake = SimpleNamespace(random=lambda: next(coins), randint=lambda *_: next(cuts))
    monkeypatch.setattr(bridge._module("cosyvoice.flow.flow"), "random", fake)
    monkeypatch.setattr(bridge._module("cosyvoice.flow.flow_matching"), "torch", Torch())


@pytest.mark.parametrize("name", ["llm", "flow"])
def test_three_sides_have_one_loss(name: str, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On upstream's own batches, read by its own pipeline; ours reads features.arrow. Fresh adapters change nothing."""
    shipped = theirs.build(_module(name), FAMILY, CPU, tmp_path).model.eval()
    injected = theirs.build(theirs.inject(_module(name), name, FAMILY), FAMILY, CPU, tmp_path).model.eval()
    mine = ours.build(_module(name), name, FAMILY, CPU, max_tokens_per_batch=1000)
    module = mine.tools.model.eval().get_base_model()
    for batch in _batches(corpus):
        clips = [corpus.features[index] for index in _indices(corpus, batch)]
        with torch.no_grad():
            ready = mine.task.batch(clips, EPOCH)
            loss = mine.task.loss(module, ready).total.item() / ready.targets
            for side in (shipped, injected):
                _draw_as_we_do(name, mine.task, clips, monkeypatch)
                assert side(batch, CPU)["loss"].item() == pytest.approx(loss, rel=1e-5)
        monkeypatch.undo()


@pytest.mark.parametrize("name", ["llm", "flow"])
def test_shipped_trains_all_and_the_others_adapters_alone(name: str, corpus: Corpus, tmp_path: Path) -> None:
    random.seed(0)
    updates = corpora.updates(corpora.frames(corpus), MAX_FRAMES, theirs.ACCUM_GRAD)
    changed = {}
    for variant in measure.VARIANTS:
        module = _module(name)
        if variant == "ours":
            mine = ours.build(module, name, FAMILY, CPU, max_tokens_per_batch=1000)
            before = _copy(module)
            mine.epoch(corpus, updates)
            assert mine.tools.scheduler.last_epoch == len(updates)
        else:
            module = module if variant == "a" else theirs.inject(module, name, FAMILY)
            side = theirs.build(module, FAMILY, CPU, tmp_path)
            before = _copy(module)
            side.epoch(theirs.loader(corpus, FAMILY, 1, MAX_FRAMES))
            assert side.scheduler.last_epoch == len(updates)
        changed[variant] = {key for key, value in module.named_parameters() if not torch.equal(before[key], value)}
        if variant == "a":
            everything = set(before)
    assert changed["a"] == everything
    assert changed["b"] == changed["ours"]
    assert changed["b"] and all(".lora_" in key for key in changed["b"])
    assert not any(value.requires_grad for key, value in module.named_parameters() if ".lora_" not in key)


def _copy(module: Any) -> dict[str, torch.Tensor]:
    return {key: value.detach().clone() for key, value in module.named_parameters()}


def test_our_updates_are_those_that_upstream_makes(corpus: Corpus) -> None:
    batches = [_indices(corpus, batch) for batch in _batches(corpus)]
    assert len({len(batch) for batch in batches}) > 1, "batches of different sizes must occur"
    made = [sorted(batches[start] + batches[start + 1]) for start in range(0, len(batches), theirs.ACCUM_GRAD)]
    expected = corpora.updates(corpora.frames(corpus), MAX_FRAMES, theirs.ACCUM_GRAD)
    assert made == [sorted(update) for update in expected]


def test_clips_that_upstream_would_not_learn_from_are_refused() -> None:
    with pytest.raises(ValueError, match="3 batches, 2 an update"):
        corpora.updates([100, 100, 100], 100, 2)
    assert corpora.even([1.0, 1.1, 1.2], 50, 60, 2) == [1.0, 1.1]
    with pytest.raises(SystemExit, match="take more clips"):
        corpora.even([1.0], 50, 60, 2)
