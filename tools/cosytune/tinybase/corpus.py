"""Sentences and voices -> DIR/{sounds.i16, canonical.i16, utterances.json, corpus.json}: hours of synthetic speech.

Two steps, both by worker processes and the same bytes for any number of them: the script (Open JTalk's analysis of
every sentence, which wants its dictionaries), then the sound (its synthesis, and WORLD), in shards that a stopped run
leaves behind for the next. corpus.json, written last, says that all is there.
"""

from __future__ import annotations

import io
import json
import lzma
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cosytune import files
from cosytune.errors import UserError
from cosytune.parallel import Workers
from cosytune.tinybase import sentences, voices
from cosytune.tinybase.sentences import Reading, Sentence
from cosytune.tinybase.voices import RATE_HZ, Voice

Split = Literal["train", "held_out"]
_SHARD = 64
_LUFS = -23.0
_PEAK = 0.95
_SILENCE_S = (0.10, 0.25)
_QUIET_DBFS = -50.0
"""Below it is silence, as far as the ends of a clip are concerned."""
_FLOOR_SHARE, _FLOOR_DBFS = 0.3, (-72.0, -55.0)
_VERSION = 1
"""Another number whenever the same plan would give other bytes."""
_PLAN, _SCRIPT, _UTTERANCES, _MANIFEST = "plan.json", "script.json.xz", "utterances.json", "corpus.json"
_SOUNDS, _CANONICAL = "sounds.i16", "canonical.i16"


@dataclass(frozen=True)
class CorpusPlan:
    """How much. The speakers of the training, and `strangers` who are heard in held-out sentences alone."""

    speakers: int = 48
    strangers: int = 4
    train: int = 6500
    held_out: int = 240
    seed: int = 1986


@dataclass(frozen=True)
class Line:
    """One line of the script. `labels`: Open JTalk's full-context labels."""

    utt: str
    speaker: str
    split: Split
    kana: str
    labels: list[str]


@dataclass(frozen=True)
class Utterance:
    """One utterance and its place in both files of sounds, in samples. `kana`: as a model is told to say it."""

    utt: str
    speaker: str
    kana: str
    split: Split
    start: int
    samples: int


class Corpus:
    """The corpus in a directory; sounds are mapped into memory."""

    def __init__(self, directory: Path, utterances: list[Utterance]) -> None:
        self.utterances = utterances
        self.speakers = sorted({one.speaker for one in utterances if one.split == "train"})
        self._sounds, self._canonical = (
            np.memmap(directory / name, dtype=np.int16, mode="r") for name in (_SOUNDS, _CANONICAL)
        )

    @classmethod
    def open(cls, directory: Path) -> Corpus:
        """Raises UserError when it was not made to its end."""
        if not (directory / _MANIFEST).is_file():
            raise UserError(f"{directory}: no corpus; make it: python -m cosytune.tinybase make --only corpus")
        return cls(directory, [Utterance(**one) for one in files.read_json(directory / _UTTERANCES)])

    def of(self, split: str) -> list[Utterance]:
        """`train` or `held_out`: sentences that no training utterance has."""
        return [one for one in self.utterances if one.split == split]

    def sound(self, utterance: Utterance) -> NDArray[np.int16]:
        """24 kHz mono, in the speaker's voice."""
        return self._sounds[utterance.start : utterance.start + utterance.samples]

    def canonical(self, utterance: Utterance) -> NDArray[np.int16]:
        """The same words at the same moments in the canonical voice."""
        return self._canonical[utterance.start : utterance.start + utterance.samples]


def make(directory: Path, plan: CorpusPlan, nj: int | Literal["auto"]) -> None:
    """Write the corpus; what a stopped run has finished is kept."""
    directory.mkdir(parents=True, exist_ok=True)
    _claim(directory, plan)
    if (directory / _MANIFEST).is_file():
        return
    with Workers(nj) as workers:
        script = _script(directory, plan, workers)
        shards = directory / "shards"
        shards.mkdir(exist_ok=True)
        tasks = [
            _Task(script[start : start + _SHARD], shards / f"{start:06d}.npz", plan)
            for start in range(0, len(script), _SHARD)
        ]
        missing = [task for task in tasks if not task.path.is_file()]
        for _ in workers.map(_speak_shard, missing, "speaking", "shard"):
            pass
    utterances = _join(directory, tasks)
    seconds = {
        split: round(sum(one.samples for one in utterances if one.split == split) / RATE_HZ, 1)
        for split in ("train", "held_out")
    }
    files.write_json(directory / _MANIFEST, {"version": _VERSION, "plan": asdict(plan), "seconds": seconds})
    for task in tasks:
        task.path.unlink()


def _claim(directory: Path, plan: CorpusPlan) -> None:
    """plan.json: what is made here. Raises UserError if that is another corpus, finished or not."""
    path, ours = directory / _PLAN, {"version": _VERSION, **asdict(plan)}
    if path.is_file() and files.read_json(path) != ours:
        raise UserError(f"{path}: another corpus was begun here; name another directory, or delete {directory}")
    files.write_json(path, ours)


def _script(directory: Path, plan: CorpusPlan, workers: Workers) -> list[Line]:
    """script.json.xz: every sentence, analysed, and who says it."""
    path = directory / _SCRIPT
    if not path.is_file():
        lines = _cast(plan, workers)
        text = json.dumps([asdict(line) for line in lines], ensure_ascii=False)
        files.write_bytes(path, lzma.compress(text.encode("utf-8"), preset=6))
    return [Line(**one) for one in json.loads(lzma.decompress(path.read_bytes()))]


