"""A model directory -> upstream's own modules, tokenizer, mel spectrogram and inference class.

The only module that imports `cosyvoice` and `matcha`. Modules are built from the family's numbers, no YAML is executed
(HyperPyYAML runs what it reads) but for `load_cosyvoice`, which accepts known text only. Building leaves the caller's
random state as it was, although upstream seeds everything with 0 on the way.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import logging
import pickle
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cosytune.base import hyperyaml, manifest
from cosytune.errors import UserError
from cosytune.families import Family, Name, New, Shape
from cosytune.upstream import tree
from cosytune.upstream.masks import Masks

_MATCHA = Path("third_party") / "Matcha-TTS"
_PACKAGES = ("cosyvoice", "matcha")
TEXT_MODEL = "llm.model."
"""Where Qwen2ForCausalLM's keys begin in llm.pt."""
_BOOKKEEPING = ("epoch", "step")
"""Keys that upstream's trainer leaves in its weight files, and its inference class trips over."""


def build_llm(model_dir: Path, family: Family) -> nn.Module:
    """Upstream's Qwen2LM with the directory's weights, on the CPU, fp32, in eval mode.

    Raises UserError when the weights are missing, unreadable or of another shape.
    """
    path = model_dir / family.llm
    state = _read_weights(path)
    with keep_random_state():
        return _filled(lambda: new_llm(family, manifest.shape(model_dir, family), state), state, path)


def build_flow(model_dir: Path, family: Family) -> nn.Module:
    """Upstream's CausalMaskedDiffWithXvec with the directory's weights; else as `build_llm`."""
    path = model_dir / family.flow
    state = _read_weights(path)
    with keep_random_state():
        return _filled(lambda: new_flow(family, manifest.shape(model_dir, family)), state, path)


def build_hift(model_dir: Path, family: Family) -> nn.Module:
    """Upstream's HiFTGenerator (mel [1, 80, frames] -> sound at 24 kHz); else as `build_llm`."""
    path = model_dir / family.vocoder
    # its trainer saved generator and discriminators side by side; upstream's loader drops the prefix as well
    state = {key.removeprefix("generator."): value for key, value in _read_weights(path).items()}
    with keep_random_state():
        return _filled(lambda: new_hift(family, manifest.shape(model_dir, family)), state, path)


def new_llm(family: Family, shape: Shape, state: Mapping[str, torch.Tensor] | None = None) -> nn.Module:
    """Qwen2LM with fresh random weights, drawn from torch's global generator.

    With the `state` that it will be given the text model takes its weights from there at once: drawing half a billion
    numbers to throw them away takes seconds.
    """
    with _quiet():
        from transformers import Qwen2Config, Qwen2ForCausalLM

    # Qwen2Encoder's constructor can only read a directory; the numbers are known, so the disk is not needed
    encoder_class = _attribute("cosyvoice.llm.llm.Qwen2Encoder")
    encoder = encoder_class.__new__(encoder_class)
    nn.Module.__init__(encoder)
    config = Qwen2Config(**vars(shape.llm), **family.qwen)
    if state is None:
        encoder.model = Qwen2ForCausalLM(config)
    else:
        inner = {key.removeprefix(TEXT_MODEL): value for key, value in state.items() if key.startswith(TEXT_MODEL)}
        encoder.model = Qwen2ForCausalLM.from_pretrained(
            None, config=config, state_dict=inner, torch_dtype=torch.float32
        )
    spec = family.document(family, shape)["llm"]
    llm: nn.Module = _build(replace(spec, arguments={**spec.arguments, "llm": encoder}))
    return llm


def new_flow(family: Family, shape: Shape) -> nn.Module:
    """CausalMaskedDiffWithXvec with fresh random weights; upstream seeds with 0 near the end of it."""
    flow: nn.Module = _build(family.document(family, shape)["flow"])
    return flow


def new_hift(family: Family, shape: Shape) -> nn.Module:
    """HiFTGenerator with fresh random weights."""
    hift: nn.Module = _build(family.document(family, shape)["hift"])
    return hift


def load_tokenizer(model_dir: Path, family: Family) -> Any:
    """Upstream's QwenTokenizer: `.encode(text) -> list[int]`, `.decode(list[int]) -> text`."""
    directory = model_dir / family.text_tokenizer
    if not (directory / "vocab.json").is_file():  # else the name would be taken for a repository to download
        raise UserError(f"{directory / 'vocab.json'}: missing; run stage -1 (setup)")
    with _quiet():
        return _attribute("cosyvoice.tokenizer.tokenizer.QwenTokenizer")(str(directory), skip_special_tokens=True)


