"""The real base's download from a hub on loopback that breaks in every way: whole and right, or not used, and why."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from filelock import FileLock
from huggingface_hub import constants
from huggingface_hub.utils import reset_sessions
from modelscope_hub import _download as modelscope_download
from pydantic import ValidationError

import model_hub
from cosytune import base, files
from cosytune.base import download, verify
from cosytune.errors import UserError
from cosytune.families import Published
from cosytune.layout import ROOT, Layout
from cosytune.schema import Config, DownloadConfig
from cosytune.stages import setup
from cosytune.stages.runner import Context
from model_hub import Fault, Hub

Hubs = Literal["huggingface", "modelscope"]
CONTENTS = model_hub.contents()
FAMILY = model_hub.family(CONTENTS)
SMALL_FILE = "CosyVoice-BlankEN/vocab.json"
both = pytest.mark.parametrize("source", ["huggingface", "modelscope"])
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Who was called; whoever is not on this machine is refused and fails the test, even if the client says nothing."""
    called: list[str] = []
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def checked_connect(self: socket.socket, address: Any) -> None:
        called.append(str(address[0]))
        if address[0] != "127.0.0.1":
            raise ConnectionRefusedError(f"off this machine: {address}")
        connect(self, address)

    def checked_look_up(host: Any, *rest: Any, **more: Any) -> Any:
        called.append(str(host))
        if host != "127.0.0.1":
            raise socket.gaierror(f"off this machine: {host}")
        return look_up(host, *rest, **more)

    monkeypatch.setattr(socket.socket, "connect", checked_connect)
    monkeypatch.setattr(socket, "getaddrinfo", checked_look_up)
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # as hubs says before the library is imported
    monkeypatch.setattr(modelscope_download, "DOWNLOAD_RETRY_TIMES", 1)
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda _: None))
    reset_sessions()
    yield called
    assert set(called) <= {"127.0.0.1"}


@pytest.fixture
def hub() -> Iterator[Hub]:
    """With two files that the family does not name."""
    with model_hub.serve(CONTENTS | {"README.md": b"# Small", "flow.decoder.estimator.fp32.onnx": b"x"}) as served:
        yield served


@pytest.fixture
def model_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where stage -1 looks for the family's model; not there yet."""
    for module in (base, verify):
        monkeypatch.setattr(module, "PRETRAINED_MODELS", tmp_path / "pretrained models")
    return tmp_path / "pretrained models" / FAMILY.title


def fetch(hub: Hub, source: Hubs, model_dir: Path, **settings: Any) -> None:
    download.fetch(FAMILY, DownloadConfig(source=source, endpoint=hub.url, **settings), model_dir)


def refused(hub: Hub, source: Hubs, model_dir: Path, **settings: Any) -> str:
    """The one line of an attempt that fails, after which the model is not there and nothing would use it."""
    with pytest.raises(UserError) as caught:
        fetch(hub, source, model_dir, **settings)
    assert not model_dir.exists()
    (message,) = caught.value.messages
    assert "\n" not in message
    return message


def found(model_dir: Path) -> dict[str, str]:
    paths = [path for path in model_dir.rglob("*") if path.is_file() and path.name != verify.RECORD]
    return {path.relative_to(model_dir).as_posix(): files.sha256(path) for path in paths}


def hashes(contents: dict[str, bytes]) -> dict[str, str]:
    """Of every file: megabytes that differ are no message to read."""
    return {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}


def unfinished(model_dir: Path) -> list[Path]:
    return list(model_dir.parent.rglob("*.incomplete"))


def altered(data: bytes) -> bytes:
    return data[:100] + bytes([data[100] ^ 1]) + data[101:]


