"""Text that people wrote -> text that the models train on and speak: one rule for the whole program."""

from cosytune.text.normal import NORMALIZER, normalize
from cosytune.text.read import read_text
from cosytune.text.sentences import split_sentences

__all__ = ["NORMALIZER", "normalize", "read_text", "split_sentences"]