def mel_extractor(family: Family) -> Callable[[torch.Tensor], torch.Tensor]:
    """float32 [n] at 24 kHz, -1 to 1 -> float32 [frames, 80], 50 frames/s, log-amplitude, as upstream trains on.

    The import behind it takes seconds and is done here, before a loop that shows its rate.
    """
    compute = _attribute("matcha.utils.audio.mel_spectrogram")

    def extract(samples: torch.Tensor) -> torch.Tensor:
        mel: torch.Tensor = compute(samples.unsqueeze(0), **vars(family.mel))
        return mel.squeeze(0).transpose(0, 1).contiguous()

    return extract


def mel_spectrogram(samples: torch.Tensor, family: Family) -> torch.Tensor:
    """`mel_extractor` for one clip alone."""
    return mel_extractor(family)(samples)


def load_cosyvoice(model_dir: Path, family: Family) -> Any:
    """Upstream's CosyVoice2 over the directory, on the GPU when there is one.

    Raises UserError when the YAML is not known text: reading it runs what it says.
    """
    hyperyaml.require_known(model_dir, family)
    cli = _module("cosyvoice.cli.cosyvoice")
    cli.tqdm = lambda items: items  # one bar a sentence, in every process that speaks
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"cosyvoice\.")  # torch.cuda.amp, every call
    with _quiet(), keep_random_state():
        return cli.CosyVoice2(str(model_dir))


@contextlib.contextmanager
def shared_masks(heads: int, is_even: bool) -> Iterator[Masks]:
    """Let upstream's flow make each of its masks once, without waiting for the GPU, until the block ends.

    For one forward pass of the encoder and of the estimator with `heads`; is_even: all clips have one length. The mask
    that the estimator gets has to be bool. One pass at a time in a process.
    """
    masks = Masks(heads, is_even)
    encoder, estimator = _module("cosyvoice.transformer.upsample_encoder"), _module("cosyvoice.flow.decoder")
    with contextlib.ExitStack() as stack:
        for module, name, function in (
            (encoder, "make_pad_mask", masks.padding),
            (encoder, "add_optional_chunk_mask", masks.chunks),
            (estimator, "add_optional_chunk_mask", masks.attended),
            (estimator, "mask_to_bias", masks.bias),
        ):
            stack.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, function)
        yield masks


@contextlib.contextmanager
def keep_random_state() -> Iterator[None]:
    """Put Python's, numpy's and torch's random state back when the block ends."""
    import numpy

    python_state, numpy_state = random.getstate(), numpy.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(python_state)
            numpy.random.set_state(numpy_state)


def _filled(build: Callable[[], nn.Module], state: Mapping[str, torch.Tensor], path: Path) -> nn.Module:
    """The module with the weights of the file `path`, every one of them and no other."""
    try:
        module = build()
        module.load_state_dict(state, strict=True)
    except RuntimeError as failure:  # below a title it lists the missing, the unexpected and the misshapen
        details = str(failure).splitlines()[1].strip()[:300]
        raise UserError(
            f"{path}: not the weights of this model: {details}; restore the file or run stage -1 again"
        ) from None
    return module.eval()


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise UserError(f"{path}: missing; run stage -1 (setup), or name a model directory with model_dir=PATH")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as failure:  # each for another kind of damage
        reason = str(failure).splitlines()[0][:200]
        raise UserError(f"{path}: not readable as weights ({reason}); restore the file or run stage -1") from None
    return {key: value for key, value in state.items() if key not in _BOOKKEEPING}


def _build(value: Any) -> Any:
    """The object that a spec describes; anything else as it is."""
    if isinstance(value, New):
        arguments = {key: _build(inner) for key, inner in value.arguments.items()}
        constructor = _attribute(value.target)
        with _quiet():
            return constructor(**arguments)
    if isinstance(value, Name):
        return functools.partial(
            _attribute(value.target), **{key: _build(inner) for key, inner in value.arguments.items()}
        )
    return value


def _attribute(target: str) -> Any:
    """A class or function by its dotted name."""
    module, _, name = target.rpartition(".")
    return getattr(_module(module), name)


@functools.cache
def _module(name: str) -> Any:
    """One of upstream's modules, from the verified tree and nowhere else."""
    root = tree.ready(None)
    for path in (root, root / _MATCHA):
        if str(path) not in sys.path:
            sys.path.insert(0, str(path))
    with _quiet():
        package = importlib.import_module(name.split(".")[0])
        if package.__name__ in _PACKAGES and not Path(package.__file__ or "").is_relative_to(root):
            raise UserError(
                f"{package.__file__}: another package of the name {package.__name__} hides upstream's ({root}); "
                "uninstall it, or take it off PYTHONPATH"
            )
        return importlib.import_module(name)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep upstream from setting the root logger to DEBUG, and from printing which optional packages it lacks."""
    handler = logging.NullHandler()  # with a handler in place `logging.basicConfig` does nothing
    logging.getLogger().addHandler(handler)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # diffusers, of the LoRA layers that upstream imports
            warnings.filterwarnings("ignore", message="pkg_resources is deprecated")  # pyworld
            yield
    finally:
        logging.getLogger().removeHandler(handler)
