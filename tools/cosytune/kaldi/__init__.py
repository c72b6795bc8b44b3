"""A Kaldi data directory -> checked utterances, and back: `wav.scp text utt2spk spk2utt utt2dur [utt2recording]`.

    python -m cosytune.kaldi egs/demo/data/all            # prints every problem; exit status 1 if there is one
    python -m cosytune.kaldi egs/demo/data/all --repair   # first mends what needs no guess, after a backup

Every line is `<id> <value>`, split at the first space only (values may hold spaces), UTF-8, sorted by code point
(LC_ALL=C). Paths in wav.scp are relative to the data directory, so that a recipe can be moved or mounted elsewhere.
"""

from cosytune.kaldi.directory import read, write
from cosytune.kaldi.model import FILES, RECORDINGS, DataDir, Utterance
from cosytune.kaldi.tables import Line, Table, read_table, write_table
from cosytune.kaldi.validation import validate

__all__ = [
    "FILES",
    "RECORDINGS",
    "DataDir",
    "Line",
    "Table",
    "Utterance",
    "read",
    "read_table",
    "validate",
    "write",
    "write_table",
]
