"""python tests/bench/compare_extraction.py [--clips N] [--runs N] [--model DIR]: stages 1, 2 beside upstream's tools.

N clips (default 60) of real speech, 24 kHz; the two ONNX models of the full-random base (DIR, or made here: 10 s).
Every run is a process of its own, imports and the loading of the model included; interleaved, the median counts.
Upstream's package comes without its tools/, so this file does what they do at 6e01309, in its own words: torchaudio's
load, a new Resample for each clip, mel or filter banks, a session with one thread; 8 clips at a time (--num_thread 8)
and, for the tokens, also one at a time. With a GPU all sessions run there. "Without imports": less the time that a
process takes to import torch, torchaudio, onnxruntime and s3tokenizer, once for each process.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import soundfile
import soxr
from compare_prepare import RATE_HZ, sentences

from cosytune import families, files, kaldi
from cosytune.base import full, manifest
from cosytune.kaldi import Utterance

FAMILY = families.get("cosyvoice2-0.5b")
CLIP_RATE_HZ = 24000
LIBRARIES = "import torch, torchaudio.compliance.kaldi, onnxruntime, s3tokenizer"
UPSTREAM = """
import sys
from concurrent.futures import ThreadPoolExecutor
import numpy, onnxruntime, torch, torchaudio, torchaudio.compliance.kaldi as kaldi
kind, model, listing, out, threads = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
options.intra_op_num_threads = 1
provider = "CUDAExecutionProvider" if torch.cuda.is_available() else "CPUExecutionProvider"
session = onnxruntime.InferenceSession(model, sess_options=options, providers=[provider])
names = [node.name for node in session.get_inputs()]
if kind == "tokens":
    import whisper
def job(path):
    audio, rate = torchaudio.load(path)
    if rate != 16000:
        audio = torchaudio.transforms.Resample(orig_freq=rate, new_freq=16000)(audio)
    if kind == "tokens":
        mel = whisper.log_mel_spectrogram(audio, n_mels=128)
        feeds = {names[0]: mel.numpy(), names[1]: numpy.array([mel.shape[2]], dtype=numpy.int32)}
    else:
        banks = kaldi.fbank(audio, num_mel_bins=80, dither=0, sample_frequency=16000)
        feeds = {names[0]: (banks - banks.mean(dim=0, keepdim=True)).unsqueeze(0).numpy()}
    return session.run(None, feeds)[0].flatten().tolist()
lines = [line.split(" ", 1) for line in open(listing, encoding="utf-8").read().splitlines()]
if threads == "1":
    values = [job(path) for _, path in lines]
else:
    with ThreadPoolExecutor(int(threads)) as pool:
        values = list(pool.map(job, [path for _, path in lines]))
torch.save({utt: value for (utt, _), value in zip(lines, values)}, out)
"""


class Bench:
    """One recipe in a temporary directory, ready for stage 1."""

    def __init__(self, place: Path, model: Path, clips: int) -> None:
        self.recipe, self.model = place / "bench", model
        self.data = self.recipe / "data" / "all"
        (self.recipe / "audio").mkdir(parents=True)
        (self.data / "wav").mkdir(parents=True)
        (self.recipe / "conf.yaml").write_text(f"base: full-random\nmodel_dir: {model}\nlanguage: en\n")
        self.voices = [soxr.resample(voice, RATE_HZ, CLIP_RATE_HZ) for voice in sentences()]
        self.utterances: list[Utterance] = []
        for _ in range(clips):
            self.add()
        self.write()
        command = [sys.executable, "-m", "cosytune.config", self.recipe]
        self.config = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def add(self) -> None:
        """One more clip; each has a loudness, and so a content, of its own."""
        number = len(self.utterances)
        samples = self.voices[number % len(self.voices)] * (0.98 ** (number // len(self.voices)))
        path = self.data / "wav" / f"clip-{number:04d}.wav"
        soundfile.write(path, samples, CLIP_RATE_HZ, subtype="PCM_16")
        self.utterances.append(Utterance(path.stem, "a", path, "yes", len(samples) / CLIP_RATE_HZ))

    def write(self) -> None:
        kaldi.write(self.data, self.utterances)
        (self.recipe / "listing").write_text("".join(f"{one.utt} {one.wav}\n" for one in self.utterances))

    def stage(self, name: str) -> str:
        return run([sys.executable, "-m", f"cosytune.stages.{name}", self.config])

    def forget(self, *what: str) -> None:
        for name in what:
            shutil.rmtree(self.recipe / "data" / name, ignore_errors=True)

    def upstream(self, kind: str, threads: int) -> str:
        model = self.model / (FAMILY.speech_tokenizer if kind == "tokens" else FAMILY.speaker_encoder)
        out = self.recipe / f"{kind}.pt"
        return run([sys.executable, "-c", UPSTREAM, kind, model, self.recipe / "listing", out, str(threads)])


def main() -> int:
    """Print Markdown tables: seconds, how often faster, how many values are equal, what the cache saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        model = arguments.model or make_models(Path(name) / "model")
        bench = Bench(Path(name), model.resolve(), arguments.clips)
        minutes = sum(one.duration_s for one in bench.utterances) / 60
        print(f"{arguments.clips} clips, {minutes:.1f} min, {psutil.cpu_count()} CPU cores, {arguments.runs} runs\n")
        full_s, imports_s = compare(bench, arguments.runs)
        count_equal(bench)
        measure_cache(bench, arguments.runs, full_s, imports_s)
    return 0


