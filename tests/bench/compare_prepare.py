"""python tests/bench/compare_prepare.py [hours] [--alone]: stage 0 beside pydub's split_on_silence, on one recording.

One WAV of so many hours (default 1), speech with pauses of 0.4 to 1.5 s in a quiet room, 44.1 kHz. Stage 0 is the whole
of it: decoding, finding speech, cutting, loudness, every quality gate, the data directory; no transcription. pydub does
what the usual script does: 24 kHz, split_on_silence(500 ms, -40 dBFS, 200 ms kept), clips of 3 to 10 s exported.
`--alone`: without pydub, which holds the whole recording in memory.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pyopenjtalk
import soundfile
import soxr
from run_recipe import ROOT, sample_peak

RATE_HZ = 44100
LJSPEECH = ROOT.parent / "shared" / "data" / "ljspeech24"
PYDUB = """
import sys
from pydub import AudioSegment
from pydub.silence import split_on_silence
audio = AudioSegment.from_wav(sys.argv[1]).set_frame_rate(24000).set_channels(1)
kept_s, number = 0.0, 0
for segment in split_on_silence(audio, min_silence_len=500, silence_thresh=-40, keep_silence=200):
    if 3.0 <= len(segment) / 1000 <= 10.0:
        number, kept_s = number + 1, kept_s + len(segment) / 1000
        segment.export(f"{sys.argv[2]}/{number:05d}.wav", format="wav")
print(f"{number} clips, {kept_s / 60:.1f} min")
"""


def main() -> int:
    """Print a Markdown table: seconds, seconds per hour of audio, peak memory, what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hours", nargs="?", type=float, default=1.0)
    parser.add_argument("--alone", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        recipe = Path(name) / "bench"
        (recipe / "audio").mkdir(parents=True)
        language = "en" if LJSPEECH.is_dir() else "ja"
        (recipe / "conf.yaml").write_text(f"base: random\nlanguage: {language}\ntranscribe: {{model: none}}\n")
        recording = recipe / "audio" / "long.wav"
        write_recording(recording, arguments.hours)
        print(f"{arguments.hours:g} h, {recording.stat().st_size / 1e9:.2f} GB, {psutil.cpu_count()} CPU cores\n")
        print("| | s | s per hour | peak memory | kept |\n|---|---|---|---|---|")
        frozen = subprocess.run(
            [sys.executable, "-m", "cosytune.config", recipe], capture_output=True, text=True, check=True
        ).stdout.strip()
        ours_s, said = timed("stage 0", [sys.executable, "-m", "cosytune.stages.prepare", frozen], arguments.hours)
        theirs_s = 0.0
        if not arguments.alone:
            (Path(name) / "out").mkdir()
            command = [sys.executable, "-c", PYDUB, str(recording), str(Path(name) / "out")]
            theirs_s, _ = timed("pydub", command, arguments.hours)
            print(f"\npydub / stage 0: {theirs_s / ours_s:.1f}")
        print("\n" + said)
    return 0


def timed(label: str, command: list[str], hours: float) -> tuple[float, str]:
    """Run, print the row; -> seconds, what it said. Stage 0 ends with status 1 here: no clip has a text."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        started_s = time.monotonic()
        run = subprocess.Popen(command, stdout=output, stderr=errors)
        peak_bytes = sample_peak(run)
        seconds = time.monotonic() - started_s
        output.seek(0)
        errors.seek(0)
        said, complaints = output.read(), errors.read()
    if run.returncode and "no clip is left" not in complaints:
        sys.exit(complaints)
    clips = [line.strip() for line in said.splitlines() if "clips" in line]
    print(f"| {label} | {seconds:.1f} | {seconds / hours:.1f} | {peak_bytes / 1e9:.2f} GB | {'; '.join(clips)} |")
    return seconds, said


def write_recording(path: Path, hours: float) -> None:
    """Real speech where it is there (../shared/data/ljspeech24), else Open JTalk's."""
    draw = np.random.default_rng(0)
    clips = sentences()
    with soundfile.SoundFile(path, "w", RATE_HZ, 1, "PCM_16") as sound:
        frames = 0
        while frames < hours * 3600 * RATE_HZ:
            for clip in clips:
                pause = np.zeros(int(draw.uniform(0.4, 1.5) * RATE_HZ))
                both = np.concatenate([clip, pause])
                sound.write(both + draw.normal(0, 3e-4, len(both)))
                frames += len(both)


def sentences() -> list[np.ndarray]:
    """float64 [n] each, at RATE_HZ."""
    if LJSPEECH.is_dir():
        read = [soundfile.read(path) for path in sorted(LJSPEECH.glob("*.wav"))]
        return [soxr.resample(samples, rate_hz, RATE_HZ) for samples, rate_hz in read]
    lines = (ROOT / "egs" / "demo" / "local" / "sentences.txt").read_text(encoding="utf-8").split("\n")
    spoken = [pyopenjtalk.tts(line) for line in lines if line]
    return [soxr.resample(samples / 32768, rate_hz, RATE_HZ) for samples, rate_hz in spoken]


if __name__ == "__main__":
    sys.exit(main())
