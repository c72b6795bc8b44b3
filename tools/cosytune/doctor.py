"""A machine and a recipe -> one line per thing that a run needs: ok, or how to mend it.

    python -m cosytune.doctor [egs/<speaker>] [--exp default]

Exit status 1 if something that is needed is missing. A machine without a GPU is a whole machine, only a slow one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cosytune import config as configs
from cosytune import environment
from cosytune.errors import UserError, run_main
from cosytune.layout import LOCK, PRETRAINED_MODELS, ROOT, UPSTREAM, Layout
from cosytune.schema import Config
from cosytune.upstream.manifest import PINNED

_DISK_GB = {"random": 2, "tiny": 2, "real": 20, "full-random": 20}
"""Base model, checkpoints, voice bundle and report of one speaker, with room to spare."""

_PART = f"this environment is {LOCK.name}, a part of the whole: unset COSYTUNE_LOCK, or use the runtime image"


@dataclass(frozen=True)
class Finding:
    """One line of the report. `remedy` is empty where all is well."""

    subject: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        if self.remedy:
            return f"not ok  {self.subject:14} {self.text}; {self.remedy}"
        return f"ok      {self.subject:14} {self.text}"


def examine(config: Config, layout: Layout | None) -> Iterator[Finding]:
    """Everything in the order in which a beginner would mend it; nothing that a check raises hides the others."""
    checks: dict[str, Callable[[], Finding]] = {
        "Python": _python,
        "packages": _packages,
        "sox": _sox,
        "ffmpeg": lambda: _program("ffmpeg", "-version"),
        "g++": lambda: _program("g++", "--version"),
        "git": lambda: _program("git", "--version"),
        "GPU": _gpu,
        "precision": _precision,
        "ONNX": lambda: _onnx(config),
        "disk": lambda: _disk(config, layout),
        "directories": lambda: _directories(layout),
        "upstream": lambda: _upstream(config),
        "base model": lambda: _base_model(config),
    }
    for subject, check in checks.items():
        try:
            yield check()
        except UserError as failure:
            text, _, remedy = "; ".join(failure.messages).rpartition("; ")
            yield Finding(subject, text or remedy, remedy)
        except ModuleNotFoundError as failure:
            yield Finding(
                subject, f"{failure.name} is not installed", environment.REMEDY if environment.IS_WHOLE else _PART
            )
        except Exception as failure:  # a broken library is a finding like any other
            yield Finding(subject, f"{type(failure).__name__}: {failure}", environment.REMEDY)


def _python() -> Finding:
    version = platform.python_version()
    if sys.version_info[:2] != (3, 11):
        return Finding("Python", version, "requirements.lock is made for 3.11: . ./path.sh and call python again")
    return Finding("Python", f"{version}, {sys.executable}")


def _packages() -> Finding:
    faults = environment.differences()
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        return Finding("packages", ", ".join(faults[:3]) + more, environment.REMEDY)
    return Finding("packages", f"all {len(environment.locked())} are as {LOCK.name} says")


def _sox() -> Finding:
    found = _program("sox", "--version")
    if not found.remedy and " mp3 " not in _output("sox", "--help"):
        return Finding("sox", "reads no mp3", "sudo apt-get install libsox-fmt-all")
    return found


def _program(name: str, *arguments: str) -> Finding:
    """Whether it is there and starts; the first line of what it says of itself."""
    path = shutil.which(name)
    if path is None:
        return Finding(name, "not found", f"sudo apt-get install {name}")
    try:
        return Finding(name, " ".join(_output(path, *arguments).splitlines()[0].split()))
    except (subprocess.CalledProcessError, OSError, IndexError):
        return Finding(name, f"{path} does not start", f"sudo apt-get install --reinstall {name}")


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _gpu() -> Finding:
    import torch

    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        count = torch.cuda.device_count()
        more = f" and {count - 1} more" if count > 1 else ""
        text = f"{card.name}{more}, {card.total_memory / 2**30:.0f} GiB, driver {_driver() or 'unknown'}"
        return Finding("GPU", f"{text}, CUDA {torch.version.cuda}")
    if driver := _driver():
        remedy = "update the driver to 570 or later (under WSL2 the one of Windows), and start again"
        return Finding("GPU", f"driver {driver} is there, but torch {torch.__version__} sees no card", remedy)
    return Finding("GPU", "none: everything runs on the CPU, fine for base=random and for the tests, not for base=real")


def _driver() -> str | None:
    """The version of NVIDIA's driver; WSL2 keeps its program off PATH."""
    program = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path="/usr/lib/wsl/lib")
    if program is None:
        return None
    try:
        return _output(program, "--query-gpu=driver_version", "--format=csv,noheader").split()[0]
    except (subprocess.CalledProcessError, OSError, IndexError):
        return None


