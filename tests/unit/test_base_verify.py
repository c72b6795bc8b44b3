"""One flipped byte, one missing file: the base is refused, the file is named, the remedy is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cosytune import base, families, files
from cosytune.base import manifest, verify
from cosytune.errors import UserError
from cosytune.layout import PRETRAINED_MODELS

FAMILY = families.get("cosyvoice2-0.5b")


@pytest.fixture
def model_dir(random_model: Path, tmp_path: Path) -> Path:
    """The random model as links: a test exchanges what it damages."""
    out = tmp_path / "m"
    for path in sorted(random_model.rglob("*")):
        if path.is_file():
            link = out / path.relative_to(random_model)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    return out


def flip(path: Path) -> None:
    """Exchange one bit in the middle of a file, in a copy of it."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)


def own(model_dir: Path) -> Path:
    """What a user's own model looks like: the same files, no description of ours."""
    (model_dir / manifest.NAME).unlink()
    return model_dir


def test_a_whole_model_passes(model_dir: Path):
    base.check(model_dir, FAMILY)
    hashes = base.hashes(model_dir)
    assert set(hashes) == set(FAMILY.published)
    assert hashes["llm.pt"] == files.sha256(model_dir / "llm.pt")


@pytest.mark.parametrize("name", sorted(FAMILY.published))
def test_one_flipped_bit_is_found(name: str, model_dir: Path):
    flip(model_dir / name)
    with pytest.raises(UserError) as caught:
        base.check(model_dir, FAMILY)
    assert len(caught.value.messages) == 1
    assert str(model_dir / name) in caught.value.messages[0]
    assert "restore " in caught.value.messages[0]  # it is a copy, which stage -1 does not make


def test_everything_wrong_is_said_at_once(model_dir: Path):
    (model_dir / "llm.pt").unlink()
    (model_dir / "CosyVoice-BlankEN" / "vocab.json").unlink()
    with pytest.raises(UserError) as caught:
        base.check(model_dir, FAMILY)
    assert [message.split(": ")[1].split(";")[0] for message in caught.value.messages] == ["missing", "missing"]


def test_a_damaged_or_older_description_is_refused(model_dir: Path):
    path = model_dir / manifest.NAME
    described = files.read_json(path)
    path.unlink()
    for text, complaint in {
        json.dumps(described)[:-40]: "damaged",
        json.dumps({**described, "base": "tinx"}): "damaged",
        json.dumps({**described, "format": 0}): "made by another version of cosytune",
        json.dumps({**described, "family": "other"}): "made by another version of cosytune or for another family",
    }.items():
        path.write_text(text)
        with pytest.raises(UserError, match=complaint):
            base.check(model_dir, FAMILY)


def test_a_missing_model_says_how_to_get_it(tmp_path: Path):
    with pytest.raises(UserError) as caught:
        base.check(PRETRAINED_MODELS / "nowhere" / FAMILY.title, FAMILY)
    message = str(caught.value)
    assert f"huggingface-cli download FunAudioLLM/CosyVoice2-0.5B --revision {FAMILY.revision}" in message
    assert "modelscope download --model iic/CosyVoice2-0.5B" in message
    assert "base=random" in message
    with pytest.raises(UserError, match="run stage -1"):
        base.check(PRETRAINED_MODELS / "CosyVoice2-0.5B-of-nobody", FAMILY)


def test_a_model_of_ones_own_is_recorded_and_compared_ever_after(model_dir: Path):
    own(model_dir)
    with pytest.raises(UserError, match="never checked; run stage -1"):
        base.hashes(model_dir)
    base.check(model_dir, FAMILY)
    recorded = base.hashes(model_dir)
    assert recorded["flow.pt"] == files.sha256(model_dir / "flow.pt")
    base.check(model_dir, FAMILY)

    flip(model_dir / "flow.pt")
    with pytest.raises(UserError, match=r"flow\.pt: not as it was .* if you changed it yourself"):
        base.check(model_dir, FAMILY)
    assert base.hashes(model_dir) == recorded  # a failed check is no new record
    (model_dir / verify.RECORD).unlink()
    base.check(model_dir, FAMILY)
    assert base.hashes(model_dir)["flow.pt"] != recorded["flow.pt"]


def test_a_pointer_of_git_lfs_is_no_model(model_dir: Path):
    own(model_dir)
    (model_dir / "llm.pt").unlink()
    (model_dir / "llm.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 2023316821\n")
    with pytest.raises(UserError, match=r"llm\.pt: 72 bytes are no model; download it again: huggingface-cli"):
        base.check(model_dir, FAMILY)


def test_the_real_models_place_holds_the_published_files_alone(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A download that broke on the way must not be recorded as right."""
    monkeypatch.setattr(verify, "PRETRAINED_MODELS", tmp_path)
    place = own(model_dir).rename(tmp_path / FAMILY.title)
    with pytest.raises(UserError) as caught:
        base.check(place, FAMILY)
    assert len(caught.value.messages) == len(FAMILY.published)
    assert "expected b144ef55b51c" in str(caught.value)
    assert not (place / verify.RECORD).exists()
