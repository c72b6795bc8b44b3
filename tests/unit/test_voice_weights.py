"""An adapter becomes a drop-in weights file for upstream, and an adapter that a server of Qwen2 models reads."""

from __future__ import annotations

import errno
import json
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cosytune import families, files
from cosytune.schema import LoraConfig
from cosytune.training import adapters
from cosytune.upstream import bridge
from cosytune.voice import weights

FAMILY = families.get("cosyvoice2-0.5b")
BUILD = {"llm": bridge.build_llm, "flow": bridge.build_flow}


def trained(module: str, model_dir: Path, directory: Path, **lora: Any) -> Path:
    """An adapter whose both halves are random, as one that was trained."""
    model = adapters.attach(BUILD[module](model_dir, FAMILY), LoraConfig(**lora), FAMILY.lora_targets[module], seed=1)
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    directory.mkdir(parents=True)
    for name, content in adapters.contents(model).items():
        (directory / name).write_bytes(content)
    return directory


@pytest.fixture(scope="module")
def llm_adapter(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained("llm", random_model, tmp_path_factory.mktemp("llm") / "adapter", r=4)


@pytest.fixture(scope="module")
def merged_llm(random_model: Path, llm_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("merged") / "llm.pt"
    weights.write_merged("llm", random_model, FAMILY, llm_adapter, path)
    return path


def test_a_merged_llm_has_the_keys_shapes_and_dtypes_of_the_base(random_model: Path, merged_llm: Path) -> None:
    base, merged = files.read_torch(random_model / "llm.pt"), files.read_torch(merged_llm)
    assert list(merged) == list(base)
    assert all((merged[key].dtype, merged[key].shape) == (base[key].dtype, base[key].shape) for key in base)
    changed = {key for key in base if not torch.equal(base[key], merged[key])}
    assert len(changed) == 2 * 7  # two layers, seven projections each; nothing else
    assert all(".layers." in key and key.endswith("_proj.weight") for key in changed)
    # torch pickles by storage: tied weights written twice would show in the size
    assert merged_llm.stat().st_size == pytest.approx((random_model / "llm.pt").stat().st_size, rel=0.01)


def test_a_merged_flow_changes_its_targets_alone(random_model: Path, tmp_path: Path) -> None:
    adapter = trained("flow", random_model, tmp_path / "adapter", r=2)
    weights.write_merged("flow", random_model, FAMILY, adapter, tmp_path / "flow.pt")
    base, merged = files.read_torch(random_model / "flow.pt"), files.read_torch(tmp_path / "flow.pt")
    assert list(merged) == list(base)
    changed = [key for key in base if not torch.equal(base[key], merged[key])]
    expected = {name.split(".lora_")[0] for name in load_file(adapter / "adapter_model.safetensors")}
    assert {f"base_model.model.{key.removesuffix('.weight')}" for key in changed} == expected


def test_merging_twice_gives_the_same_bytes(
    random_model: Path, llm_adapter: Path, merged_llm: Path, tmp_path: Path
) -> None:
    weights.write_merged("llm", random_model, FAMILY, llm_adapter, tmp_path / "llm.pt")
    assert (tmp_path / "llm.pt").read_bytes() == merged_llm.read_bytes()


def test_the_dtype_is_the_base_files_own_and_its_bookkeeping_goes(
    random_model: Path, llm_adapter: Path, tmp_path: Path
) -> None:
    """A base in half precision, saved by upstream's trainer, whose `epoch` and `step` upstream refuses to load."""
    half = tmp_path / "half"
    shutil.copytree(random_model, half)
    state = {key: value.half() for key, value in files.read_torch(half / "llm.pt").items()}
    files.write_torch(half / "llm.pt", {**state, "epoch": 3, "step": 100})
    weights.write_merged("llm", half, FAMILY, llm_adapter, tmp_path / "llm.pt")
    merged = files.read_torch(tmp_path / "llm.pt")
    assert list(merged) == list(state)
    assert {value.dtype for value in merged.values()} == {torch.float16}


def test_a_server_of_qwen2_models_computes_what_the_merged_model_does(
    random_model: Path, llm_adapter: Path, merged_llm: Path, tmp_path: Path
) -> None:
    """PEFT on the bare Qwen2 model stands for the server: it reads the same names."""
    import peft

    assert weights.write_vllm(llm_adapter, tmp_path / "vllm", "base") is None
    names = load_file(tmp_path / "vllm" / "adapter_model.safetensors")
    assert "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" in names
    assert len(names) == 2 * 7 * 2
    config = json.loads((tmp_path / "vllm" / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down"))
    assert (config["r"], config["task_type"], config["peft_type"]) == (4, "CAUSAL_LM", "LORA")

    shutil.copytree(random_model, tmp_path / "merged")
    shutil.copyfile(merged_llm, tmp_path / "merged" / "llm.pt")
    expected_model: Any = bridge.build_llm(tmp_path / "merged", FAMILY)
    plain: Any = bridge.build_llm(random_model, FAMILY)
    served = peft.PeftModel.from_pretrained(plain.llm.model, str(tmp_path / "vllm")).eval()
    ids = torch.arange(5, 40).unsqueeze(0)
    with torch.no_grad():
        untuned = bridge.build_llm(random_model, FAMILY).llm.model(ids).logits
        expected, got = expected_model.llm.model(ids).logits, served(ids).logits
    assert (got - expected).abs().max() < 1e-4
    assert (got - untuned).abs().max() > 1e-2


def test_what_no_server_could_apply_is_not_written(random_model: Path, tmp_path: Path) -> None:
    dora = trained("llm", random_model, tmp_path / "dora", r=2, use_dora=True)
    assert "DoRA" in str(weights.write_vllm(dora, tmp_path / "vllm", "base"))
    beyond = trained("llm", random_model, tmp_path / "beyond", r=2, targets=["default", "llm_decoder"])
    assert "llm_decoder" in str(weights.write_vllm(beyond, tmp_path / "vllm", "base"))
    assert not (tmp_path / "vllm").exists()


def test_a_full_disk_is_told_as_such_and_leaves_the_former_file(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: torch's own error would hide the reason."""
    path = tmp_path / "llm.pt"
    files.write_torch(path, {"former": torch.zeros(1)})
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"llm\.pt") as caught:
            files.write_torch(path, {"new": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["llm.pt"]
