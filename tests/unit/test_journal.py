"""The journal: what it writes is read back from every place that it writes to."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cosytune import files
from cosytune.errors import UserError
from cosytune.layout import LOCK
from cosytune.schema import LlmTrainConfig
from cosytune.training import journal, pace, plan, trackers
from cosytune.training.journal import Journal
from cosytune.training.position import Position

PLAN = plan.make(["a", "b", "c", "d"], [9, 9, 9, 9], LlmTrainConfig(tokens_per_update=18), 100, "train.llm")
MEL = np.linspace(-11, 2, 50 * 80, dtype=np.float32).reshape(50, 80)
SOUND = (0.5 * np.sin(np.arange(24000) / 10)).astype(np.float32)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "speaker" / "exp" / "default" / "llm"
    path.mkdir(parents=True)
    files.write_json(path / "run.json", {"settings": {"train.llm.learning_rate": 0.5}, "inputs": {}})
    return path


def write(notes: Journal, updates: Sequence[int]) -> None:
    for update in updates:
        notes.train(update, 4.0 - update / 10, 0.1 * update, 1e-4, 2.0, 1000)
        if update % PLAN.updates_per_epoch == 0:
            notes.cv(update, 3.0 - update / 10, 0.05 * update, "the best so far")


def record(directory: Path, updates: Sequence[int], update: int = 0, **more: Any) -> None:
    with Journal(directory, "llm", PLAN, update, **more) as notes:
        write(notes, updates)


def events(directory: Path) -> EventAccumulator:
    found = EventAccumulator(str(directory / "tensorboard"), size_guidance={"scalars": 0, "audio": 0, "images": 0})
    found.Reload()
    return found


def scalars(found: EventAccumulator, tag: str) -> dict[int, float]:
    return {event.step: event.value for event in found.Scalars(tag)}


def test_the_history_holds_accuracies_and_skipped_updates_and_no_times(directory: Path) -> None:
    with Journal(directory, "llm", PLAN, 0) as notes:
        notes.cv(0, 5.0, 0.0, "the untuned base")
        notes.train(1, 4.0, 0.25, 1e-4, 2.0, 1000)
        notes.skipped(2, "loss nan")
        notes.cv(2, 3.0, None, "the best so far")
    lines = [json.loads(line) for line in (directory / "history.jsonl").read_text().splitlines()]
    assert lines == [
        {"update": 0, "epoch": 0, "kind": "cv", "loss": 5.0, "accuracy": 0.0},
        {
            "update": 1,
            "epoch": 1,
            "kind": "train",
            "loss": 4.0,
            "learning_rate": 1e-4,
            "gradient_norm": 2.0,
            "accuracy": 0.25,
        },
        {"update": 2, "epoch": 1, "kind": "skipped", "loss": None},
        {"update": 2, "epoch": 1, "kind": "cv", "loss": 3.0},
    ]
    assert (directory.parent / "curves.png").is_file()


def test_a_resumed_run_leaves_the_same_history(directory: Path) -> None:
    through = directory.with_name("through")
    through.mkdir()
    record(through, range(1, 7))
    record(directory, range(1, 6))
    with (directory / "history.jsonl").open("a") as stream:
        stream.write('{"update": 1')  # killed while it wrote
    record(directory, range(3, 7), update=2)
    assert (directory / "history.jsonl").read_bytes() == (through / "history.jsonl").read_bytes()


def test_tensorboard_shows_what_there_is_and_forgets_what_was_undone(directory: Path) -> None:
    record(directory, range(1, 6))
    with Journal(directory, "llm", PLAN, 2) as notes:
        notes.train(3, 1.5, None, 1e-5, float("inf"), 1000)
    found = events(directory)
    assert scalars(found, "loss/train") == pytest.approx({1: 3.9, 2: 3.8, 3: 1.5})
    assert scalars(found, "accuracy/train") == pytest.approx({1: 0.1, 2: 0.2})
    assert scalars(found, "loss/cv") == pytest.approx({2: 2.8})
    assert scalars(found, "accuracy/cv") == pytest.approx({2: 0.1})
    assert scalars(found, "train/learning_rate") == pytest.approx({1: 1e-4, 2: 1e-4, 3: 1e-5})
    assert scalars(found, "train/gradient_norm") == pytest.approx({1: 2, 2: 2}), "one that overflowed is no number"
    assert all(rate > 0 for rate in scalars(found, "speed/tokens_per_second").values())
    record(directory, [1])
    assert set(scalars(events(directory), "loss/train")) == {1}, "training began anew"


def test_a_sample_can_be_heard_and_seen(directory: Path) -> None:
    with Journal(directory, "llm", PLAN, 0) as notes:
        notes.real_clip(0, "1", MEL, SOUND / 2, 24000)
        notes.real_clip(0, "1", MEL, SOUND, 24000)
        assert not notes.has_samples(2)
        notes.sample(2, "1", MEL, SOUND * 4, 24000)
        assert notes.has_samples(2)
    assert sorted(path.name for path in (directory / "samples").iterdir()) == ["real-1.wav", "update-000002-1.wav"]
    sound, rate_hz = soundfile.read(directory / "samples" / "update-000002-1.wav")
    assert rate_hz == 24000
    assert sound.max() == pytest.approx(1, abs=1e-4), "too loud is limited, not wrapped around"
    assert sound == pytest.approx(np.clip(SOUND * 4, -1, 1), abs=1e-4)
    real, _ = soundfile.read(directory / "samples" / "real-1.wav")
    assert real == pytest.approx(SOUND / 2, abs=1e-4), "written once"
    found = events(directory)
    (heard,) = found.Audio("sample/1")
    assert (heard.step, heard.sample_rate, heard.length_frames) == (2, 24000, 24000)
    assert heard.encoded_audio_string.startswith(b"RIFF")
    (seen,) = found.Images("spectrogram/1")
    assert (seen.width, seen.height) == (100, 320)
    assert found.Tags()["audio"] == ["sample/real-1", "sample/1"]


def test_a_picture_has_low_notes_below_and_loud_ones_bright() -> None:
    mel = np.full((3, 80), -11.5, dtype=np.float32)
    mel[2, 0] = 2.0
    seen = journal.picture(mel).astype(int).sum(axis=-1)
    assert seen.shape == (320, 6)
    assert seen[-4:, 4:].min() > 600
    assert seen[:-4].max() < 50
    assert seen[:, :4].max() < 50


def test_lines_come_at_most_every_few_seconds_and_the_log_has_them_all(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(directory, range(1, 9), show="lines")
    said, log = capsys.readouterr(), (directory / "train.log").read_text()
    line = re.compile(
        r"update 1/\d+, epoch 1/\d+, loss 3\.9000, accuracy 10\.0 %, learning rate 1\.00e-04, \d+ tokens/s, "
        r"\d+\.\d\d updates/s, .+ left"
    )
    assert line.search(said.out)
    assert line.search(log)
    assert log.count("tokens/s") == 8
    assert said.out.count("tokens/s") < 8
    assert said.out.count("cv loss") == log.count("cv loss") == 4
    assert all(shown.startswith("llm: ") for shown in said.out.splitlines())
    assert all(" INFO " in written for written in log.splitlines())
    assert said.err == ""
    assert "GiB" not in log, "there is no GPU"


def test_other_ranks_say_and_write_nothing(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(directory.rglob("*"))
    with journal.open(directory, "llm", PLAN, Position(), ["tensorboard"], is_first=False) as notes:
        notes.say("x")
        notes.cv(0, 1.0, None, "x")
        notes.train(1, 1.0, None, 1.0, 1.0, 1)
        notes.alive(1)
        notes.skipped(1, "x")
        notes.sample(1, "1", MEL, SOUND, 24000)
        notes.real_clip(1, "1", MEL, SOUND, 24000)
    assert sorted(directory.rglob("*")) == before
    assert capsys.readouterr() == ("", "")


def on_terminal(directory: Path, **environment: str) -> str:
    """What a run shows on a terminal of its own."""
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import test_journal as t\n"
        "t.record(Path(sys.argv[2]), range(1, 9))"
    )
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 150))
    with subprocess.Popen(
        [sys.executable, "-c", program, str(Path(__file__).parent), str(directory)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, **environment},
    ):
        os.close(theirs)
        shown = b""
        while True:
            try:
                block = os.read(ours, 65536)
            except OSError:  # Linux's way to say that nobody is left at the other end
                break
            if not block:
                break
            shown += block
    os.close(ours)
    return shown.decode()


def test_a_terminal_shows_a_bar(directory: Path) -> None:
    shown = on_terminal(directory)
    assert re.search(r"llm: +40%.* 8/20 .*<.*loss 3\.2000, accuracy 80\.0 %, \d+ tokens/s\]", shown), shown
    lines = [part for part in re.split(r"[\r\n]+", shown) if "cv loss" in part]
    assert all(re.fullmatch(r"(\x1b\[\w)*llm: update \d+/\d+, cv loss .*so far", line) for line in lines), lines


def test_two_modules_on_one_terminal_show_lines(directory: Path) -> None:
    shown = on_terminal(directory, **{pace.LINES_ONLY: "1"})
    assert "llm: update 1/" in shown
    assert "%|" not in shown
    assert "\x1b" not in shown


def wandb_records(run: Path) -> list[Any]:
    """Read run-<id>.wandb: LevelDB's log format, whose blocks of 32 KiB hold whole records or parts of them."""
    from wandb.proto import wandb_internal_pb2

    data = next(run.glob("*.wandb")).read_bytes()
    place, parts, records = 7, b"", []
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            records.append(wandb_internal_pb2.Record.FromString(parts))
            parts = b""
    return records


