"""The rows that only a GPU can fill: share of the measured matrix rate, and whether training fits a small card."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cosytune.training import loader, plan
from cosytune.training.draws import Epoch

from . import corpus as corpora
from . import measure, ours, theirs
from .measure import Bench

_EFFICIENCY_GOALS = {"llm": 0.25, "flow": 0.15}
_PACK_TOKENS = 8192
_CLIP_S = 8.0
_CAPS = ((6, False, 1024), (4, True, 512))
"""GB, gradient checkpointing, max_tokens_per_batch."""
_MATRIX = 8192


def print_rows(base: nn.Module, bench: Bench, rounds: int) -> None:
    """Print them for one module."""
    pack = _pack(bench)
    rates = [measure.in_child(_efficiency, base, bench, pack) for _ in range(rounds)]
    shares = [tokens_per_s * flop_per_token / matrix_rate for tokens_per_s, flop_per_token, matrix_rate in rates]
    tokens, flop, matrix = (statistics.median(column) for column in zip(*rates, strict=True))
    print(
        f"\n{bench.name}, packs of {_PACK_TOKENS} tokens, bf16: {tokens:.0f} tokens/s "
        f"x {flop / 1e9:.2f} GFLOP per token / "
        f"{matrix / 1e12:.0f} TFLOP/s (matrices of {_MATRIX}) = {statistics.median(shares):.1%} "
        f"({min(shares):.1%} to {max(shares):.1%}); goal >= {_EFFICIENCY_GOALS[bench.name]:.0%}\n"
    )
    for gigabytes, checkpointing, budget in _CAPS:
        what = f"{bench.name} under a cap of {gigabytes} GB" + (", gradient checkpointing" if checkpointing else "")
        peak = measure.in_child(_capped, base, bench, gigabytes, checkpointing, budget)
        said = f"trains, {peak / 1e9:.2f} GB at most" if peak else "out of memory"
        print(f"- {what}, max_tokens_per_batch {budget}: {said}")


def _pack(bench: Bench) -> corpora.Corpus:
    """One micro-batch of clips of equal length: no padding."""
    probe = corpora.make(bench.scratch / "probe", bench.family, [_CLIP_S])
    length = probe.features.lengths[0]
    tokens = length.speech + (length.text if bench.name == "llm" else 0)
    return corpora.make(bench.scratch / "pack", bench.family, [_CLIP_S] * (_PACK_TOKENS // tokens))


def _efficiency(base: nn.Module, bench: Bench, pack: corpora.Corpus) -> tuple[float, float, float]:
    """-> tokens a second, operations a token as torch counts them, operations a second of a matrix product."""
    device = torch.device(bench.device)
    side = ours.build(base, bench.name, bench.family, device, max_tokens_per_batch=2 * _PACK_TOKENS)
    lengths = [side.task.length(length) for length in pack.features.lengths]
    everything = plan.greedy(range(len(lengths)), lengths, 2 * _PACK_TOKENS)
    batch = loader.batch_of(side.task, pack.features, everything[0], Epoch(0, 0)).to(device)
    for _ in range(3):
        side.tools.update([batch], _never)
    with FlopCounterMode(display=False) as counter:
        side.tools.update([batch], _never)
    seconds = _timed(lambda: side.tools.update([batch], _never), 10, device)
    tokens = sum(lengths)
    return tokens / seconds, counter.get_total_flops() / tokens, _matrix_rate(device)


def _matrix_rate(device: torch.device) -> float:
    """Operations a second of a large matrix product in bf16."""
    left, right = (torch.randn(_MATRIX, _MATRIX, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(5):
        left @ right
    return 2 * _MATRIX**3 / _timed(lambda: left @ right, 50, device)


def _timed(work: Callable[[], object], times: int, device: torch.device) -> float:
    """Mean seconds."""
    measure.wait(device)
    started_s = time.monotonic()
    for _ in range(times):
        work()
    measure.wait(device)
    return (time.monotonic() - started_s) / times


def _capped(base: nn.Module, bench: Bench, gigabytes: int, checkpointing: bool, budget: int) -> int:
    """Bytes used at most, CUDA's own included, in a pass that may use so much; 0 when that was too little.

    The card must be otherwise idle.
    """
    device = torch.device(bench.device)
    torch.zeros(1, device=device)
    free, total = torch.cuda.mem_get_info()
    context = total - free - torch.cuda.memory_reserved()  # CUDA's own; on a small card it has to fit, too
    torch.cuda.set_per_process_memory_fraction((gigabytes * 1e9 - context) / total)
    try:
        side = ours.build(base, bench.name, bench.family, device, budget, checkpointing)
        frames = corpora.frames(bench.corpus)
        side.epoch(bench.corpus, corpora.updates(frames, bench.max_frames, theirs.ACCUM_GRAD))
    except (torch.OutOfMemoryError, ours.machine.OutOfMemory):
        return 0
    return context + torch.cuda.max_memory_reserved()


def _never() -> bool:
    return False