def compare(bench: Bench, runs: int) -> tuple[float, float]:
    """-> seconds of both stages from nothing, and of the imports of one process."""
    said: dict[str, str] = {}

    def ours(stage: str) -> Callable[[], None]:
        def start() -> None:
            said[stage] = bench.stage(stage)

        return start

    ways: dict[str, Callable[[], object]] = {
        "imports alone": lambda: run([sys.executable, "-c", LIBRARIES]),
        "upstream, embeddings, 8 clips at a time": lambda: bench.upstream("embeddings", 8),
        "stage 1": ours("embed"),
        "upstream, tokens, one clip at a time": lambda: bench.upstream("tokens", 1),
        "upstream, tokens, 8 clips at a time": lambda: bench.upstream("tokens", 8),
        "stage 2": ours("tokenize"),
    }
    taken = interleaved(ways, runs, before=lambda: bench.forget("features", "done"))
    imports_s = taken["imports alone"]
    print("| | s | / ours | / ours, without imports |\n|---|---|---|---|")
    for way, seconds in taken.items():
        beside = taken["stage 1" if "embeddings" in way else "stage 2"]
        ratios = [seconds / beside, (seconds - imports_s) / (beside - imports_s)]
        shown = " | ".join(f"{ratio:.2f}" for ratio in ratios) if way.startswith("upstream") else " | "
        print(f"| {way} | {seconds:.1f} | {shown} |")
    print("\n" + "".join(line + "\n" for text in said.values() for line in text.splitlines() if ": " in line))
    return taken["stage 1"] + taken["stage 2"], imports_s


def count_equal(bench: Bench) -> None:
    """Of the last run of each, one clip at a time against ours."""
    theirs, ours = files.read_torch(bench.recipe / "tokens.pt"), files.read_torch(bench.data / "utt2speech_token.pt")
    pairs = [pair for utt in theirs for pair in zip(theirs[utt], ours[utt], strict=True)]
    print(f"tokens: {sum(one == other for one, other in pairs)} of {len(pairs)} equal")
    theirs, ours = files.read_torch(bench.recipe / "embeddings.pt"), files.read_torch(bench.data / "utt2embedding.pt")
    furthest = max(np.abs(np.array(theirs[utt]) - np.array(ours[utt])).max() for utt in theirs)
    print(f"embeddings: {sum(theirs[utt] == ours[utt] for utt in theirs)} of {len(theirs)} equal, "
          f"largest difference {furthest:.1e}\n")  # fmt: skip


def measure_cache(bench: Bench, runs: int, full_s: float, imports_s: float) -> None:
    """Both stages, imports included: when nothing changed, when the record is lost, with one new clip each time."""

    def both() -> None:
        bench.stage("embed")
        bench.stage("tokenize")

    def one_more() -> None:
        bench.add()
        bench.write()
        both()

    def without_record() -> None:
        bench.forget("done")
        both()

    print("| both stages | s | of a full run | without imports |\n|---|---|---|---|")
    ways = {"nothing changed": both, "nothing changed, no record": without_record, "one new clip": one_more}
    for way, seconds in interleaved(ways, runs).items():
        own_s = seconds - 2 * imports_s  # a run that finds nothing to do imports none of them
        share = f"{max(own_s, 0) / (full_s - 2 * imports_s):.1%}" if way != "nothing changed" else ""
        print(f"| {way} | {seconds:.1f} | {seconds / full_s:.1%} | {share} |")


def interleaved(
    ways: dict[str, Callable[[], object]], runs: int, before: Callable[[], object] = lambda: None
) -> dict[str, float]:
    """Median seconds of each way."""
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(runs):
        before()
        for way, start in ways.items():
            started_s = time.monotonic()
            start()
            taken[way].append(time.monotonic() - started_s)
    return {way: statistics.median(seconds) for way, seconds in taken.items()}


def make_models(place: Path) -> Path:
    """The two ONNX models of the full-random base and what stage -1 would say of them."""
    full.write_speech_tokenizer(place / FAMILY.speech_tokenizer, 1986)
    full.write_speaker_encoder(place / FAMILY.speaker_encoder, FAMILY, 1986)
    hashes = {path.name: {"sha256": files.sha256(path)} for path in place.iterdir()}
    files.write_json(place / manifest.NAME, {"format": manifest.FORMAT, "base": "full-random", "files": hashes})
    return place


def run(command: list[object]) -> str:
    """-> what it printed; its errors end the bench."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
