"""Stage 4: cached features -> exp/<name>/{llm,flow}/: LoRA checkpoints, history.jsonl, plan.json, logs.

python -m cosytune.stages.train egs/demo/exp/default/config.yaml
torchrun --nproc_per_node 2 -m cosytune.stages.train egs/demo/exp/default/config.yaml

A run that was stopped goes on from its newest checkpoint; SIGTERM writes one and exits with status 75. The stage starts
the processes of train.num_processes by itself; by train.launcher they may also lie on several machines.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from cosytune import base, files
from cosytune import config as configs
from cosytune.layout import Layout
from cosytune.record import flatten
from cosytune.schema import Config
from cosytune.stages.runner import Context, need, run_stage
from cosytune.training import job, nodes, preflight, processes, reports, runs, signals, srun, torchrun
from cosytune.training.torchrun import Leader, Word


def main() -> None:
    signals.leave_at_once(quiet=torchrun.rank() > 0 or torchrun.is_launched())
    torchrun.end_with_launcher()
    reports.run(_run)


def _run() -> None:
    """As what this process is: the stage, its launcher, or one of those that were launched."""
    config, layout, arguments = _arguments()
    if config.train.launcher == "srun" and srun.is_task():
        srun.join(config, os.environ)
    if torchrun.is_at_work():
        with torchrun.leading() if torchrun.rank() == 0 else nullcontext() as leader:
            if leader is not None:
                run_stage("train", partial(work, leader=leader), inputs, outputs, answer=_directly)
            else:
                _follow(config, layout)
    elif config.train.launcher != "auto":
        _launch(config, layout, arguments)
    else:
        run_stage("train", work, inputs, outputs)


def work(context: Context, leader: Leader | None = None) -> None:
    """Train each module by itself: they share no parameters and no gradient. `leader`: we are one of several."""
    config, layout, names = context.config, context.layout, context.config.train.modules
    preflight.check(config, layout, by_torchrun=leader is not None)
    try:
        # All of them before the first is trained: a run that is stopped and goes on does not know of `again`.
        for name in names:
            runs.settle(layout.module(name), _identity(context, name), start_over=context.again)
        if config.train.engine == "upstream":
            _train_by_upstream(context)
        elif leader is not None:
            written = {str(name): (layout.module(name) / runs.RUN).read_text(encoding="utf-8") for name in names}
            leader.announce(Word(socket.gethostname(), nodes.digest(config), names, written))
            job.run(config, layout, names)
        else:
            processes.train(config, layout)
    except signals.Stopped as stopped:
        if not torchrun.is_launched():
            print(stopped, file=sys.stderr)
        sys.exit(stopped.exit_status)


def _launch(config: Config, layout: Layout, arguments: Sequence[str]) -> None:
    """Start the processes that train, on one node or on all of them."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # of stores that are gone: what we say of it is enough
    from cosytune.training import agent

    try:
        {"torchrun": agent.train, "srun": srun.train}[config.train.launcher](config, layout, arguments)
    except signals.Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(stopped.exit_status)


def _follow(config: Config, layout: Layout) -> None:
    """As one of the other ranks: train what the first one says; its lock and its record are for all."""
    follower = torchrun.Follower()
    word = follower.word()
    try:
        if word.modules:
            torchrun.say(f"stage 4 (train): {', then '.join(word.modules)}, as {word.host} says")
            word.require_same(nodes.digest(config), lambda name: layout.module(name) / runs.RUN)
            job.run(config, layout, word.modules)
        torchrun.end_as(follower.end(), word.host)
    except signals.Stopped as stopped:
        sys.exit(stopped.exit_status)


def _directly(stage: Callable[[], int | None]) -> None:
    """What answers the errors of a launched process is around it."""
    stage()


def _arguments() -> tuple[Config, Layout, Sequence[str]]:
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("--again", action="store_true")
    return *configs.load(parser.parse_args().config), sys.argv[1:]


def _train_by_upstream(context: Context) -> None:
    from cosytune.training.upstream_engine import train

    train(context)


def _identity(context: Context, name: str) -> dict[str, Any]:
    """What changes this module's adapters; a change of the other module's settings leaves it alone."""
    engine = {"upstream": ("train.engine", "train.upstream")}.get(context.config.train.engine, ())
    uses = ("model", "seed", "device", f"lora.{name}", f"train.{name}", *engine)
    read = [*_features(context), base.locate(context.config) / job.weights(context.config, name)]
    idle = _CHANGES_NOTHING
    if getattr(context.config.train, name).gradient_accumulation_steps == "auto":
        idle += ("max_tokens_per_batch",)  # else it is a factor of the effective batch
    settings = flatten(context.config, uses)
    return {
        "settings": {key: value for key, value in settings.items() if key.rpartition(".")[2] not in idle},
        "inputs": {f"{path.parent.name}/{path.name}": files.sha256(path) for path in read},
    }


_CHANGES_NOTHING: tuple[str, ...] = (
    "dataloader_num_workers",
    "gradient_checkpointing",
    "logging_steps",
    "report_to",
    "save_steps",
    "save_total_limit",
)
"""Of what is learned: a run that was stopped goes on, whatever these are now."""


def _features(context: Context) -> list[Path]:
    """Training and cross-validation clips."""
    return [need(path, "pack") for path in job.features(context.layout)]


def inputs(context: Context) -> Iterable[Path]:
    yield from _features(context)
    for name in context.config.train.modules:
        yield base.file(context.config, job.weights(context.config, name))


def outputs(context: Context) -> Iterable[Path]:
    """Not the logs: who deletes them does not want to train again."""
    for name in context.config.train.modules:
        directory = context.layout.module(name)
        yield from (directory / file for file in ("run.json", "plan.json", "history.jsonl"))
        yield from directory.glob("checkpoint-??????*/*")


if __name__ == "__main__":
    main()
