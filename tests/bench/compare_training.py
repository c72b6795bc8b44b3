"""python tests/bench/compare_training.py [--device cuda] [--modules llm flow] [--rounds 5]: stage 4 beside upstream.

A pass over the same clips, in the same updates, by (a) upstream as shipped, (b) upstream without its duplicates and
with LoRA, and CosyTune; peak memory; a checkpoint. The modules have the real shapes and random weights (`--layers 2`,
`--base random`: smaller, to try the script). Each figure is the median of the rounds, smallest to largest behind it; a
round measures the three one after the other, each in a process of its own (yardsticks/measure.py says how).

On a CPU the defaults take about 15 minutes and 16 GB on 2 quiet cores. Upstream's example has batches of 2,000 frames
and 2 of them an update, which is 80 s of speech and minutes of computing; the defaults here halve that for the LLM
(`--llm_frames`). The flow's clips have 400 frames, and so have upstream's batches. The clips of one pass differ little
in length, as they do in the batches of a sorted corpus, so that padding costs nobody much. Our micro-batches hold as
many clips as upstream's (`--budget`), so that peak memory compares like with like.

On a GPU: more clips, upstream with its `--use_amp`, ours in bf16, and the rows that need a GPU (yardsticks/gpu.py).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import torch
from yardsticks import corpus as corpora
from yardsticks import gpu, measure, theirs
from yardsticks.measure import VARIANTS, Bench, Figures

from cosytune import families
from cosytune.families import Shape
from cosytune.layout import ROOT
from cosytune.training import adapters
from cosytune.upstream import bridge

FAMILY = families.get("cosyvoice2-0.5b")
GOALS = {
    ("llm", "cpu"): {"a": 2.5, "b": 1.3},
    ("flow", "cpu"): {"a": 1.3},
    ("llm", "cuda"): {"a": 8.0, "b": 3.0},
    ("flow", "cuda"): {"b": 4.0},
}
"""The issue's: upstream's time / ours."""
MEMORY_GOAL, CHECKPOINT_GOAL = 0.4, 50
NEEDED_BYTES = 16e9
"""Weights, gradients, DistributedDataParallel's copy of them and Adam's state: 10.1 GB; the rest are activations, the
parent's base weights, workers and libraries."""
_HEAD = """\
| | (a) as shipped | (b) once, LoRA | CosyTune | (a) / ours | (b) / ours | goal |
|---|---|---|---|---|---|---|"""


def main() -> int:
    """Measure, and print Markdown for RESULTS.md."""
    options = _options()
    _require_memory(options)
    torch.set_num_threads(1)  # see yardsticks/measure.py; the children use --threads
    adapters._peft()
    for name in ("cosyvoice.utils.train_utils", "cosyvoice.dataset.processor", "cosyvoice.tokenizer.tokenizer"):
        bridge._module(name)
    command = " ".join(["python", "tests/bench/compare_training.py", *sys.argv[1:]])
    print(f"`{command}` at {commit()}, {machine(options)}.")
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        for module in options.modules:
            bench = _bench(module, options, Path(name) / module)
            print(f"\n{_description(bench, options)}\n", flush=True)
            base = _base(module, _shape(options))
            rounds = [
                {variant: measure.in_child(measure.run, variant, base, bench, number) for variant in VARIANTS}
                for number in range(options.rounds)
            ]
            _print_table(module, bench, {variant: [one[variant] for one in rounds] for variant in VARIANTS})
            if options.device == "cuda":
                gpu.print_rows(base, bench, options.rounds)
            else:
                print(f"\n{module}, on a GPU: not measured")
            del base
    return 0


