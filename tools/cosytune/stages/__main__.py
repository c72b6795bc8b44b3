"""The stages of a recipe -> a table: number, name, whether it is done, what it does.

python -m cosytune.stages egs/demo [--exp default]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cosytune import config as configs
from cosytune.errors import run_main
from cosytune.layout import Layout
from cosytune.record import Record, flatten, path_of
from cosytune.schema import Config
from cosytune.stages import STAGES, Stage


def status(layout: Layout, config: Config | None, stage: Stage) -> str:
    """`done`, `to do`, `begun`, or why a finished stage will run again. A file that is new to it shows when it runs."""
    record = Record.read(layout, stage)
    if record is None or config is None:
        return "begun" if Record.has_begun(layout, stage) else "to do"
    inputs = [path_of(layout, name) for name in record.inputs]
    reason = record.stale_reason(layout, flatten(config, stage.uses), inputs)
    return f"again: {reason}" if reason else "done"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--exp", default="default")
    arguments = parser.parse_args()
    layout = Layout(configs.find_recipe(arguments.recipe), configs.checked_name(arguments.exp))
    config = configs.load(layout.config)[0] if layout.config.is_file() else None
    print(f"{layout.recipe}, experiment {layout.exp}:")
    for stage in STAGES:
        print(f"{stage.number:3}  {stage.name:9} {status(layout, config, stage):6} {stage.summary}")
    return 0


if __name__ == "__main__":
    run_main(main)
