"""One module of a packed recipe -> its checkpoints: what stage 4 starts for each module, and for each of its ranks.

python -m cosytune.training egs/demo/exp/default/config.yaml llm
"""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path

from cosytune import config as configs
from cosytune import locks
from cosytune.errors import UserError, explain, run_main
from cosytune.layout import MODULES, Layout
from cosytune.schema import Config
from cosytune.training import job, runs, signals, torchrun
from cosytune.training.launch import Launcher


def main() -> None:
    launcher = Launcher.join()
    signals.leave_at_once(quiet=launcher is not None or torchrun.rank() > 0)
    try:
        if launcher is None:
            run_main(_train_alone)
        else:
            _train_for(launcher)
    except signals.Stopped as stopped:
        if launcher is None and torchrun.rank() == 0:
            print(stopped, file=sys.stderr)
        sys.exit(stopped.exit_status)


def _train_for(launcher: Launcher) -> None:
    """What goes wrong is said by the stage, which knows what came first; a traceback is ours."""
    try:
        config, layout, module, share = _arguments()
        job.run(config, layout, [module], share)
    except UserError as mistake:
        launcher.report(mistake.messages)
        sys.exit(mistake.exit_status)
    except OSError as failure:
        line = explain(failure)
        launcher.report([line] if line else [])
        if line is None:
            raise
        sys.exit(1)
    except Exception:
        launcher.report([])
        raise


def _train_alone() -> None:
    """By hand, for a module that stage 4 has begun."""
    config, layout, module, share = _arguments()
    if not (layout.module(module) / runs.RUN).exists():
        raise UserError(
            f"{layout.module(module)}: stage 4 has not begun there; run python -m cosytune.stages.train {layout.config}"
        )
    done = layout.exp_dir / "done"  # the stage holds the same lock
    with locks.nobody_else(layout.exp_dir, done) if torchrun.rank() == 0 else nullcontext():
        job.run(config, layout, [module], share)


def _arguments() -> tuple[Config, Layout, str, float]:
    parser = argparse.ArgumentParser(
        prog="python -m cosytune.training", description="Train one module, as stage 4 does: a rank of it, or all of it."
    )
    parser.add_argument("config", type=Path, help="exp/<name>/config.yaml, as run.sh froze it")
    parser.add_argument("module", choices=MODULES)
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the GPU's memory, where the other module trains too"
    )
    arguments = parser.parse_args()
    return *configs.load(arguments.config), arguments.module, arguments.share


if __name__ == "__main__":
    main()
