"""python tests/bench/start_time.py [--base random] [--model_dir DIR] [--whole]: from the command to the first update.

Ours: `python -m cosytune.stages.train` until history.jsonl names the first update; before it comes the cv loss of the
untuned base. Upstream: torchrun with its train.py and its example's arguments until its log names the batch that ends
the first update; before it comes init.pt, the whole model. Both train the same clips, 4 of them an update, and are
stopped after it. Beside the seconds: the resident memory of the largest process until then, loading included.

The model directory: DIR, which is made there if it is missing (full-random: 3.8 GB and some minutes), or the one that
stage -1 makes. `--whole`, for a GPU: also stage 4 from start to end, both modules, 25 minutes of speech, 10 epochs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
from compare_training import FAMILY, commit, machine
from yardsticks import corpus as corpora
from yardsticks import theirs

from cosytune import base
from cosytune.schema import Config
from cosytune.upstream import tree

CLIPS, CLIP_S, CV_CLIPS = 8, 2.0, 2
CLIPS_PER_BATCH = 2
GOAL, WHOLE_GOAL_S = 0.35, 120
WHOLE_CLIPS, WHOLE_S = 200, (4.0, 11.0)
"""25 minutes."""
LIMIT_S = 900


@dataclass(frozen=True)
class Start:
    """seconds: until the first update was made. peak_bytes: resident until then, in the largest process."""

    seconds: float
    peak_bytes: int


def main() -> int:
    """Print Markdown for RESULTS.md."""
    options = _options()
    model_dir = _model_dir(options)
    command = " ".join(["python", "tests/bench/start_time.py", *sys.argv[1:]])
    print(f"`{command}` at {commit()}, {machine(options)}.\n")
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        recipe = _recipe(Path(name) / "bench", model_dir, options, corpora.spread(CLIPS, CLIP_S, CLIP_S))
        rounds = []
        for number in range(options.rounds):
            shipped = _upstream(recipe, model_dir, Path(name) / "upstream", options)
            rounds.append((shipped, _ours(recipe, f"round{number}", options)))
        _print_table(options, [one for one, _ in rounds], [one for _, one in rounds])
        if options.whole:
            _print_whole(Path(name) / "whole", model_dir, options)
        else:
            print("\nThe whole stage 4 on a GPU: not measured")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", choices=["full-random", "random"], default="full-random")
    parser.add_argument("--model_dir", type=Path)
    parser.add_argument("--module", choices=["llm", "flow"], default="llm")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--scratch", help="where upstream's checkpoints of 2 GB have room; default: TMPDIR")
    options = parser.parse_args()
    options.threads = int(os.environ.get("OMP_NUM_THREADS", psutil.cpu_count(logical=False) or 1))
    return options


def _model_dir(options: argparse.Namespace) -> Path:
    chosen = str(options.model_dir.absolute()) if options.model_dir else None
    config = Config(base=options.base, model_dir=chosen)
    model_dir = base.locate(config)
    if not model_dir.exists():
        base.make(config, model_dir)
    return model_dir


def _recipe(recipe: Path, model_dir: Path, options: argparse.Namespace, lengths_s: list[float]) -> Path:
    """A recipe as stages 0 to 3 leave it, as far as stage 4 reads it."""
    train = corpora.make(recipe / "parquet" / "train", FAMILY, lengths_s)
    corpora.make(recipe / "parquet" / "cv", FAMILY, [CLIP_S] * CV_CLIPS, seed=1)
    per_update = train.tokens * CLIPS_PER_BATCH * theirs.ACCUM_GRAD // len(lengths_s)
    (recipe / "conf.yaml").write_text(
        f"base: {options.base}\nmodel_dir: {model_dir}\ndevice: {options.device}\n"
        f"train: {{mode: {options.module}_only, {options.module}: {{tokens_per_update: {per_update}}}}}\n"
    )
    return recipe


def _ours(recipe: Path, exp: str, options: argparse.Namespace) -> Start:
    """Stage 4 in an experiment of its own."""
    config = _frozen(recipe, exp)
    log, history = recipe / f"{exp}.log", recipe / "exp" / exp / options.module / "history.jsonl"
    command = [sys.executable, "-m", "cosytune.stages.train", config]
    return _until(command, log, lambda: _has(history, '"kind": "train"'), dict(os.environ))


def _frozen(recipe: Path, exp: str, *overrides: str) -> str:
    command = [sys.executable, "-m", "cosytune.config", str(recipe), "--exp", exp, *overrides]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _upstream(recipe: Path, model_dir: Path, made: Path, options: argparse.Namespace) -> Start:
    """Its train.py, as its example calls it, with batches of two clips and a line in the log after each update."""
    made.mkdir()
    frames = round(CLIPS_PER_BATCH * CLIP_S * FAMILY.token_rate_hz * FAMILY.token_mel_ratio)
    yaml = (model_dir / FAMILY.yaml).read_text(encoding="utf-8")
    for old, new in (
        ("max_frames_in_batch: 2000", f"max_frames_in_batch: {frames}"),
        ("log_interval: 100", "log_interval: 2"),
    ):
        if old not in yaml:
            sys.exit(f"{model_dir / FAMILY.yaml}: has no '{old}'")
        yaml = yaml.replace(old, new)
    (made / FAMILY.yaml).write_text(yaml, encoding="utf-8")
    is_cuda = options.device == "cuda"
    arguments: dict[str, object] = {
        "--train_engine": "torch_ddp",
        "--model": options.module,
        "--config": made / FAMILY.yaml,
        "--train_data": recipe / "parquet" / "train" / "data.list",
        "--cv_data": recipe / "parquet" / "cv" / "data.list",
        "--qwen_pretrain_path": model_dir / FAMILY.text_tokenizer,
        "--checkpoint": model_dir / (FAMILY.llm if options.module == "llm" else FAMILY.flow),
        "--model_dir": made / "exp",
        "--tensorboard_dir": made / "tensorboard",
        "--ddp.dist_backend": "nccl" if is_cuda else "gloo",
        "--num_workers": theirs.WORKERS,
        "--prefetch": theirs.PREFETCH,
    }
    root = tree.ready(None)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1"]
    command = [*launcher, str(root / "cosyvoice" / "bin" / "train.py")]
    command += [str(word) for pair in arguments.items() for word in pair] + ["--pin_memory", "--use_amp"] * is_cuda
    paths = os.pathsep.join(map(str, (root, root / "third_party" / "Matcha-TTS")))
    log = made / "log"
    threads = {"OMP_NUM_THREADS": str(options.threads)}  # torchrun would set 1
    start = _until(command, log, lambda: _has(log, "TRAIN Batch 0/2 "), {**os.environ, **threads, "PYTHONPATH": paths})
    shutil.rmtree(made)
    return start


def _until(command: list[str], log: Path, is_done: Callable[[], bool], environment: dict[str, str]) -> Start:
    """Run until `is_done`, then stop all of it."""
    with log.open("w") as output:
        started_s = time.monotonic()
        run = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        peak_bytes = 0
        try:
            while not is_done():
                time.sleep(0.05)
                peak_bytes = max(peak_bytes, _resident_bytes(run.pid))
                if run.poll() is not None or time.monotonic() - started_s > LIMIT_S:
                    if is_done():
                        break
                    sys.exit(f"{' '.join(command)}: ended before its first update\n{log.read_text()[-3000:]}")
            return Start(time.monotonic() - started_s, peak_bytes)
        finally:
            _stop(run)


def _resident_bytes(pid: int) -> int:
    """Of the largest process; a sum would count what forked workers share several times."""
    largest = 0
    try:
        parent = psutil.Process(pid)
        for process in [parent, *parent.children(recursive=True)]:
            largest = max(largest, process.memory_info().rss)
    except psutil.NoSuchProcess:
        pass  # it ended between the listing and the reading
    return largest


def _stop(run: subprocess.Popen[bytes]) -> None:
    """The process and all that it has started."""
    try:
        family = [*psutil.Process(run.pid).children(recursive=True), psutil.Process(run.pid)]
    except psutil.NoSuchProcess:
        family = []
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    run.wait()


def _has(path: Path, text: str) -> bool:
    return path.is_file() and text in path.read_text(encoding="utf-8", errors="replace")


def _print_table(options: argparse.Namespace, shipped: list[Start], ours: list[Start]) -> None:
    print(
        f"{options.module}, {options.base}, {options.rounds} interleaved rounds: median (smallest to largest).\n\n"
        "| | upstream | CosyTune | ours / upstream | goal |\n|---|---|---|---|---|"
    )
    _row("start to first update, s", [one.seconds for one in shipped], [one.seconds for one in ours], f"<= {GOAL:g}")
    peaks = [[one.peak_bytes / 1e9 for one in side] for side in (shipped, ours)]
    _row("peak memory until then, largest process, loading included, GB", *peaks, "")


def _row(label: str, shipped: list[float], ours: list[float], goal: str) -> None:
    cells = [f"{statistics.median(one):.3g} ({min(one):.3g} to {max(one):.3g})" for one in (shipped, ours)]
    print(
        f"| {label} | {cells[0]} | {cells[1]} | {statistics.median(ours) / statistics.median(shipped):.2f} | {goal} |"
    )


def _print_whole(recipe: Path, model_dir: Path, options: argparse.Namespace) -> None:
    """Both modules, at the default settings, but that nothing ends it early."""
    _recipe(recipe, model_dir, options, corpora.spread(WHOLE_CLIPS, *WHOLE_S))
    endless = ("train.llm.early_stopping_patience=1000", "train.flow.early_stopping_patience=1000")
    both = ("train.mode=joint", f"train.{options.module}.tokens_per_update=auto")
    config = _frozen(recipe, "whole", *both, *endless)
    started_s = time.monotonic()
    run = subprocess.run([sys.executable, "-m", "cosytune.stages.train", config], check=False)
    seconds = time.monotonic() - started_s
    if run.returncode:
        sys.exit(f"stage 4 ended with status {run.returncode}")
    minutes = sum(corpora.spread(WHOLE_CLIPS, *WHOLE_S)) / 60
    print(
        f"\nStage 4, both modules, {minutes:.0f} min of speech, 10 epochs: {seconds:.1f} s; "
        f"goal < {WHOLE_GOAL_S} s on an H200"
    )


if __name__ == "__main__":
    sys.exit(main())