def _precision() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding("precision", "fp32 (CPU)")
    # is_bf16_supported() also counts emulation, which is slower than fp16.
    if torch.cuda.get_device_capability() >= (8, 0):
        return Finding("precision", "bf16 and fp32")
    return Finding("precision", "fp16 with loss scaling and fp32; this card has no bf16")


def _onnx(config: Config) -> Finding:
    """Open a session on a graph of one addition, as the stages do, run it, and ask where it ran."""
    import numpy
    from onnx import TensorProto, helper, save

    from cosytune.features.onnx import open_session

    shape = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])], "probe", [shape],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stdout(io.StringIO()):
        path = Path(directory) / "probe.onnx"
        save(model, str(path))
        session = open_session(path, config.features.provider, 1)
        (result,) = session.run(None, {"x": numpy.ones(1, numpy.float32)})
    got = session.get_providers()[0]
    if float(result[0]) != 2.0:
        return Finding("ONNX", f"{got} says that 1 + 1 is {float(result[0])}", environment.REMEDY)
    if got != "CUDAExecutionProvider" and not _gpu().text.startswith("none") and config.features.provider != "cpu":
        return Finding("ONNX", f"a session gets {got} although there is a GPU", environment.REMEDY)
    return Finding("ONNX", f"a session gets {got}")


def _disk(config: Config, layout: Layout | None) -> Finding:
    place = layout.recipe if layout else ROOT
    free_gb, need_gb = shutil.disk_usage(place).free / 1e9, _DISK_GB[config.base]
    text = f"{free_gb:.0f} GB free at {place}"
    if free_gb < need_gb:
        return Finding("disk", text, f"base={config.base} wants {need_gb} GB: free some, or move the recipe")
    return Finding("disk", text)


def _directories(layout: Layout | None) -> Finding:
    wanted = [*([layout.recipe, layout.exp_dir] if layout else [ROOT / "egs"]), PRETRAINED_MODELS]
    if not (UPSTREAM / PINNED.name).is_dir():  # an image brings it, where nobody can write
        wanted.append(UPSTREAM)
    closed = [place for place in map(_existing, wanted) if not _is_writable(place)]
    if closed:
        names = ", ".join(dict.fromkeys(map(str, closed)))
        return Finding("directories", f"cannot write to {names}", "chmod u+w, or mount it writable")
    return Finding("directories", "all writable")


def _existing(place: Path) -> Path:
    """The place itself, or the directory above it that is there."""
    return next(path for path in (place, *place.parents) if path.is_dir())


def _is_writable(place: Path) -> bool:
    """By trying: permission bits say nothing about a read-only mount, and root passes them all."""
    try:
        with tempfile.TemporaryFile(dir=place):
            return True
    except OSError:
        return False


def _upstream(config: Config) -> Finding:
    from cosytune.upstream import tree

    return Finding("upstream", f"{tree.ready(config).name}, verified and patched")


def _base_model(config: Config) -> Finding:
    from cosytune import base, families

    model_dir = base.locate(config)
    base.check(model_dir, families.get(config.model))
    return Finding("base model", f"{model_dir.name}, every file as it should be")


def _config(recipe: Path | None, exp: str) -> tuple[Config, Layout | None]:
    """The recipe's config as its last run froze it, else as conf.yaml says; the demo's base without a recipe."""
    if recipe is None:
        return Config(base="tiny"), None
    layout = Layout(configs.find_recipe(recipe), configs.checked_name(exp))
    if layout.config.is_file():
        return configs.load(layout.config)
    return configs.read_recipe(layout), layout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, nargs="?")
    parser.add_argument("--exp", default="default")
    arguments = parser.parse_args()
    config, layout = _config(arguments.recipe, arguments.exp)
    faults = 0
    for finding in examine(config, layout):
        print(finding, flush=True)
        faults += bool(finding.remedy)
    print(f"{faults} thing{'s' if faults != 1 else ''} to mend" if faults else "everything is there")
    return 1 if faults else 0


if __name__ == "__main__":
    run_main(main)
