"""One process of a training run, as torchrun starts it: python tests/one_rank.py RUN.json

RUN.json has the arguments of `training_data.make_job`: name, model_dir, directory, train, cv (paths) and settings;
`dropout`: whether there is any; and `distributed`: ddp or deepspeed.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

import training_data
from cosytune.errors import run_main
from cosytune.features import cache
from cosytune.schema import LoraConfig
from cosytune.training import trainer


def main() -> int:
    given = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(1)
    job = training_data.make_job(
        given["name"],
        Path(given["model_dir"]),
        Path(given["directory"]),
        *(cache.open(Path(given[part])) for part in ("train", "cv")),
        lora=LoraConfig(r=4, lora_dropout=0.05 if given["dropout"] else 0.0),
        **given["settings"],
    )
    job = replace(job, distributed=given["distributed"])
    if not given["dropout"]:
        training_data.drop_nothing(job)
    try:
        trainer.train(job)
    except trainer.Stopped as stopped:
        return stopped.exit_status
    return 0


if __name__ == "__main__":
    run_main(main)
