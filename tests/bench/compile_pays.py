"""python tests/bench/compile_pays.py [--modules llm flow] [--rounds 5]: seconds of forward and backward, by variant.

Our loss on a few batches of different lengths: as it is, with selective recomputation (llm), with checkpointing, and
with blocks compiled by torch.compile; interleaved, the median of the rounds. The real widths with few layers
(`--layers`, `--base random`), random weights, adapters without dropout, so that all losses are equal to 1e-5, which is
checked. The seconds that compiling takes stand apart.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from yardsticks import measure

from cosytune import families
from cosytune.families import Shape
from cosytune.features.cache import Clip
from cosytune.schema import LoraConfig
from cosytune.training import adapters, batches, checkpointing, compiling, draws, losses, recomputing
from cosytune.training.draws import Epoch
from cosytune.upstream import bridge

FAMILY = families.get("cosyvoice2-0.5b")
ENABLE = {
    "as it is": lambda model, name: None,
    "recomputing": recomputing.enable,
    "checkpointing": checkpointing.enable,
    "torch.compile": compiling.compiled,
}


@dataclass
class Side:
    """One variant of one module. warm_up_s: its first pass over the batches, compiling included."""

    name: str
    model: Any
    batches: list[Any]
    warm_up_s: float = 0.0

    def step(self) -> tuple[float, list[float]]:
        """Seconds of forward and backward over all batches, and the losses."""
        started_s = time.monotonic()
        found = []
        for batch in self.batches:
            compute: Any = losses.llm_loss if self.name == "llm" else losses.flow_loss
            loss = compute(self.model.get_base_model(), batch)
            loss.total.backward()
            found.append(loss.total.item())
        return time.monotonic() - started_s, found


def main() -> int:
    """Measure, and print Markdown for RESULTS.md; 1 when a loss differs."""
    options = _options()
    torch.set_num_threads(1)
    print(f"`python {' '.join(['tests/bench/compile_pays.py', *sys.argv[1:]])}`, {options.rounds} rounds.\n")
    print("| module | variant | first pass, s | s per pass | of `as it is` |\n|---|---|---|---|---|")
    return max(measure.in_child(_module, name, options) for name in options.modules)


def _module(name: str, options: argparse.Namespace) -> int:
    torch.set_num_threads(options.threads)
    sides = {label: _side(name, options, label) for label in ENABLE if name == "llm" or label != "recomputing"}
    expected: list[float] = []
    for label, side in sides.items():
        side.warm_up_s, found = side.step()
        expected = expected or found
        if not np.allclose(found, expected, rtol=1e-5, atol=0):
            print(f"{name}, {label}: losses {found}, expected {expected}", file=sys.stderr)
            return 1
    rounds = [{label: side.step()[0] for label, side in sides.items()} for _ in range(options.rounds)]
    medians = {label: statistics.median(one[label] for one in rounds) for label in sides}
    for label, side in sides.items():
        share = medians[label] / medians["as it is"]
        print(f"| {name} | {label} | {side.warm_up_s:.2f} | {medians[label]:.3f} | {share:.2f} |", flush=True)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", nargs="+", choices=["llm", "flow"], default=["llm", "flow"])
    parser.add_argument("--base", choices=["full-random", "random"], default="full-random")
    parser.add_argument("--layers", type=int, default=4, help="of the LLM")
    parser.add_argument(
        "--tokens", type=int, nargs="+", default=[60, 75, 90], help="speech tokens of each batch's clips"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def _side(name: str, options: argparse.Namespace, label: str) -> Side:
    torch.manual_seed(0)
    shape = FAMILY.shape(options.base)
    shape = replace(shape, llm=replace(shape.llm, num_hidden_layers=options.layers))
    module = _new(name, shape)
    lora = LoraConfig(lora_dropout=0.0)
    model = adapters.attach(module, lora, FAMILY.lora_targets[name], seed=0).train()
    for part in model.modules():  # the flow's own; compiled kernels would draw other numbers
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    ENABLE[label](model, name)
    return Side(name, model, [_batch(name, length) for length in options.tokens])


def _new(name: str, shape: Shape) -> Any:
    return bridge.new_llm(FAMILY, shape) if name == "llm" else bridge.new_flow(FAMILY, shape)


def _batch(name: str, length: int) -> Any:
    """Two clips, one of them shorter."""
    clips = [_clip(length), _clip(length - 7)]
    if name == "llm":
        return batches.llm_batch([batches.plain_sequence(clip.text_token, clip.speech_token, FAMILY) for clip in clips])
    made = [draws.flow(Epoch(0, 0), clip.utt, len(clip.mel), 80, 0.2) for clip in clips]
    return batches.flow_batch(clips, made, streaming=False)


def _clip(length: int) -> Clip:
    random = np.random.default_rng(length)
    return Clip(
        utt=str(length),
        spk="",
        text="",
        text_token=random.integers(0, 400, length // 5).astype(np.int32),
        speech_token=random.integers(0, FAMILY.speech_token_size, length).astype(np.int32),
        mel=random.standard_normal((2 * length, 80), dtype=np.float32),
        spk_embedding=random.standard_normal(192, dtype=np.float32),
    )


if __name__ == "__main__":
    sys.exit(main())
