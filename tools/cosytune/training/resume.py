"""exp/<name>/<module> -> the checkpoint that a run goes on from."""

from __future__ import annotations

from pathlib import Path

from cosytune.training import checkpoint, machine


def find(module_dir: Path, save_total_limit: int) -> Path | None:
    """The newest sound checkpoint whose best one is sound too, None where there is none; later ones are set aside.

    One that calls a damaged checkpoint the best is no place to go on from: the best would be lost without a word. What
    the run would have removed next, had it not been killed, is removed now: no later save may do it.
    """
    checkpoint.remove_leftovers(module_dir)
    found = checkpoint.find(module_dir)
    updates = {one.update for one in found}
    usable = [one for one in found if machine.position(one.path)["best_update"] in updates | {None}]
    for late in found[found.index(usable[-1]) + 1 if usable else 0 :]:
        print(f"set aside: {late.path}: its best checkpoint is damaged or gone, and is trained again")
        checkpoint.set_aside(late.path)
    if not usable:
        return None
    checkpoint.prune(module_dir, save_total_limit, machine.position(usable[-1].path)["best_update"])
    return usable[-1].path
