"""Open JTalk reads local/sentences.txt: one 48 kHz mono 16-bit clip and its transcript per line.

    python egs/demo/local/make_audio.py DIRECTORY      # -> mei-01.wav, mei-01.txt, ... ; the same bytes every time

The voice is "Mei" (mei_normal.htsvoice) of the MMDAgent Project Team, Copyright (c) 2009-2013 Nagoya Institute of
Technology, Department of Computer Science, under CC BY 3.0 (https://creativecommons.org/licenses/by/3.0/): name it
when you pass these clips on. The sentences were written for this project (Apache-2.0).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyopenjtalk
import soundfile

from cosytune.progress import track

SENTENCES = Path(__file__).with_name("sentences.txt")


def speak(sentence: str, wav: Path) -> None:
    """`pyopenjtalk.tts` gives float64 samples in the range of int16, at 48 kHz."""
    samples, rate_hz = pyopenjtalk.tts(sentence)
    soundfile.write(wav, np.clip(np.rint(samples), -32768, 32767).astype(np.int16), rate_hz, subtype="PCM_16")


def main() -> None:
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    sentences = SENTENCES.read_text(encoding="utf-8").split("\n")[:-1]
    for number, sentence in enumerate(track(sentences, "speaking", unit="clip"), start=1):
        speak(sentence, directory / f"mei-{number:02d}.wav")
        (directory / f"mei-{number:02d}.txt").write_text(sentence + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