@both
def test_the_named_files_come_whole_and_nothing_else(
    source: Hubs, hub: Hub, model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch(hub, source, model_dir)
    assert found(model_dir) == hashes(CONTENTS)
    assert {name for name, _ in hub.asked()} == set(CONTENTS)
    assert [path.name for path in model_dir.parent.iterdir() if path.is_dir()] == [FAMILY.title]
    output = capsys.readouterr().out
    revision = FAMILY.revision if source == "huggingface" else "master"
    assert f"Small: 3 files, 2 MB, from {hub.url}/" in output
    for name, data in CONTENTS.items():
        digest = hashlib.sha256(data).hexdigest()
        assert f"{name}: {len(data)} bytes, sha256 {digest}, revision {revision}" in output
    base.check(model_dir, FAMILY)
    requests = list(hub.requests)
    fetch(hub, source, model_dir)
    assert hub.requests == requests


@both
def test_a_cut_connection_is_taken_up_where_it_broke(source: Hubs, model_dir: Path) -> None:
    contents = model_hub.contents(21_000_000)  # Hugging Face's client writes 10 MB at a time
    with model_hub.serve(contents) as hub:
        hub.faults["llm.pt"] = [Fault(cut_after=15_000_000)]
        download.fetch(model_hub.family(contents), DownloadConfig(source=source, endpoint=hub.url), model_dir)
        assert [span is None for name, span in hub.asked() if name == "llm.pt"] == [True, False]
    assert found(model_dir) == hashes(contents)


@both
def test_a_connection_that_stays_cut_is_an_error_and_the_next_run_goes_on(source: Hubs, model_dir: Path) -> None:
    contents = model_hub.contents(21_000_000)
    family = model_hub.family(contents)
    with model_hub.serve(contents) as hub:
        settings = DownloadConfig(source=source, endpoint=hub.url)
        hub.faults["llm.pt"] = [Fault(cut_after=15_000_000), *[Fault(cut_after=0)] * 10]
        with pytest.raises(UserError, match=r"llm\.pt: the connection broke .* run the same command again"):
            download.fetch(family, settings, model_dir)
        assert not model_dir.exists()
        with pytest.raises(UserError, match="run stage -1"):
            base.check(model_dir, family)
        (beginning,) = unfinished(model_dir)
        begun = beginning.stat().st_size
        assert begun >= 10_000_000

        hub.faults.clear()
        hub.requests.clear()
        download.fetch(family, settings, model_dir)
        (first, *_) = [span for name, span in hub.asked() if name == "llm.pt"]
        assert first is not None and first.startswith(f"bytes={begun}-")
    assert found(model_dir) == hashes(contents)
    assert not unfinished(model_dir)


@both
@pytest.mark.parametrize("harm", ["flipped", "longer than the file"])
def test_a_beginning_that_was_spoilt_is_not_used(source: Hubs, harm: str, model_dir: Path) -> None:
    contents = model_hub.contents(11_000_000)
    family = model_hub.family(contents)
    with model_hub.serve(contents) as hub:
        settings = DownloadConfig(source=source, endpoint=hub.url)
        hub.faults["llm.pt"] = [Fault(cut_after=10_900_000), *[Fault(cut_after=0)] * 10]
        with pytest.raises(UserError):
            download.fetch(family, settings, model_dir)
        (beginning,) = unfinished(model_dir)
        data = beginning.read_bytes()
        beginning.write_bytes(altered(data) if harm == "flipped" else data + bytes(2_000_000))
        hub.faults.clear()
        if harm == "flipped" or source == "huggingface":  # ModelScope's client starts over by itself
            with pytest.raises(UserError, match=r"llm\.pt: (not the published file|answered 416)"):
                download.fetch(family, settings, model_dir)
            assert not model_dir.exists()
        download.fetch(family, settings, model_dir)
    assert found(model_dir) == hashes(contents)


@both
def test_wrong_bytes_are_thrown_away(source: Hubs, hub: Hub, model_dir: Path) -> None:
    hub.contents["llm.pt"] = altered(CONTENTS["llm.pt"])
    message = refused(hub, source, model_dir)
    expected = hashlib.sha256(CONTENTS["llm.pt"]).hexdigest()[:12]
    assert f"{hub.url}/" in message
    assert "llm.pt: not the published file (sha256 " in message
    assert f"expected {expected}" in message
    assert "download.source=" in message
    hub.contents["llm.pt"] = CONTENTS["llm.pt"]
    fetch(hub, source, model_dir)
    assert found(model_dir) == hashes(CONTENTS)


@both
@pytest.mark.parametrize("size", [1_999_999, 2_000_001])
def test_a_wrong_size_is_thrown_away(size: int, source: Hubs, hub: Hub, model_dir: Path) -> None:
    hub.contents["llm.pt"] = (CONTENTS["llm.pt"] + b"x")[:size]
    assert f"llm.pt: {size} bytes, the published file has 2000000; it was not used" in refused(hub, source, model_dir)


@both
def test_a_file_that_is_not_there(source: Hubs, hub: Hub, model_dir: Path) -> None:
    del hub.contents["flow.pt"]
    message = refused(hub, source, model_dir)
    assert "flow.pt: no such file at " in message
    assert "(404); mend download.revision" in message


@both
def test_a_revision_that_is_not_there(source: Hubs, hub: Hub, model_dir: Path) -> None:
    message = refused(hub, source, model_dir, revision="f" * 40)
    assert ("no revision " if source == "huggingface" else "no such file at ") + "f" * 40 in message
    assert "mend download.revision" in message


@both
@pytest.mark.parametrize(("status", "said"), [(403, "not open to you (403)"), (503, "answered 503; try")])
def test_a_hub_that_refuses(status: int, said: str, source: Hubs, hub: Hub, model_dir: Path) -> None:
    hub.faults["llm.pt"] = [Fault(status=status)] * 20
    assert f"llm.pt: {said}" in refused(hub, source, model_dir).replace("not there, or ", "")


@both
def test_a_hub_that_is_not_there(source: Hubs, hub: Hub, model_dir: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        message = refused(replace(hub, url=url), source, model_dir)
    assert url in message
    assert "the connection broke or never stood" in message


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    place = tmp_path / "small disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@both
def test_a_disk_that_is_too_small_is_found_before_anything_is_asked(
    source: Hubs, hub: Hub, model_dir: Path, small_disk: Path
) -> None:
    (small_disk / "other").write_bytes(bytes(2_000_000))
    model_dir.parent.symlink_to(small_disk)
    message = refused(hub, source, model_dir)
    assert "1 MB free, the download needs 2 MB; free some disk space" in message
    assert not hub.requests


@both
def test_a_disk_that_fills_up_on_the_way(source: Hubs, hub: Hub, model_dir: Path, small_disk: Path) -> None:
    """Somebody else writes to it meanwhile."""
    model_dir.parent.symlink_to(small_disk)
    other = small_disk / "other"

    def fill() -> None:
        with other.open("wb", buffering=0) as stream:
            while True:
                try:
                    stream.write(bytes(4096))
                except OSError:
                    return

    hub.faults["llm.pt"] = [Fault(before=fill)]
    message = refused(hub, source, model_dir)
    assert "no disk space left; free some" in message
    assert "run the same command again" in message
    other.unlink()
    fetch(hub, source, model_dir)
    assert found(model_dir) == hashes(CONTENTS)


@both
def test_a_limit_of_the_shell_on_the_size_of_files(source: Hubs, hub: Hub, model_dir: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        message = refused(hub, source, model_dir)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "raise it (ulimit -f unlimited) and run the same command again" in message
    fetch(hub, source, model_dir)
    assert found(model_dir) == hashes(CONTENTS)


@both
def test_offline_opens_no_connection_and_says_what_is_missing(
    source: Hubs, hub: Hub, model_dir: Path, connections: list[str]
) -> None:
    model_dir.mkdir(parents=True)
    (model_dir / "flow.pt").write_bytes(CONTENTS["flow.pt"])
    with pytest.raises(UserError) as caught:
        fetch(hub, source, model_dir, offline=True)
    *missing, remedy = caught.value.messages
    assert missing == [f"{model_dir / name}: missing" for name in ("llm.pt", SMALL_FILE)]
    assert remedy.startswith("download.offline = true: nothing is downloaded; ")
    assert "download.source=path download.path=DIR" in remedy
    assert not connections
    assert set(found(model_dir)) == {"flow.pt"}


def alone(source: Hubs, model_dir: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The download in a process of its own, for the libraries read their environment when they are imported."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "MODELSCOPE_"))}
    paths = os.pathsep.join([str(ROOT / "tools"), str(ROOT / "tests")])
    command = [sys.executable, "-m", "model_hub", source, str(model_dir)]
    return subprocess.run(command, env=kept | {"PYTHONPATH": paths} | environment, capture_output=True, text=True)


@both
def test_the_environment_says_offline(source: Hubs, hub: Hub, tmp_path: Path) -> None:
    result = alone(source, tmp_path / "m", HF_HUB_OFFLINE="1", HF_ENDPOINT=hub.url, MODELSCOPE_ENDPOINT=hub.url)
    assert result.returncode == 1
    assert "error: HF_HUB_OFFLINE=1: nothing is downloaded" in result.stderr
    assert f"error: {tmp_path / 'm' / 'llm.pt'}: missing" in result.stderr
    assert not hub.requests
    assert "off this machine" not in result.stdout


@both
def test_the_environment_names_a_mirror(source: Hubs, hub: Hub, tmp_path: Path) -> None:
    """Which offers Xet, too; by HTTP a broken file goes on, by Xet it would begin anew."""
    result = alone(source, tmp_path / "m", HF_ENDPOINT=hub.url, MODELSCOPE_ENDPOINT=hub.url)
    assert result.returncode == 0, result.stderr
    assert found(tmp_path / "m") == hashes(CONTENTS)
    assert not [path for _, path, _ in hub.requests if "xet" in path]
    assert "off this machine" not in result.stdout


@both
def test_the_environment_names_a_proxy(source: Hubs, hub: Hub, tmp_path: Path) -> None:
    nowhere = "http://hub.example.invalid"
    result = alone(
        source, tmp_path / "m", HF_ENDPOINT=nowhere, MODELSCOPE_ENDPOINT=nowhere, http_proxy=hub.url, no_proxy=""
    )
    assert result.returncode == 0, result.stderr
    assert found(tmp_path / "m") == hashes(CONTENTS)
    assert f"from {nowhere}/" in result.stdout
    assert "off this machine" not in result.stdout


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A copy that the user has, on a stick for example."""
    place = tmp_path / "my copy"
    for name, data in CONTENTS.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    return place


def test_a_directory_instead_of_a_hub(directory: Path, model_dir: Path, connections: list[str]) -> None:
    download.fetch(FAMILY, DownloadConfig(source="path", path=str(directory), offline=True), model_dir)
    assert found(model_dir) == found(directory) == hashes(CONTENTS)
    assert not connections
    base.check(model_dir, FAMILY)


def test_a_directory_without_some_of_the_files(directory: Path, model_dir: Path) -> None:
    (directory / "llm.pt").unlink()
    (directory / SMALL_FILE).unlink()
    with pytest.raises(UserError) as caught:
        download.fetch(FAMILY, DownloadConfig(source="path", path=str(directory)), model_dir)
    assert [message.split("; ")[0] for message in caught.value.messages] == [
        f"{directory / name}: missing" for name in ("llm.pt", SMALL_FILE)
    ]
    assert not model_dir.exists()


def test_a_directory_with_wrong_bytes(directory: Path, model_dir: Path) -> None:
    (directory / "llm.pt").write_bytes(altered(CONTENTS["llm.pt"]))
    with pytest.raises(UserError, match=r"my copy: llm\.pt: not the published file"):
        download.fetch(FAMILY, DownloadConfig(source="path", path=str(directory)), model_dir)
    assert not model_dir.exists()
    assert files.sha256(directory / "llm.pt") == hashlib.sha256(altered(CONTENTS["llm.pt"])).hexdigest()


@both
def test_an_unknown_hash_is_recorded_and_compared_ever_after(
    source: Hubs, hub: Hub, model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    family = replace(FAMILY, published={**FAMILY.published, "llm.pt": Published(2_000_000, None)})
    settings = DownloadConfig(source=source, endpoint=hub.url)
    digest = hashlib.sha256(CONTENTS["llm.pt"]).hexdigest()
    download.fetch(family, settings, model_dir)
    assert f"llm.pt: 2000000 bytes, sha256 {digest} (not known before, recorded)" in capsys.readouterr().out
    base.check(model_dir, family)
    assert base.hashes(model_dir)["llm.pt"] == digest

    (model_dir / "llm.pt").write_bytes(altered(CONTENTS["llm.pt"]))
    with pytest.raises(UserError, match=r"llm\.pt: not as it was .* delete the file and run stage -1"):
        base.check(model_dir, family)
    (model_dir / "llm.pt").unlink()
    hub.contents["llm.pt"] = altered(CONTENTS["llm.pt"])
    with pytest.raises(UserError, match=rf"llm\.pt: not the published file .* expected {digest[:12]}"):
        download.fetch(family, settings, model_dir)
    assert not (model_dir / "llm.pt").exists()

    hub.contents["llm.pt"] = CONTENTS["llm.pt"]
    download.fetch(family, settings, model_dir)
    base.check(model_dir, family)
    assert "recorded" not in capsys.readouterr().out


@both
def test_what_is_there_is_neither_fetched_nor_touched(source: Hubs, hub: Hub, model_dir: Path) -> None:
    """A file with wrong bytes, too: the check names it."""
    model_dir.mkdir(parents=True)
    own = {"flow.pt": altered(CONTENTS["flow.pt"]), "notes.txt": b"mine"}
    for name, data in own.items():
        (model_dir / name).write_bytes(data)
    before = {name: (model_dir / name).stat() for name in own}
    fetch(hub, source, model_dir)
    assert {name: (model_dir / name).stat() for name in own} == before
    assert found(model_dir) == hashes(CONTENTS | own)
    assert "flow.pt" not in {name for name, _ in hub.asked()}
    with pytest.raises(UserError, match=r"flow\.pt: not as it was .* delete the file and run stage -1"):
        base.check(model_dir, FAMILY)


@both
def test_what_is_in_the_way_stops_it_before_anything_is_asked(source: Hubs, hub: Hub, model_dir: Path) -> None:
    (model_dir / "llm.pt").mkdir(parents=True)
    (model_dir / "flow.pt").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError) as caught:
        fetch(hub, source, model_dir)
    assert caught.value.messages == (
        f"{model_dir / 'llm.pt'}: in the way, and no file; move it away",
        f"{model_dir / 'flow.pt'}: 43 bytes, the published file has 5000; move it away",
    )
    assert not hub.requests
    assert (model_dir / "flow.pt").stat().st_size == 43


def test_two_recipes_at_once_download_it_once(
    hub: Hub, directory: Path, model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model_dir.parent.mkdir()
    said = threading.Event()
    with FileLock(model_dir.parent / f".{FAMILY.title}.lock"):
        second = threading.Thread(target=fetch, args=(hub, "huggingface", model_dir))
        second.start()
        for _ in range(200):
            if "another process downloads it" in capsys.readouterr().out:
                said.set()
                break
            said.wait(0.05)
        shutil.copytree(directory, model_dir)
    second.join(timeout=30)
    assert said.is_set()
    assert not second.is_alive()
    assert not hub.requests


@both
def test_stage_minus_1_downloads_what_is_missing_and_checks_it(
    source: Hubs, hub: Hub, model_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup.tree, "ensure", lambda _: Path("CosyVoice"))
    for module in (setup, base):
        monkeypatch.setattr(module.families, "get", lambda _: FAMILY)  # type: ignore[attr-defined]
    config = Config(base="real", download=DownloadConfig(source=source, endpoint=hub.url))
    context = Context(config, Layout(model_dir.parent), again=False)
    setup.work(context)
    assert "base model: Small, every file as it should be" in capsys.readouterr().out
    assert base.hashes(model_dir).keys() == CONTENTS.keys()
    assert base.file(config, "llm.pt") == model_dir / "llm.pt"

    requests = list(hub.requests)
    own = config.model_copy(update={"model_dir": str(model_dir.parent / "mine")})
    with pytest.raises(UserError, match=r"mine: the base model is not there; leave model_dir out"):
        setup.work(replace(context, config=own))
    assert hub.requests == requests


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"source": "path"}, "set both or neither"),
        ({"path": "/data"}, "set both or neither"),
        ({"source": "path", "path": "/data", "revision": "main"}, "no endpoint and no revision"),
        ({"endpoint": "hub.example.org"}, "hub.example.org is no URL"),
        ({"source": "ftp"}, "huggingface"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        DownloadConfig(**settings)
