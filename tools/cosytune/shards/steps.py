"""The steps by name; their libraries are loaded when one is asked for."""

from __future__ import annotations

import importlib
from typing import cast

from cosytune.errors import UserError
from cosytune.shards.step import Step

_MODULES = {"hear": "recordings", "clips": "recordings", "embed": "features", "tokenize": "features"}
NAMES = tuple(_MODULES)


def get(name: str) -> Step:
    if name not in _MODULES:
        raise UserError(f"'{name}': no such step; there are {', '.join(NAMES)}", exit_status=2)
    return cast(Step, getattr(importlib.import_module(f"cosytune.shards.{_MODULES[name]}"), name.upper()))
