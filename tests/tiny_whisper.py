"""Seeds -> a Whisper and a wav2vec 2.0 directory of a few MB with random weights, in the published models' formats.

They run through the code that runs the real ones. What they hear is nonsense, but made of whole Japanese characters or
English words, different for different sounds, and the same every time.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from cosytune.audio.span import Span
from cosytune.schema import TranscribeConfig
from cosytune.transcribe import Job

RATE_HZ = 16000
WORDS = ["あ", "い", "う", "お", "か", "こ", "は", "日", "本", "。", " the", " you", " time", "!"]
"""What the tiny Whisper can say: one token each of Whisper's own vocabulary."""
LONGEST = 16
"""Tokens of a text, the four of the prompt among them."""
CHARACTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz'", *"あいうえおかこはのにちんわ日本今"]
"""The vocabulary of the tiny wav2vec 2.0; as in the published ones `|` is the space and <pad> the blank."""


def settings(parent: Path, **changes: Any) -> TranscribeConfig:
    """`transcribe` with both tiny models, which are made in `parent` unless they are there (any process may ask)."""
    with FileLock(parent / "tiny-whisper.lock"):
        for name, make in (("faster-whisper-tiniest", make_whisper), ("wav2vec2-tiniest", make_aligner)):
            if not (parent / name).exists():
                making = parent / f"{name}.making"
                shutil.rmtree(making, ignore_errors=True)
                make(making).rename(parent / name)
    model, align_model = (str(parent / name) for name in ("faster-whisper-tiniest", "wav2vec2-tiniest"))
    given = {"model": model, "align_model": align_model, "batch_size": 4, "compute_type": "float32", **changes}
    return TranscribeConfig(**given)


def make_whisper(directory: Path, seed: int = 0) -> Path:
    """A faster-whisper directory (CTranslate2): 80 mel bands, 12 tokens at most, Whisper's 99 languages."""
    import torch
    from ctranslate2.converters.transformers import WhisperLoader
    from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperTokenizerFast

    torch.manual_seed(seed)
    directory.mkdir(parents=True)
    tokenizer = _tokenizer()
    tokenizer.save(str(directory / "tokenizer.json"))
    ids = {word: tokenizer.token_to_id(word) for word in ("<|endoftext|>", "<|startoftranscript|>", "<|ja|>", "<|en|>")}
    config = WhisperConfig(
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, init_std=0.5,
        eos_token_id=ids["<|endoftext|>"], decoder_start_token_id=ids["<|startoftranscript|>"],
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)
    model.generation_config.update(suppress_tokens=[], begin_suppress_tokens=[ids["<|endoftext|>"]])
    languages = [tokenizer.token_to_id(f"<|{code}|>") for code in _language_codes()]
    model.generation_config.lang_to_id = {f"<|{c}|>": i for c, i in zip(_language_codes(), languages, strict=True)}
    spoken = [tokenizer.encode(word, add_special_tokens=False).ids[0] for word in WORDS]
    loud = [*spoken, *ids.values()]
    with torch.no_grad():
        weight = model.model.decoder.embed_tokens.weight
        quiet = torch.ones(len(weight), dtype=torch.bool)
        quiet[loud] = False
        weight[quiet] = 0.0  # logit 0, and something among the others is always above: nothing else is ever said
        model.model.decoder.layers[0].encoder_attn.out_proj.weight *= 8.0  # what is said should depend on the sound
        positions = model.model.decoder.embed_positions.weight
        positions[LONGEST:] = 100.0 * weight[ids["<|endoftext|>"]]  # drowns everything else: the text ends here
        # CTranslate2's own converter passes `dtype`, which transformers knows only from 4.56 on
        spec = WhisperLoader()(model, WhisperTokenizerFast(tokenizer_object=tokenizer))
    spec.validate()
    spec.optimize()
    spec.save(str(directory))
    (directory / "preprocessor_config.json").write_text('{"feature_size": 80}', encoding="utf-8")
    return directory


def make_aligner(directory: Path, seed: int = 0) -> Path:
    """A transformers directory of a Wav2Vec2ForCTC over CHARACTERS: 50 frames/s of 16 kHz sound."""
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    torch.manual_seed(seed)
    directory.mkdir(parents=True)
    config = Wav2Vec2Config(
        vocab_size=len(CHARACTERS), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        conv_dim=(16,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, feat_extract_norm="layer",
        do_stable_layer_norm=True, initializer_range=0.5, pad_token_id=0,
    )  # fmt: skip
    Wav2Vec2ForCTC(config).save_pretrained(directory)
    _write(directory / "vocab.json", {character: index for index, character in enumerate(CHARACTERS)})
    _write(directory / "tokenizer_config.json", {"tokenizer_class": "Wav2Vec2CTCTokenizer", "pad_token": "<pad>"})
    _write(directory / "preprocessor_config.json", {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 1, "sampling_rate": 16000,
        "padding_value": 0.0, "do_normalize": True, "return_attention_mask": True,
    })  # fmt: skip
    return directory


def _tokenizer() -> Any:
    """Whisper's multilingual tokenizer, out of openai-whisper's own vocabulary, as the Hub's tokenizer.json has it."""
    import whisper.tokenizer
    from transformers.convert_slow_tokenizer import TikTokenConverter

    encoding = whisper.tokenizer.get_encoding("multilingual")
    vocabulary = Path(whisper.tokenizer.__file__).parent / "assets" / "multilingual.tiktoken"
    special = sorted(encoding._special_tokens, key=encoding._special_tokens.__getitem__)
    return TikTokenConverter(str(vocabulary), encoding._pat_str, additional_special_tokens=special).converted()


def _language_codes() -> list[str]:
    from whisper.tokenizer import LANGUAGES

    return list(LANGUAGES)[:99]


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def sound(seed: int, seconds: float) -> np.ndarray:
    """Noise that swells, float32 [n]; another one for each seed."""
    draw = np.random.default_rng(seed)
    samples = draw.standard_normal(round(seconds * RATE_HZ))
    swelling = np.sin(np.arange(len(samples)) * (seed + 1) / 3000)
    return (0.1 * samples * swelling).astype(np.float32)


def tone(hz: float, seconds: float = 3.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)).astype(np.float32)


def hiss(seed: int, seconds: float = 3.0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE_HZ))).astype(np.float32)


def job(name: str, samples: np.ndarray, chunks: int = 1) -> Job:
    """A recording in so many chunks of equal length."""
    length_s = len(samples) / RATE_HZ / max(1, chunks)
    spans = tuple(Span(index * length_s, (index + 1) * length_s) for index in range(chunks))
    return Job(name, f"digest of {name}", spans, lambda span: cut(samples, span))


def cut(samples: np.ndarray, span: Span) -> np.ndarray:
    return samples[round(span.start_s * RATE_HZ) : round(span.end_s * RATE_HZ)]


def several() -> list[Job]:
    """Five recordings of 1, 2, 3, 1 and 2 chunks: nine."""
    return [job(f"audio/{n}.wav", sound(n, 2 * chunks), chunks) for n, chunks in enumerate((1, 2, 3, 1, 2))]
