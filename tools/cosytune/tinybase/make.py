"""Nothing but installed packages -> DIR with every part of the tiny base, trained; parts that are there are kept.

python -m cosytune.tinybase make --dir tinybase --device cuda
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from cosytune import files
from cosytune.errors import UserError
from cosytune.tinybase import corpus, flow, llm, recogniser, speaker_encoder, tokenizer, verifier, vocoder
from cosytune.tinybase.corpus import Corpus, CorpusPlan
from cosytune.tinybase.features import extract
from cosytune.tinybase.learn import Plan

_ON_CPU = 2
"""Parts that are made at a time on a CPU."""
_DONE = "done"
"""A file in the directory of a part that was made to its end."""


@dataclass(frozen=True)
class Making:
    """Where, on what, and how much. `scale`: of all steps and sentences; below 1 it only tries the machinery."""

    directory: Path
    device: str
    scale: float = 1.0

    def path(self, part: str) -> Path:
        return self.directory / part

    def plan(self, plans: Mapping[str, Plan]) -> Plan:
        full = plans[self.device.split(":")[0]]
        return replace(full, steps=max(2, round(full.steps * self.scale)))

    def corpus(self) -> Corpus:
        return Corpus.open(self.path("corpus"))


def _corpus(making: Making) -> None:
    full = CorpusPlan()
    plan = (
        full
        if making.scale == 1.0
        else replace(full, train=max(4 * full.speakers, round(full.train * making.scale)), held_out=16)
    )
    corpus.make(making.path("corpus"), plan, "auto")


def _tokenizer(making: Making) -> None:
    tokenizer.make(making.corpus(), making.path("tokenizer"), making.device, making.plan(tokenizer.PLAN))


def _speaker_encoder(making: Making) -> None:
    directory, whole = making.path("speaker_encoder"), making.corpus()
    module = speaker_encoder.make(whole, directory, making.device, making.plan(speaker_encoder.PLAN))
    for split in ("train", "held_out"):
        found = speaker_encoder.embed(module, whole, whole.of(split), making.device)
        files.write_torch(directory / f"{split}.pt", found.float().cpu())


def _verifier(making: Making) -> None:
    verifier.make(making.corpus(), making.path("verifier"), making.device, making.plan(verifier.PLAN))


def _recogniser(making: Making) -> None:
    recogniser.make(making.corpus(), making.path("recogniser"), making.device, making.plan(recogniser.PLAN))


def _vocoder(making: Making) -> None:
    vocoder.make(making.corpus(), making.path("vocoder"), making.device, making.plan(vocoder.PLAN))


def _llm(making: Making) -> None:
    speech = tokenizer.renderings(making.path("tokenizer"))
    llm.make(making.corpus().of("train"), speech, making.path("llm"), making.device, making.plan(llm.PLAN))


def _flow(making: Making) -> None:
    utterances = making.corpus().of("train")
    features = extract(making.corpus(), utterances, making.device)
    tokens = tokenizer.tokens(making.path("tokenizer"), "train")
    own = torch.load(making.path("speaker_encoder") / "train.pt", weights_only=True).to(making.device)
    material = flow.Material(
        tokens=torch.cat([torch.from_numpy(one) for one in tokens]).to(making.device),
        canonical=extract(making.corpus(), utterances, making.device, "canonical").mel,
        voices=flow.speaker_means(own, [one.speaker for one in utterances]),
    )
    plans = making.plan(flow.ENCODER_PLAN), making.plan(flow.ESTIMATOR_PLAN)
    flow.make(features, material, making.path("flow"), making.device, *plans)


_GRAPHS = {
    "tokenizer": lambda directory, path: tokenizer.export(tokenizer.load(directory), path),
    "speaker_encoder": lambda directory, path: speaker_encoder.export(speaker_encoder.load(directory), path),
    "verifier": lambda directory, path: verifier.export(verifier.load(directory), path),
    "recogniser": lambda directory, path: recogniser.export(recogniser.load(directory), path),
}


def _graphs(making: Making) -> None:
    """model.onnx beside the weights of what is shipped as ONNX."""
    for name, export in _GRAPHS.items():
        export(making.path(name), making.path(name) / "model.onnx")


@dataclass(frozen=True)
class _Part:
    make: Callable[[Making], None]
    needs: tuple[str, ...]


PARTS: Mapping[str, _Part] = {
    "corpus": _Part(_corpus, ()),
    "tokenizer": _Part(_tokenizer, ("corpus",)),
    "speaker_encoder": _Part(_speaker_encoder, ("corpus",)),
    "verifier": _Part(_verifier, ("corpus",)),
    "recogniser": _Part(_recogniser, ("corpus",)),
    "vocoder": _Part(_vocoder, ("corpus",)),
    "llm": _Part(_llm, ("tokenizer",)),
    "flow": _Part(_flow, ("tokenizer", "speaker_encoder")),
    "graphs": _Part(_graphs, tuple(_GRAPHS)),
}


def make_part(making: Making, name: str) -> None:
    """Make one part in this process; raises UserError when what it needs is not there."""
    _claim(making)
    missing = [need for need in PARTS[name].needs if not _is_done(making, need)]
    if missing:
        raise UserError(*(f"{making.path(need)}: not made yet; make it first: --only {need}" for need in missing))
    if _is_done(making, name):
        print(f"{name}: there already")
        return
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    started_s = time.monotonic()
    PARTS[name].make(making)
    files.write_text(making.path(name) / _DONE, f"{time.monotonic() - started_s:.1f} s on {making.device}\n")
    print(f"{name}: made in {time.monotonic() - started_s:.0f} s")


def make_all(making: Making) -> None:
    """Make every part, each in a process of its own; those side by side that do not wait for each other.

    On a CPU two of them, with half of the cores each: twice as many threads make no step twice as fast.

    Raises UserError naming the parts that failed, after the others have ended.
    """
    _claim(making)
    side_by_side = _ON_CPU if making.device == "cpu" else len(PARTS)
    waiting, running, failed = dict(PARTS), dict[str, subprocess.Popen[bytes]](), list[str]()
    try:
        while waiting or running:
            for name in [name for name, part in waiting.items() if all(_is_done(making, need) for need in part.needs)]:
                if len(running) < side_by_side:
                    del waiting[name]
                    running[name] = _start(making, name)
            if not running:
                break  # the rest waits for what has failed
            time.sleep(0.2)
            for name in [name for name, process in running.items() if process.poll() is not None]:
                if running.pop(name).returncode:
                    failed.append(name)
    finally:  # of a run that is stopped: nobody else would stop them
        for process in running.values():
            process.terminate()
    if failed:
        raise UserError(*(f"{name}: failed, see above; mend it and make again, the rest is kept" for name in failed))


def _claim(making: Making) -> None:
    """making.json: how much is made here. Parts of a trial must not be taken for those of a whole run."""
    path, ours = making.directory / "making.json", {"scale": making.scale}
    if path.is_file() and (theirs := files.read_json(path)) != ours:
        raise UserError(f"{path}: begun with --scale {theirs['scale']}; use it again, or another --dir")
    files.write_json(path, ours)


def _start(making: Making, name: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "cosytune.tinybase", "make", f"--dir={making.directory}", f"--only={name}"]
    command += [f"--device={making.device}", f"--scale={making.scale}"]
    threads = str(max(1, (os.cpu_count() or 1) // _ON_CPU))
    return subprocess.Popen(command, env={"OMP_NUM_THREADS": threads, **os.environ, "PYTHONUNBUFFERED": "1"})


def _is_done(making: Making, name: str) -> bool:
    return (making.path(name) / _DONE).is_file()
