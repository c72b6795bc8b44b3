"""A voice bundle and a server's speaker_config.json -> the same file, with the voice's speakers added.

python -m cosytune.voice install egs/demo/voice --config /srv/tts/speaker_config.json
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from cosytune import files
from cosytune.errors import UserError
from cosytune.voice import bundle

_PATHS = ("llm_lora_model_path", "flow_lora_model_path", "spk_embedding_path", "reference_audio")


def install(root: Path, config: Path, make_default: bool = False) -> list[str]:
    """Add or replace the bundle's speakers, with absolute paths; return one line for each.

    Servers resolve relative paths from their own working directory. Other speakers and keys stay as they are. The
    former file is kept beside as `<name>.bak`; the new one replaces it in one rename.
    """
    voice = bundle.read(root)
    bundle.require_whole(root)
    if voice.weights("llm") is None:
        raise UserError(
            f"{root}: holds adapters alone, which servers cannot load; export with export.merged=true (--stage 6)"
        )
    config = config.resolve()  # a link stays a link: the file behind it is replaced
    server = _read(config)
    said = []
    for name, entry in voice.speakers.items():
        said.append(f"{'replaced' if name in server['speakers'] else 'added'} '{name}' in {config}")
        server["speakers"][name] = {**entry, **_absolute(voice.root, entry)}
    if make_default or not server.get("default_speaker"):
        server["default_speaker"] = voice.default_speaker
        said.append(f"default speaker: '{voice.default_speaker}'")
    _replace(config, server)
    return said


def _absolute(root: Path, entry: Any) -> dict[str, str]:
    return {key: str((root / entry[key]).resolve()) for key in _PATHS if entry.get(key)}


def _read(config: Path) -> dict[str, Any]:
    if config.is_dir():
        raise UserError(f"{config}: is a directory; name the file in it, such as {config / 'speaker_config.json'}")
    if not config.exists():
        if not config.parent.is_dir():
            raise UserError(f"{config.parent}: no such directory; name the server's own speaker_config.json")
        return {"speakers": {}, "default_speaker": ""}
    try:
        server = files.read_json(config)
    except (json.JSONDecodeError, UnicodeDecodeError) as failure:
        raise UserError(f"{config}: not readable as JSON ({failure}); mend it first") from None
    if not isinstance(server, dict) or not isinstance(server.get("speakers"), dict):
        raise UserError(f'{config}: not a speaker_config.json (no "speakers" object); name another file')
    return server


def _replace(config: Path, server: dict[str, Any]) -> None:
    former = config.stat().st_mode if config.exists() else None
    if former is not None:
        shutil.copy2(config, config.with_name(f"{config.name}.bak"))
    files.write_json(config, server)
    if former is not None:
        config.chmod(former)