def _require_memory(options: argparse.Namespace) -> None:
    """Better to say so than to be killed, or to kill a neighbour, half an hour later."""
    available = psutil.virtual_memory().available
    is_large = "llm" in options.modules and options.base == "full-random" and not options.layers
    if is_large and available < NEEDED_BYTES:
        sys.exit(
            f"{available / 1e9:.1f} GB of memory are available, upstream's full fine-tune of the LLM needs "
            f"{NEEDED_BYTES / 1e9:.0f} GB here; end other work, or measure less: --layers 12"
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--modules", nargs="+", choices=["llm", "flow"], default=["llm", "flow"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=psutil.cpu_count(logical=False) or 1)
    parser.add_argument("--workers", type=int, default=theirs.WORKERS, help="of upstream as shipped")
    parser.add_argument("--llm_clips", type=int, help="default: 12, on a GPU 240")
    parser.add_argument("--flow_clips", type=int, help="default: 4, on a GPU 80")
    parser.add_argument("--llm_frames", type=int, help="max_frames_in_batch of upstream; default: 1000, on a GPU 2000")
    parser.add_argument("--flow_frames", type=int, default=400, help="the same for the flow")
    parser.add_argument("--budget", type=int, help="our max_tokens_per_batch; default: as upstream's, on a GPU 8192")
    parser.add_argument("--base", choices=["full-random", "random"], default="full-random")
    parser.add_argument("--layers", type=int, help="of the LLM, to try the script")
    parser.add_argument("--scratch", help="where upstream's checkpoints of 2 GB have room; default: TMPDIR")
    options = parser.parse_args()
    is_cuda = options.device == "cuda"
    for name, on_cpu, on_gpu in (("llm_clips", 12, 240), ("flow_clips", 4, 80), ("llm_frames", 1000, 2000)):
        if getattr(options, name) is None:
            setattr(options, name, on_gpu if is_cuda else on_cpu)
    return options


def _bench(module: str, options: argparse.Namespace, scratch: Path) -> Bench:
    """Write the clips of one module."""
    if module == "llm":
        longest_s = 8.0 if options.device == "cuda" else 3.2
        lengths_s, max_frames = corpora.spread(options.llm_clips, 2.8, longest_s), options.llm_frames
    else:
        lengths_s, max_frames = [8.0] * options.flow_clips, options.flow_frames
    rate_hz = FAMILY.token_rate_hz * FAMILY.token_mel_ratio
    lengths_s = corpora.even(lengths_s, rate_hz, max_frames, theirs.ACCUM_GRAD)
    corpus = corpora.make(scratch / "corpus", FAMILY, lengths_s)
    warm_up = corpora.make(scratch / "warm_up", FAMILY, lengths_s[:1] * 2, seed=1)
    return Bench(
        name=module,
        family=FAMILY,
        corpus=corpus,
        warm_up=warm_up,
        max_frames=max_frames,
        max_tokens_per_batch=options.budget or _budget(module, corpus, max_frames, options.device),
        workers=options.workers,
        threads=options.threads,
        device=options.device,
        scratch=scratch,
    )


def _budget(module: str, corpus: corpora.Corpus, max_frames: int, device: str) -> int:
    """Padded tokens of as many clips as upstream's batches hold, of the longest; on a GPU what a large card has."""
    if device == "cuda":
        return 8192
    clips = max(1, max_frames // max(corpora.frames(corpus)))
    longest = max(length.speech + (length.text if module == "llm" else 0) for length in corpus.features.lengths)
    return clips * longest


def _base(module: str, shape: Shape) -> torch.nn.Module:
    """Fresh random weights, in eval mode, fp32."""
    torch.manual_seed(0)
    return (bridge.new_llm if module == "llm" else bridge.new_flow)(FAMILY, shape).eval()


def _shape(options: argparse.Namespace) -> Shape:
    shape = FAMILY.shape(options.base)
    return replace(shape, llm=replace(shape.llm, num_hidden_layers=options.layers)) if options.layers else shape


def _description(bench: Bench, options: argparse.Namespace) -> str:
    corpus, layers = bench.corpus, _shape(options).llm.num_hidden_layers
    shape = f"{options.base}" + (f", {layers} layers" if bench.name == "llm" else "")
    frames = corpora.frames(corpus)
    updates = len(corpora.updates(frames, bench.max_frames, theirs.ACCUM_GRAD))
    return (
        f"### {bench.name} ({shape}), {options.device}\n\n"
        f"{len(frames)} clips of {min(frames)} to {max(frames)} frames, {corpus.tokens} text and speech tokens, "
        f"{updates} updates; upstream: max_frames_in_batch {bench.max_frames}, accum_grad {theirs.ACCUM_GRAD}, "
        f"{bench.workers} workers in (a); ours: max_tokens_per_batch {bench.max_tokens_per_batch}. "
        f"{options.rounds} interleaved rounds: median (smallest to largest)."
    )


def _print_table(module: str, bench: Bench, figures: dict[str, list[Figures]]) -> None:
    clips, device = len(bench.corpus.features), bench.device
    print(_HEAD)
    goals = GOALS[module, device]
    goal = ", ".join(f">= {value:g}x ({variant})" for variant, value in goals.items())
    served = {variant: statistics.median(one.served / clips for one in figures[variant]) for variant in VARIANTS}
    print("| clips served / unique | " + " | ".join(f"{served[variant]:.2f}" for variant in VARIANTS) + " | | | |")
    per_update = "step" if module == "flow" else "pass"
    _row("s per pass over unique clips", figures, lambda one: one.pass_s, goal if per_update == "pass" else "")
    _row("the same, were (a) to read each clip once", figures, lambda one: one.pass_s * clips / one.served, "")
    _row("s per update", figures, lambda one: one.pass_s / one.updates, goal if per_update == "step" else "")
    _row("CPU s per update", figures, lambda one: one.cpu_s / one.updates, "")
    memory = f"<= {MEMORY_GOAL:g} of (a)"
    _row("peak memory, GB", figures, lambda one: one.peak_bytes / 1e9, memory, shares=True)
    _row("checkpoint, MB", figures, lambda one: one.saved_bytes / 1e6, f"<= 1/{CHECKPOINT_GOAL} of (a)", skip="b")
    _row("checkpoint, s", figures, lambda one: one.save_s, f"<= 1/{CHECKPOINT_GOAL} of (a)", skip="b")


def _row(
    label: str,
    figures: dict[str, list[Figures]],
    value: Callable[[Figures], float],
    goal: str,
    shares: bool = False,
    skip: str = "",
) -> None:
    """Medians and, from medians, how much more upstream takes (shares: how much less we do)."""
    values = {variant: [value(one) for one in figures[variant]] for variant in VARIANTS}
    middle = {variant: statistics.median(values[variant]) for variant in VARIANTS}
    cells = ["" if variant == skip else _spread(values[variant]) for variant in VARIANTS]
    for variant in ("a", "b"):
        ratio = middle["ours"] / middle[variant] if shares else middle[variant] / middle["ours"]
        cells.append("" if variant == skip else f"{ratio:.2f}" + (" (ours / it)" if shares else "x"))
    print(f"| {label} | " + " | ".join([*cells, goal]) + " |", flush=True)


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def commit() -> str:
    run = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return run.stdout.strip() or "an unknown commit"


def machine(options: argparse.Namespace) -> str:
    cores = f"{psutil.cpu_count()} CPU cores ({options.threads} threads), load {os.getloadavg()[0]:.1f} at the start"
    if options.device == "cpu":
        return f"{cores}, no GPU"
    asked = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    card = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    return f"{cores}, {card}, torch {torch.__version__}"


if __name__ == "__main__":
    sys.exit(main())
