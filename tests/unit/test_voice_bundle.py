"""The manifest, the swap of bundles, and the installation in a server: without any model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cosytune import files
from cosytune.errors import UserError
from cosytune.layout import ROOT
from cosytune.voice import bundle, install
from cosytune.voice.replace import replacing

SPEAKER = "話者 'A'"


def fill(root: Path, merged: bool = True, content: bytes = b"weights") -> Path:
    """A bundle with every kind of file but with no model in it."""
    root.mkdir(parents=True, exist_ok=True)
    for module in ("llm", "flow") if merged else ():
        (root / f"{module}.pt").write_bytes(content)
    (root / "adapters" / "llm").mkdir(parents=True)
    (root / "adapters" / "llm" / "adapter_model.safetensors").write_bytes(content)
    (root / "reference").mkdir()
    (root / "reference" / f"{SPEAKER}.wav").write_bytes(b"RIFF")
    (root / "spk2embedding.pt").write_bytes(b"embedding")
    entry = {
        "type": "lora",
        "llm_lora_model_path": "llm.pt",
        "flow_lora_model_path": "flow.pt",
        "spk_embedding_path": "spk2embedding.pt",
        "description": "テスト",
        "active": True,
        "reference_audio": f"reference/{SPEAKER}.wav",
        "prompt_text": "おはよう。",
    }
    files.write_json(root / "speaker_config.json", {"speakers": {SPEAKER: entry}, "default_speaker": SPEAKER})
    files.write_json(root / "versions.json", {"speaker": SPEAKER})
    bundle.seal(root)
    return root


@pytest.fixture
def voice(tmp_path: Path) -> Path:
    return fill(tmp_path / "声 of mine" / "voice")


def verify(voice: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cosytune.voice", "verify", str(voice)]
    return subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT / "tools")})


def test_verify_accepts_a_bundle_that_was_moved(voice: Path, tmp_path: Path) -> None:
    moved = voice.rename(tmp_path / "moved")
    done = verify(moved)
    assert done.returncode == 0, done.stderr
    assert "every one as it was made" in done.stdout


def test_verify_names_what_changed_what_is_missing_and_what_is_extra(voice: Path) -> None:
    weights = voice / "llm.pt"
    weights.write_bytes(bytes([weights.read_bytes()[0] ^ 1]) + weights.read_bytes()[1:])  # one bit
    (voice / "flow.pt").unlink()
    (voice / "メモ.txt").write_text("mine")
    done = verify(voice)
    assert done.returncode == 1
    lines = [line.removeprefix(f"{voice}: ") for line in done.stdout.splitlines()]
    assert lines == ["llm.pt: changed", "flow.pt: missing", "メモ.txt: not in the manifest"]
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr


@pytest.mark.parametrize("content", ["{", "[]", '{"files": 3}', '{"files": {"llm.pt": "abc"}}'])
def test_verify_refuses_a_broken_manifest(voice: Path, content: str) -> None:
    (voice / "manifest.json").write_text(content)
    done = verify(voice)
    assert done.returncode == 1
    assert "manifest.json" in done.stderr and "Traceback" not in done.stderr


def test_verify_refuses_what_is_no_bundle(tmp_path: Path) -> None:
    assert "no such voice" in verify(tmp_path / "nowhere").stderr
    done = verify(tmp_path)
    assert done.returncode == 1 and "not a voice bundle" in done.stderr


def test_whole_means_unchanged_but_extra_files_do_no_harm(voice: Path) -> None:
    (voice / "notes.txt").write_text("mine")
    assert bundle.require_whole(voice).extra == ["notes.txt"]
    (voice / "llm.pt").write_bytes(b"weightz")
    with pytest.raises(UserError, match=r"llm\.pt: changed since it was made"):
        bundle.require_whole(voice)


def test_the_manifest_is_the_same_for_the_same_files(tmp_path: Path) -> None:
    first, second = (bundle.seal(fill(tmp_path / name)) for name in ("a", "b"))
    assert first.digest == second.digest
    assert bundle.seal(fill(tmp_path / "c", content=b"others")).digest != first.digest


def test_an_unknown_speaker_is_answered_with_those_that_are_there(voice: Path) -> None:
    with pytest.raises(UserError, match=f"no speaker 'B'; it has: {SPEAKER}"):
        bundle.read(voice).speaker("B")
    assert bundle.read(voice).speaker(None) == SPEAKER


def test_install_keeps_the_others_and_writes_absolute_paths(voice: Path, tmp_path: Path) -> None:
    config = tmp_path / "server" / "speaker_config.json"
    config.parent.mkdir()
    before = {"speakers": {"old": {"type": "lora", "x": 1}}, "default_speaker": "old", "port": 9880}
    config.write_text(json.dumps(before))
    config.chmod(0o640)
    install.install(voice, config)
    now = json.loads(config.read_text())
    assert now["speakers"]["old"] == {"type": "lora", "x": 1}
    assert (now["default_speaker"], now["port"]) == ("old", 9880)
    entry = now["speakers"][SPEAKER]
    for key in ("llm_lora_model_path", "flow_lora_model_path", "spk_embedding_path", "reference_audio"):
        assert Path(entry[key]).is_absolute() and Path(entry[key]).is_file(), key
    assert entry["prompt_text"] == "おはよう。"
    assert json.loads((config.parent / "speaker_config.json.bak").read_text()) == before
    assert config.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in config.parent.iterdir()) == ["speaker_config.json", "speaker_config.json.bak"]


def test_install_again_replaces_only_its_own_speaker(voice: Path, tmp_path: Path) -> None:
    config = tmp_path / "speaker_config.json"
    assert install.install(voice, config)[0].startswith("added")
    assert install.install(voice, config, make_default=True)[0].startswith("replaced")
    assert json.loads(config.read_text())["default_speaker"] == SPEAKER


def test_install_follows_a_link_to_the_file_behind_it(voice: Path, tmp_path: Path) -> None:
    real = tmp_path / "etc.json"
    real.write_text('{"speakers": {}}')
    link = tmp_path / "speaker_config.json"
    link.symlink_to(real)
    install.install(voice, link)
    assert link.is_symlink() and SPEAKER in json.loads(real.read_text())["speakers"]


@pytest.mark.parametrize("content", ["not json", "[]", '{"speakers": []}', '{"a": 1}'])
def test_install_leaves_a_file_that_it_does_not_understand(voice: Path, tmp_path: Path, content: str) -> None:
    config = tmp_path / "speaker_config.json"
    config.write_text(content)
    with pytest.raises(UserError, match=r"speaker_config\.json"):
        install.install(voice, config)
    assert config.read_text() == content


def test_install_asks_for_the_file_when_it_gets_a_directory(voice: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a directory; name the file in it"):
        install.install(voice, tmp_path)


def test_install_refuses_a_damaged_voice_and_one_of_adapters_alone(voice: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"export\.merged=true"):
        install.install(fill(tmp_path / "adapters", merged=False), tmp_path / "config.json")
    (voice / "flow.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"flow\.pt: changed"):
        install.install(voice, tmp_path / "config.json")
    assert not (tmp_path / "config.json").exists()


def test_replacing_puts_the_new_bundle_in_place(tmp_path: Path) -> None:
    destination = fill(tmp_path / "voice", content=b"old")
    with replacing(destination) as root:
        fill(root, content=b"new")
        assert (destination / "llm.pt").read_bytes() == b"old"
    assert (destination / "llm.pt").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["voice"]


def test_replacing_that_fails_leaves_the_former_bundle(tmp_path: Path) -> None:
    destination = fill(tmp_path / "voice", content=b"old")
    with pytest.raises(RuntimeError), replacing(destination) as root:
        (root / "llm.pt").write_bytes(b"half")
        raise RuntimeError
    assert bundle.check(destination).ok
    assert [path.name for path in tmp_path.iterdir()] == ["voice"]


def test_replacing_mends_a_run_that_was_killed_between_the_renames(tmp_path: Path) -> None:
    fill(tmp_path / "voice", content=b"old").rename(tmp_path / ".voice.former")
    with pytest.raises(RuntimeError), replacing(tmp_path / "voice"):
        raise RuntimeError
    assert (tmp_path / "voice" / "llm.pt").read_bytes() == b"old"


def test_replacing_keeps_what_a_user_put_into_the_bundle(tmp_path: Path) -> None:
    destination = fill(tmp_path / "voice", content=b"old")
    for number in (1, 2):
        (destination / "notes.txt").write_text(f"mine {number}")
        with replacing(destination) as root:
            fill(root, content=b"new")
        kept = tmp_path / f"voice.former-{number}"
        assert (kept / "notes.txt").read_text() == f"mine {number}"


def test_replacing_refuses_a_directory_that_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "voice").mkdir()
    (tmp_path / "voice" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not a voice bundle"), replacing(tmp_path / "voice"):
        pass
    assert (tmp_path / "voice" / "thesis.txt").read_text() == "mine"