def test_wandb_writes_without_a_network(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    before = signal.getsignal(signal.SIGTERM)
    with Journal(directory, "llm", PLAN, 0, ["wandb"], "lines") as notes:
        write(notes, [1, 2])
        notes.sample(2, "1", MEL, SOUND, 24000)
    record(directory, [3], update=2, report_to=["wandb"], show="lines")
    runs = [path for path in sorted((directory / "wandb").glob("offline-run-*")) if path.is_dir()]
    values: dict[str, list[float]] = {}
    for run in runs:
        for found in wandb_records(run):
            for item in found.history.item:
                values.setdefault(item.key or "/".join(item.nested_key), []).append(json.loads(item.value_json))
    assert values["loss/train"] == pytest.approx([3.9, 3.8, 3.7])
    assert values["loss/cv"] == pytest.approx([2.8])
    assert values["update"] == [1, 2, 2, 2, 3]
    assert list(runs[0].glob("files/media/audio/**/*.wav"))
    identity = files.read_json(directory / "trackers.json")["wandb"]
    assert len(runs) >= 1
    # wandb numbers the directories of one run that begin in the same second
    assert all(re.search(rf"-{identity}(-\d+)?$", run.name) for run in runs), "a resumed run is the same run"
    assert not (directory / "tensorboard").exists()
    assert signal.getsignal(signal.SIGTERM) == before
    said = capfd.readouterr()
    assert said.err == ""
    assert all(line.startswith("llm: ") for line in said.out.splitlines()), "wandb's own words are not heard"
    listed = subprocess.run(["ps", "-o", "comm=", "--ppid", str(os.getpid())], capture_output=True, text=True)
    assert "wandb" not in listed.stdout, "its process has ended"


def test_a_tracker_that_is_not_installed_is_an_error_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    trackers.require(["tensorboard", "wandb"], "train.llm")
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None if name == "mlflow" else name)
    with pytest.raises(UserError) as caught:
        trackers.require(["wandb", "mlflow"], "train.flow")
    assert "train.flow.report_to: mlflow is not installed" in str(caught.value)
    assert f"--override {LOCK} mlflow-skinny" in str(caught.value)


