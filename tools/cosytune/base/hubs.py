"""`config.download` -> how one published file gets from Hugging Face, ModelScope or a directory into one of ours.

The hubs' own libraries do the asking, the resuming and the retrying; here stand their two dialects and their errors.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from cosytune import files
from cosytune.errors import UserError
from cosytune.families import Family
from cosytune.layout import ROOT
from cosytune.schema import DownloadConfig

OTHERWISE = "another source: download.source=modelscope, or download.source=path download.path=DIR"
_REFUSED = (401, 403)


@dataclass(frozen=True)
class Source:
    """A place that has the files. `get(name, directory)` puts one there, or leaves its beginning in `*.incomplete`."""

    where: str
    revision: str | None
    """None: a directory has none."""
    get: Callable[[str, Path], None]
    errors: tuple[type[Exception], ...]
    """What `get` raises when it does not succeed."""


def source(family: Family, settings: DownloadConfig, names: Sequence[str]) -> Source:
    """Raises UserError when a directory has not all of `names`. No connection is opened before `get`."""
    if settings.source == "path":
        return _directory(ROOT / Path(settings.path or "").expanduser(), names)
    return (_huggingface if settings.source == "huggingface" else _modelscope)(family, settings)


def is_offline(settings: DownloadConfig) -> str | None:
    """The setting that forbids a connection; None when one may be opened."""
    if settings.offline:
        return "download.offline = true"
    return "HF_HUB_OFFLINE=1" if _constants().HF_HUB_OFFLINE else None


def explain(failure: Exception, source: Source, name: str) -> str:
    """What the hub said, and what may help, in a line."""
    place = f"{source.where}: {name}"
    for error in chain(failure):
        response = getattr(error, "response", None)
        status = getattr(response, "status_code", None) or getattr(error, "status_code", None)
        if status == 404 and getattr(response, "headers", {}).get("X-Error-Code") == "RevisionNotFound":
            return f"{place}: no revision {source.revision} there (404); mend download.revision, or take {OTHERWISE}"
        if status == 404:
            return f"{place}: no such file at {source.revision} (404); mend download.revision, or take {OTHERWISE}"
        if status in _REFUSED:
            return f"{place}: not there, or not open to you ({status}); log in to that hub, or take {OTHERWISE}"
        if status is not None:
            return f"{place}: answered {status}; try the same command later, or take {OTHERWISE}"
    deepest = chain(failure)[-1]
    said = (str(deepest).strip() or type(deepest).__name__).splitlines()[0]
    return (
        f"{place}: the connection broke or never stood ({said}); run the same command again, which goes on from what "
        f"has come; or take {OTHERWISE}"
    )


def chain(failure: BaseException) -> list[BaseException]:
    """The error, what it was raised from, and so on: the libraries wrap a full disk and a broken line alike."""
    errors: list[BaseException] = []
    error: BaseException | None = failure
    while error is not None and error not in errors:  # ModelScope's client raises one from itself
        errors.append(error)
        error = error.__cause__ or error.__context__
    return errors


def _huggingface(family: Family, settings: DownloadConfig) -> Source:
    endpoint = (settings.endpoint or _constants().ENDPOINT).rstrip("/")
    revision = settings.revision or family.revision

    def get(name: str, directory: Path) -> None:
        from huggingface_hub import hf_hub_download

        hf_hub_download(family.huggingface, name, revision=revision, endpoint=endpoint, local_dir=directory)

    return Source(f"{endpoint}/{family.huggingface}", revision, get, (OSError,))  # its errors are all OSErrors


def _modelscope(family: Family, settings: DownloadConfig) -> Source:
    from modelscope_hub import HubApi  # the package modelscope hands downloads to it, and takes 5 s to import
    from modelscope_hub.config import HubConfig
    from modelscope_hub.errors import HubError

    config = HubConfig(endpoint=settings.endpoint)
    revision = settings.revision or family.modelscope_revision

    def get(name: str, directory: Path) -> None:
        HubApi(config).download_file(
            family.modelscope, "model", name, revision=revision, local_dir=directory, cache_dir=directory
        )

    return Source(f"{config.endpoint}/models/{family.modelscope}", revision, get, (OSError, HubError))


def _directory(path: Path, names: Sequence[str]) -> Source:
    if missing := [name for name in names if not (path / name).is_file()]:
        remedy = "download.path has to name a directory with every file of the model"
        raise UserError(*(f"{path / name}: missing; {remedy}" for name in missing))

    def get(name: str, directory: Path) -> None:
        with files.atomic_path(directory / name) as temporary:
            shutil.copyfile(path / name, temporary)

    return Source(str(path), None, get, (OSError,))


def _constants() -> ModuleType:
    """Of huggingface_hub, which reads the environment when it is first imported."""
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")  # a broken Xet download begins anew, one by HTTP goes on
    from huggingface_hub import constants

    return constants