def _cast(plan: CorpusPlan, workers: Workers) -> list[Line]:
    """Sentences go round among the speakers; every fifth held-out one is a stranger's."""
    pool = sentences.pool(plan.train + plan.held_out, plan.seed)
    parts = [pool[start : start + _SHARD] for start in range(0, len(pool), _SHARD)]
    read = [one for part in workers.map(_read, parts, "reading", "shard") for one in part]
    choice = sentences.choose(pool, [one.kana for one in read], plan.train, plan.held_out, plan.seed)
    speakers = [f"s{number + 1:02d}" for number in range(plan.speakers)]
    strangers = [f"x{number + 1:02d}" for number in range(plan.strangers)]
    lines = []
    for n, place in enumerate(choice.train):
        who = speakers[n % len(speakers)]
        lines.append(Line(f"{who}-{n:05d}", who, "train", read[place].kana, read[place].labels))
    for n, place in enumerate(choice.held_out):
        is_strange = strangers and n % 5 == 4
        who = strangers[n // 5 % len(strangers)] if is_strange else speakers[(n - n // 5) % len(speakers)]
        lines.append(Line(f"{who}-h{n:04d}", who, "held_out", read[place].kana, read[place].labels))
    return lines


def _read(part: Sequence[Sentence]) -> list[Reading]:
    return [sentences.read(one.text) for one in part]


@dataclass(frozen=True)
class _Task:
    lines: list[Line]
    path: Path
    plan: CorpusPlan


def _speak_shard(task: _Task) -> None:
    import pyopenjtalk
    import soxr

    everybody = _voices(task.plan)
    own, canonical, counts = [], [], []
    for line in task.lines:
        voice = everybody[line.speaker]
        spoken, rate_hz = pyopenjtalk.synthesize(line.labels, voice.speed, 0.0)
        sound = np.ascontiguousarray(soxr.resample(spoken / 32768, rate_hz, RATE_HZ))
        parts = voices.take_apart(sound)
        rng = np.random.default_rng(_seed(line.utt))
        first, last = _ends(sound, rng)
        pair = [voices.speak(parts, one, len(sound))[first:last] for one in (voice, voices.CANONICAL)]
        own.append(_samples(_with_floor(_loud(pair[0]), rng)))
        canonical.append(_samples(_loud(pair[1])))
        counts.append(last - first)
    stream = io.BytesIO()
    np.savez(stream, own=np.concatenate(own), canonical=np.concatenate(canonical), counts=np.array(counts))
    files.write_bytes(task.path, stream.getvalue())


def _voices(plan: CorpusPlan) -> dict[str, Voice]:
    return {voice.name: voice for voice in voices.cast(plan.speakers, plan.strangers)}


def _ends(sound: NDArray[np.float64], rng: np.random.Generator) -> tuple[int, int]:
    """Where speech begins and ends, and a little silence around it."""
    loud = np.flatnonzero(np.abs(sound) > 10 ** (_QUIET_DBFS / 20))
    before, after = (round(RATE_HZ * value) for value in rng.uniform(*_SILENCE_S, size=2))
    if not len(loud):
        return 0, len(sound)
    return max(0, int(loud[0]) - before), min(len(sound), int(loud[-1]) + after)


def _loud(sound: NDArray[np.float64]) -> NDArray[np.float64]:
    from cosytune.audio import loudness

    measured = loudness.measure_lufs(sound.astype(np.float32), RATE_HZ)
    gain = 10 ** ((_LUFS - measured) / 20) if measured is not None else 1.0
    return sound * min(gain, _PEAK / max(float(np.abs(sound).max()), 1e-9))


def _with_floor(sound: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Faint pink noise under some of the utterances, as rooms and microphones have it."""
    if rng.random() >= _FLOOR_SHARE:
        return sound
    spectrum = np.fft.rfft(rng.standard_normal(len(sound)))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    noise = np.fft.irfft(spectrum, len(sound))
    level = 10 ** (float(rng.uniform(*_FLOOR_DBFS)) / 20)
    return np.asarray(sound + noise * (level / float(noise.std())))


def _samples(sound: NDArray[np.float64]) -> NDArray[np.int16]:
    return np.clip(np.rint(sound * 32768), -32768, 32767).astype(np.int16)


def _seed(utt: str) -> int:
    import hashlib

    return int.from_bytes(hashlib.sha256(utt.encode()).digest()[:8], "big")


def _join(directory: Path, tasks: Sequence[_Task]) -> list[Utterance]:
    """One file of sounds instead of the shards, and the list of utterances."""
    for name, key in ((_SOUNDS, "own"), (_CANONICAL, "canonical")):
        with files.atomic_path(directory / name) as temporary, temporary.open("wb") as stream:
            for task in tasks:
                stream.write(np.load(task.path)[key].tobytes())
    utterances: list[Utterance] = []
    start = 0
    for task in tasks:
        for line, count in zip(task.lines, np.load(task.path)["counts"].tolist(), strict=True):
            utterances.append(Utterance(line.utt, line.speaker, line.kana, line.split, start, count))
            start += count
    files.write_json(directory / _UTTERANCES, [asdict(one) for one in utterances])
    return utterances
