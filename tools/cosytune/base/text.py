"""Our own prose (`data/*.txt`) -> a byte-level BPE in the files of Qwen2's tokenizer, which AutoTokenizer loads.

It covers every text, as bytes at worst. Common Japanese and English words are single tokens, so that ordinary speech
has more than 3 speech tokens per text token: only such clips are ever interleaved for streaming.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from cosytune import files

_CORPUS = Path(__file__).parent / "data"
_MAX_TOKENS = 2000
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""As the real tokenizer has them, right behind the vocabulary; upstream adds its own marks behind these."""


def corpus() -> list[str]:
    """The paragraphs that the tokenizer is trained on."""
    return [line for path in sorted(_CORPUS.glob("*.txt")) for line in path.read_text(encoding="utf-8").splitlines()]


def sentences() -> list[str]:
    """The corpus, sentence by sentence."""
    return [sentence for line in corpus() for sentence in re.split(r"(?<=[.。?])\s*", line) if sentence]


def write_tokenizer(directory: Path) -> dict[str, int]:
    """Write vocab.json, merges.txt and tokenizer_config.json; return the ids of the special tokens."""
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer

    directory.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(ByteLevel.alphabet())
    tokenizer = _bytes_alone(directory, alphabet).backend_tokenizer
    tokenizer.model = BPE()
    trainer = BpeTrainer(
        vocab_size=_MAX_TOKENS,
        min_frequency=2,  # what occurs once is no word to learn
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.model.save(str(directory))
    first = tokenizer.get_vocab_size(with_added_tokens=False)
    ids = {token: first + offset for offset, token in enumerate(SPECIAL)}
    files.write_json(directory / "tokenizer_config.json", settings(ids))
    return ids


def _bytes_alone(directory: Path, alphabet: list[str]) -> Any:
    """A Qwen2 tokenizer that knows the 256 bytes and nothing else: it lends its normaliser and its word boundaries."""
    from transformers import Qwen2TokenizerFast

    vocabulary, merges = directory / "vocab.json", directory / "merges.txt"
    files.write_json(vocabulary, {byte: number for number, byte in enumerate(alphabet)})
    files.write_text(merges, "#version: 0.2\n")
    return Qwen2TokenizerFast(str(vocabulary), str(merges), unk_token=None, eos_token=None, pad_token=None)


def settings(ids: dict[str, int]) -> dict[str, Any]:
    """tokenizer_config.json of a tokenizer of ours: the special tokens by their ids."""
    added = {
        str(number): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for token, number in ids.items()
    }
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": list(SPECIAL[1:]),
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": SPECIAL[0],
        "errors": "replace",
        "model_max_length": 32768,
        "pad_token": SPECIAL[0],
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
