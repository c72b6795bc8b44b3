"""python tests/bench/saved_bytes.py [--base random] [--layers 24]: what an LLM keeps for the backward pass.

Bytes per text and speech token on a CPU in fp32, of one batch of clips of different lengths: upstream's own forward
with LoRA injected (its padding mask, and logits at every position) beside CosyTune's loss, as it is, with selective
recomputation, and with checkpointing. Random weights; with 24 layers it takes 5 GB. Counted in yardsticks/held.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from yardsticks import held, theirs

from cosytune import families
from cosytune.families import Shape
from cosytune.schema import LoraConfig
from cosytune.training import adapters, batches, checkpointing, losses, recomputing
from cosytune.upstream import bridge

FAMILY = families.get("cosyvoice2-0.5b")
GOAL = 0.5
Clips = list[tuple[torch.Tensor, torch.Tensor]]


def main() -> int:
    """Measure, and print Markdown for RESULTS.md."""
    options = _options()
    torch.set_num_threads(options.threads)
    clips = _clips(options.tokens)
    tokens = sum(len(text) + len(speech) for text, speech in clips)
    upstream = _upstream_bytes(_shape(options), clips)
    print(f"`python {' '.join(['tests/bench/saved_bytes.py', *sys.argv[1:]])}`: {len(clips)} clips, {tokens} tokens.\n")
    print("| | bytes per token | of (b) | goal |\n|---|---|---|---|")
    print(f"| (b) upstream's forward, LoRA injected | {upstream / tokens:,.0f} | 1 | |")
    variants: dict[str, Callable[[Any, str], None]] = {
        "CosyTune's loss, everything saved": lambda model, name: None,
        "CosyTune, selective recomputation": recomputing.enable,
        "CosyTune, checkpointing": checkpointing.enable,
    }
    for label, enable in variants.items():
        ours = _our_bytes(_shape(options), clips, enable)
        goal = "" if enable is not recomputing.enable else f"<= {GOAL:g}"
        print(f"| {label} | {ours / tokens:,.0f} | {ours / upstream:.2f} | {goal} |", flush=True)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", choices=["full-random", "random"], default="full-random")
    parser.add_argument("--layers", type=int, help="of the LLM; default: the base's")
    parser.add_argument("--tokens", type=int, nargs="+", default=[80, 90, 100, 110], help="speech tokens of each clip")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def _shape(options: argparse.Namespace) -> Shape:
    shape = FAMILY.shape(options.base)
    return replace(shape, llm=replace(shape.llm, num_hidden_layers=options.layers)) if options.layers else shape


def _clips(lengths: list[int]) -> Clips:
    """Random tokens: (text, speech), with 5 speech tokens for each text token."""
    random = np.random.default_rng(0)
    return [
        (
            torch.from_numpy(random.integers(0, 400, length // 5)),
            torch.from_numpy(random.integers(0, FAMILY.speech_token_size, length)),
        )
        for length in lengths
    ]


def _upstream_bytes(shape: Shape, clips: Clips) -> int:
    torch.manual_seed(0)
    module: Any = theirs.inject(bridge.new_llm(FAMILY, shape), "llm", FAMILY).train()
    texts, speeches = ([clip[side] for clip in clips] for side in (0, 1))
    batch = {
        "text_token": pad_sequence(texts, batch_first=True),
        "text_token_len": torch.tensor([len(text) for text in texts]),
        "speech_token": pad_sequence(speeches, batch_first=True),
        "speech_token_len": torch.tensor([len(speech) for speech in speeches]),
    }
    bridge._module("cosyvoice.llm.llm").random = SimpleNamespace(random=lambda: 0.9)  # not interleaved, as ours
    loss, size = held.measure(lambda: module(batch, torch.device("cpu"))["loss"])
    loss.backward()
    return size


def _our_bytes(shape: Shape, clips: Clips, enable: Callable[[Any, str], None]) -> int:
    torch.manual_seed(0)
    model = adapters.attach(bridge.new_llm(FAMILY, shape), LoraConfig(), FAMILY.lora_targets["llm"], seed=0).train()
    enable(model, "llm")
    batch = batches.llm_batch([batches.plain_sequence(text.numpy(), speech.numpy(), FAMILY) for text, speech in clips])
    loss, size = held.measure(lambda: losses.llm_loss(model.get_base_model(), batch).total)
    loss.backward()
    return size


if __name__ == "__main__":
    sys.exit(main())
