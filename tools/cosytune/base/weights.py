"""A family's sizes and a seed -> llm.pt, flow.pt, hift.pt and the text model's own files, under upstream's key names.

The weights are random, scaled where a random model could not learn or would not stop:
- the LLM's output layer is multiplied by 4: frozen at its small initial size it bounds the loss from below;
- the row that says end of speech is biased so that a sentence ends after about 75 tokens;
- the flow's last layer starts at the typical mel spectrum of speech, for the same reason.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cosytune import files
from cosytune.base import stopping, text
from cosytune.families import Family, Shape
from cosytune.upstream import bridge

_DECODER_GAIN = 4.0
_STOP_GAIN = 0.25
"""Of the end-of-speech row, on top: its probability then hardly depends on where the sequence is, and never nears 1
(upstream gives up after 100 draws that may not stop)."""
_MEL_FROM, _MEL_TO = -4.0, -6.5
"""Log-amplitude of the lowest and the highest mel bin of speech at -23 LUFS, roughly a straight line between."""


def write(model_dir: Path, family: Family, shape: Shape, special: dict[str, int], seed: int) -> None:
    """Write all weights of a model of that shape. The text tokenizer must be there already."""
    torch.manual_seed(seed)
    llm = bridge.new_llm(family, shape).eval()
    _scale_decoder(llm, family)
    tokenizer = bridge.load_tokenizer(model_dir, family)
    sentences = [tokenizer.encode(sentence) for sentence in text.sentences()]
    count, steps_each = (6, 100) if shape == family.random else (2, 40)  # a step of the real size takes 0.3 s
    stopping.calibrate(llm, sentences, family.speech_token_size, count, steps_each)
    files.write_torch(model_dir / family.llm, llm.state_dict())
    write_text_model(model_dir / family.text_tokenizer, llm.state_dict(), family, shape, special)
    del llm

    torch.manual_seed(seed)
    flow: Any = bridge.new_flow(family, shape)
    with torch.no_grad():
        flow.decoder.estimator.final_proj.bias.copy_(torch.linspace(_MEL_FROM, _MEL_TO, family.mel.num_mels))
    files.write_torch(model_dir / family.flow, flow.state_dict())
    del flow

    torch.manual_seed(seed)
    hift = bridge.new_hift(family, shape)
    files.write_torch(
        model_dir / family.vocoder, {f"generator.{key}": value for key, value in hift.state_dict().items()}
    )


def _scale_decoder(llm: Any, family: Family) -> None:
    with torch.no_grad():
        llm.llm_decoder.weight.mul_(_DECODER_GAIN)
        llm.llm_decoder.weight[family.speech_token_size].mul_(_STOP_GAIN)


def write_text_model(
    directory: Path, state: Mapping[str, torch.Tensor], family: Family, shape: Shape, special: Mapping[str, int]
) -> None:
    """config.json, generation_config.json and model.safetensors, as Qwen2ForCausalLM.from_pretrained reads them.

    `state`: of the LLM that upstream's Qwen2LM is, which has the text model in it.
    """
    from safetensors.torch import save_file

    ids = {"bos_token_id": special["<|endoftext|>"], "eos_token_id": special["<|im_end|>"]}
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "torch_dtype": "bfloat16",
        **family.qwen,
        **vars(shape.llm),
        **ids,
    }
    files.write_text(directory / "config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")
    files.write_json(directory / "generation_config.json", {**ids, "do_sample": False, "max_new_tokens": 2048})
    inner = {
        key.removeprefix(bridge.TEXT_MODEL): value.to(torch.bfloat16).contiguous()
        for key, value in state.items()
        if key.startswith(bridge.TEXT_MODEL) and key != f"{bridge.TEXT_MODEL}lm_head.weight"  # tied to the embedding
    }
    with files.atomic_path(directory / "model.safetensors") as temporary:
        save_file(inner, temporary, metadata={"format": "pt"})