def test_a_tracker_that_fails_on_the_way_is_left_out(directory: Path) -> None:
    with Journal(directory, "llm", PLAN, 0, ["wandb", "tensorboard"], "lines") as notes:
        notes.train(1, 4.0, None, 1e-4, 2.0, 1000)
        import wandb

        assert wandb.run is not None
        wandb.run.finish()  # wandb refuses what comes after it
        notes.train(2, 3.0, None, 1e-4, 2.0, 1000)
        notes.train(3, 2.0, None, 1e-4, 2.0, 1000)
    assert (directory / "train.log").read_text().count("wandb failed") == 1
    assert scalars(events(directory), "loss/train") == pytest.approx({1: 4, 2: 3, 3: 2})


def test_mlflow_keeps_a_store_of_files(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is not in requirements.lock: this runs where a user has installed it."""
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with Journal(directory, "llm", PLAN, 0, ["mlflow"], "lines") as notes:
        write(notes, [1, 2])
        notes.sample(2, "1", MEL, SOUND, 24000)
    record(directory, [3], update=2, report_to=["mlflow"], show="lines")
    from mlflow.tracking import MlflowClient

    client = MlflowClient((directory.parent / "mlruns").as_uri())
    (experiment,) = [found for found in client.search_experiments() if found.name == "cosytune"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "speaker default llm"
    assert run.info.status == "FINISHED"
    assert run.data.params == {"train.llm.learning_rate": "0.5"}
    history = {point.step: point.value for point in client.get_metric_history(run.info.run_id, "loss/train")}
    assert history == pytest.approx({1: 3.9, 2: 3.8, 3: 3.7})
    artifacts = {file.path for file in client.list_artifacts(run.info.run_id, "samples")}
    assert artifacts == {"samples/update-000002-1.wav", "samples/update-000002-1.png"}
    said = capfd.readouterr()
    assert said.err == ""
    assert all(line.startswith("llm: ") for line in said.out.splitlines())
