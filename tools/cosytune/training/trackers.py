"""Scalars and samples of a training run -> TensorBoard, Weights & Biases, MLflow: whatever `report_to` names.

TensorBoard writes to exp/<name>/<module>/tensorboard. wandb writes beside it, without a network, unless WANDB_MODE or
WANDB_API_KEY is set; MLflow to exp/<name>/mlruns, unless MLFLOW_TRACKING_URI is set.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cosytune import files
from cosytune.errors import UserError
from cosytune.layout import LOCK
from cosytune.training import runs

_IDS = "trackers.json"
_PROJECT = "cosytune"
_REMEDIES = {
    "wandb": "set WANDB_MODE=offline to write without a network",
    "mlflow": "unset MLFLOW_TRACKING_URI to write to exp/<name>/mlruns",
}


@dataclass(frozen=True)
class Sample:
    """Something to hear. sound: float32 [n] in -1..1, which the file `path` holds too; picture: uint8 [height, width,
    3], its spectrogram. `name`: the same in every evaluation.
    """

    name: str
    path: Path
    sound: NDArray[np.float32]
    rate_hz: int
    picture: NDArray[np.uint8]


class Tracker(Protocol):
    def scalars(self, values: Mapping[str, float], update: int) -> None: ...

    def sample(self, sample: Sample, update: int) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


def require(report_to: Sequence[str], key: str) -> None:
    """Raise UserError if one of the trackers is not installed. `key`: the module's settings, train.llm or train.flow.

    To be asked for all modules before the first is trained.
    """
    packages = {"mlflow": "mlflow-skinny"}
    missing = [name for name in report_to if importlib.util.find_spec(name) is None]
    if missing:
        names = " ".join(packages.get(name, name) for name in missing)
        raise UserError(
            f"{key}.report_to: {', '.join(missing)} is not installed; install it with: uv pip install "
            f"--python {sys.executable} --override {LOCK} {names}"
        )


class Trackers:
    """The trackers of one module's run that goes on from `update`.

    Training does not depend on them: wandb or MLflow that fails on the way is said once and left out from then on.
    """

    def __init__(
        self, report_to: Sequence[str], directory: Path, name: str, update: int, say: Callable[[str], None]
    ) -> None:
        require(report_to, f"train.{name}")
        self._say = say
        self._open: dict[str, Tracker] = {}
        kinds: dict[str, Callable[[Path, str, int], Tracker]] = {
            "tensorboard": _TensorBoard,
            "wandb": _Wandb,
            "mlflow": _Mlflow,
        }
        for kind in dict.fromkeys(report_to):
            try:
                self._open[kind] = kinds[kind](directory.absolute(), name, update)
            except Exception as failure:
                self.close()
                if kind not in _REMEDIES or isinstance(failure, OSError):
                    raise
                raise UserError(
                    f"train.{name}.report_to: {kind}: {_first_line(failure)}; {_REMEDIES[kind]}"
                ) from failure

    def scalars(self, values: Mapping[str, float], update: int) -> None:
        self._each(lambda tracker: tracker.scalars(values, update))

    def sample(self, sample: Sample, update: int) -> None:
        self._each(lambda tracker: tracker.sample(sample, update))

    def flush(self) -> None:
        """Let a reader see what there is."""
        self._each(lambda tracker: tracker.flush())

    def close(self) -> None:
        self._each(lambda tracker: tracker.close())
        self._open.clear()

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for kind, tracker in list(self._open.items()):
            try:
                act(tracker)
            except Exception as failure:  # whatever a service and its library come up with
                if kind not in _REMEDIES:
                    raise
                del self._open[kind]
                self._say(f"{kind} failed ({_first_line(failure)}): training goes on without it")


class _TensorBoard:
    def __init__(self, directory: Path, name: str, update: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        # What a former run wrote after the update that this one goes on from is not shown.
        self._writer = SummaryWriter(str(directory / "tensorboard"), purge_step=update + 1 if update else 0)

    def scalars(self, values: Mapping[str, float], update: int) -> None:
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, update)

    def sample(self, sample: Sample, update: int) -> None:
        self._writer.add_audio(f"sample/{sample.name}", sample.sound[None], update, sample.rate_hz)
        self._writer.add_image(f"spectrogram/{sample.name}", sample.picture, update, dataformats="HWC")

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    def __init__(self, directory: Path, name: str, update: int) -> None:
        has_account = "WANDB_API_KEY" in os.environ
        mode: Any = os.environ.get("WANDB_MODE") or ("online" if has_account else "offline")
        if mode != "online":
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # wandb's reports of its own errors
        import wandb

        self._wandb = wandb
        identity = _id(directory, "wandb", update, lambda: uuid.uuid4().hex[:8])
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            group=_title(directory),
            name=f"{_title(directory)} {name}",
            id=identity,
            resume="allow" if mode == "online" else None,
            dir=str(directory),
            mode=mode,
            config=_settings(directory),
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_code=True,
                disable_git=True,
                disable_job_creation=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        )
        self._run.define_metric("*", step_metric="update")  # wandb's own step cannot go back, a resumed run does

    def scalars(self, values: Mapping[str, float], update: int) -> None:
        self._run.log({"update": update, **values})

    def sample(self, sample: Sample, update: int) -> None:
        sound, picture = self._wandb.Audio(str(sample.path)), self._wandb.Image(sample.picture)
        media = {f"sample/{sample.name}": sound, f"spectrogram/{sample.name}": picture}
        self._run.log({"update": update, **media})

    def flush(self) -> None:
        """It writes at once."""

    def close(self) -> None:
        self._run.finish()
        self._wandb.teardown()  # its process ends now, not with ours


class _Mlflow:
    def __init__(self, directory: Path, name: str, update: int) -> None:
        _quiet_mlflow()
        from mlflow.entities import Metric
        from mlflow.tracking import MlflowClient

        self._metric = Metric
        store = None if "MLFLOW_TRACKING_URI" in os.environ else (directory.parent / "mlruns").as_uri()
        self._client = MlflowClient(store)
        found = self._client.get_experiment_by_name(_PROJECT)
        experiment = found.experiment_id if found else self._client.create_experiment(_PROJECT)

        def create() -> str:
            run = self._client.create_run(experiment, run_name=f"{_title(directory)} {name}")
            return str(run.info.run_id)

        self._run = _id(directory, "mlflow", update, create)
        self._client.update_run(self._run, "RUNNING")
        for key, value in _settings(directory).items():
            self._client.log_param(self._run, key, value)

    def scalars(self, values: Mapping[str, float], update: int) -> None:
        now_ms = int(time.time() * 1000)
        metrics = [self._metric(tag, value, now_ms, update) for tag, value in values.items()]
        self._client.log_batch(self._run, metrics)

    def sample(self, sample: Sample, update: int) -> None:
        self._client.log_artifact(self._run, str(sample.path), "samples")
        self._client.log_image(self._run, sample.picture, f"samples/{sample.path.stem}.png")

    def flush(self) -> None:
        """It writes at once."""

    def close(self) -> None:
        self._client.set_terminated(self._run)


def _quiet_mlflow() -> None:
    """No telemetry; the store of plain files, which needs no database; a server that is gone is not waited for long."""
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    }.items():
        os.environ.setdefault(name, value)


def _id(directory: Path, kind: str, update: int, create: Callable[[], str]) -> str:
    """The tracker's run that a resumed training goes on with; a new one for a training that begins."""
    path = directory / _IDS
    ids = files.read_json(path) if path.is_file() else {}
    if update == 0 or kind not in ids:
        ids[kind] = create()
        files.write_json(path, ids)
    return str(ids[kind])


def _settings(directory: Path) -> dict[str, Any]:
    """The settings that the run was made with, where the stage has written them down."""
    path = directory / runs.RUN
    found: dict[str, Any] = files.read_json(path).get("settings", {}) if path.is_file() else {}
    return found


def _title(directory: Path) -> str:
    """egs/<speaker>/exp/<name>/<module> -> `<speaker> <name>`."""
    return " ".join([directory.parents[min(2, len(directory.parents) - 1)].name, directory.parent.name])


def _first_line(failure: Exception) -> str:
    words = str(failure).strip().splitlines()
    return words[0][:200] if words else type(failure).__name__
