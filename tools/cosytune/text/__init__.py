"""Text that people wrote -> text that the models train on and speak: one rule for the whole program."""

from cosytune.text.clean import Cleaned, clean
from cosytune.text.length import spoken_length
from cosytune.text.normal import NORMALIZER, Script, is_speakable, normalize
from cosytune.text.read import read_encoded, read_text
from cosytune.text.sentences import split_sentences

__all__ = [
    "NORMALIZER",
    "Cleaned",
    "Script",
    "clean",
    "is_speakable",
    "normalize",
    "read_encoded",
    "read_text",
    "split_sentences",
    "spoken_length",
]
