"""Stage 6: the chosen checkpoints -> voice/: merged weights, adapters, speaker embedding, papers, sha256 of everything.

python -m cosytune.stages.export egs/demo/exp/default/config.yaml
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cosytune import base, families, files
from cosytune.stages.runner import Context, need, run_stage
from cosytune.training.upstream import epochs
from cosytune.voice import build
from cosytune.voice.replace import replacing


def work(context: Context) -> None:
    """Build the bundle beside the former one, then put it in its place."""
    config, layout = context.config, context.layout
    base_dir = base.locate(config)
    base.check(base_dir, families.get(config.model))
    material = build.gather(config, layout, base_dir)
    with replacing(layout.voice) as root:
        sealed = build.fill(material, root)
    size_mb = sum(path.stat().st_size for path in layout.voice.rglob("*") if path.is_file()) / 1e6
    print(f"{layout.voice}: {sealed.files} files, {size_mb:.0f} MB, manifest sha256 {sealed.digest}")


def inputs(context: Context) -> Iterable[Path]:
    layout = context.layout
    yield need(layout.selection, "select")
    yield need(layout.data_all / "spk2embedding.pt", "embed")
    yield from (need(layout.data("train") / name, "pack") for name in ("wav.scp", "text", "utt2spk"))
    for module, entry in files.read_json(layout.selection)["modules"].items():
        checkpoint = need(layout.module(module) / entry["chosen"], "select")
        tuned = (
            (epochs.WEIGHTS,) if epochs.is_full(checkpoint) else ("adapter_model.safetensors", "adapter_config.json")
        )
        yield from (checkpoint / name for name in tuned)


def outputs(context: Context) -> Iterable[Path]:
    return (path for path in context.layout.voice.rglob("*") if path.is_file())


if __name__ == "__main__":
    run_stage("export", work, inputs, outputs)
