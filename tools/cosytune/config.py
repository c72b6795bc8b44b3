"""Layers of settings -> one checked, frozen config.

    python -m cosytune.config egs/demo --exp default seed=7      # prints the path of exp/default/config.yaml

Layers: the schema's defaults < the preset that `hardware` names < conf.yaml < key=value. All errors are reported at
once; an unknown key is answered with what it is called here, or with the nearest right name. A run that starts after
stage -1 continues its experiment: it keeps the key=value settings of the run before. A key that a finished stage used
may change only in a run that runs this stage again.
"""

from __future__ import annotations

import argparse
import difflib
import re
import shlex
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from cosytune import families, files, locks, otherwise, presets
from cosytune.errors import UserError, run_main
from cosytune.layout import ROOT, Layout
from cosytune.record import Change, Record, flatten
from cosytune.schema import Config
from cosytune.stages import STAGES, Stage
from cosytune.training import nodes

_USAGE = 2
_PATIENCE_S = 0.5  # the review page holds the lock for milliseconds, a stage for minutes


def load(path: Path) -> tuple[Config, Layout]:
    """The frozen config of a run and the paths of its recipe. Every stage starts here."""
    if not path.is_file():
        raise UserError(f"{path}: no such config; run ./run.sh, which writes it")
    path = path.absolute()
    return parse(_read_yaml(path), str(path)), Layout(recipe=path.parents[2], exp=path.parent.name)


def parse(values: Mapping[str, Any], source: str, overrides: Mapping[str, Any] | None = None) -> Config:
    """Check raw values against the schema; raises one UserError that lists every mistake.

    `source` is what the values come from; those that `overrides` names come from the command line.
    """
    try:
        config = Config.model_validate(dict(values))
    except ValidationError as failure:
        messages: dict[str, str] = {}
        for error in failure.errors(include_url=False):
            key, message = _explain(error)
            is_typed = overrides is not None and _has(overrides, key)
            place = "command line" if is_typed else source
            if error["type"] == "list_type" and isinstance(error["input"], str):
                message = f"write {_as_list(key, error['input'], is_typed)}"
            start = f"{place}: {key} = {error['input']!r}: " if error["type"] != "extra_forbidden" else f"{place}: "
            # A value of several types fails once for each of them.
            messages[key] = f"{messages[key]}, or {message}" if key in messages else start + message
        raise UserError(*messages.values(), exit_status=_USAGE) from None
    rate_hz, wanted_hz = config.audio.sample_rate_hz, families.get(config.model).sample_rate_hz
    if rate_hz != wanted_hz:  # training would take every frame for one of another length and pitch
        place = "command line" if overrides and _has(overrides, "audio.sample_rate_hz") else source
        remedy = f"{config.model} hears {wanted_hz} Hz; leave the key out"
        raise UserError(f"{place}: audio.sample_rate_hz = {rate_hz}: {remedy}", exit_status=_USAGE)
    return config


def merge(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Later layers win, key by key; lists and scalars are replaced whole."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            below = merged.get(key)
            merged[key] = merge([below, value]) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return merged


def parse_override(override: str) -> dict[str, Any]:
    """`train.llm.learning_rate=5e-5` -> a nested mapping; the value is read as YAML, `1e-4` as a number.

    Where the schema wants text, `speaker=007` and `description=my voice: calm` are text.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"'{override}': not a setting; write key=value, for example base=tiny", exit_status=_USAGE)
    value: Any = text if _wants_text(key, text) else _scalar(text, override)
    for part in reversed(key.split(".")):
        value = {part: value}
    return typing.cast(dict[str, Any], value)


def freeze(recipe: Path, exp: str, overrides: Sequence[str], first: int, last: int) -> Path:
    """Merge, check, compare with what finished stages used, write `exp/<name>/config.yaml`; return its path.

    Writes nothing while a stage is at work, whose run reads this file again. A run between two stages is not seen.
    """
    layout = Layout(recipe=find_recipe(recipe), exp=checked_name(exp))
    kept = _kept_overrides(layout, overrides) if first > STAGES[0].number else []
    if kept:
        print(f"continuing {exp}: keeps {' '.join(kept)} from the run before", file=sys.stderr)
    given = [*kept, *overrides]
    config = read_recipe(layout, given)
    nodes.refuse_other_stages(config.train, first, last)
    _refuse_stale_stages(layout, config, first, last)
    text = yaml.safe_dump(config.model_dump(mode="json"), allow_unicode=True, sort_keys=False)
    is_shared = config.train.launcher != "auto"  # each node writes the same, and the first may be in its stage already
    try:
        if not (is_shared and _is_frozen(layout, text, given)):
            _write(layout, text, given)
    except UserError:
        if not (is_shared and _is_frozen(layout, text, given)):
            raise
    return layout.config


def _write(layout: Layout, text: str, given: Sequence[str]) -> None:
    places = sorted({Record.path(layout, stage).parent for stage in STAGES})
    with locks.nobody_else(layout.recipe, *places, patience_s=_PATIENCE_S):
        files.write_text(layout.config, text)
        files.write_json(_overrides_file(layout), list(given))


def _is_frozen(layout: Layout, text: str, given: Sequence[str]) -> bool:
    """Whether another node has written the same."""
    try:
        return layout.config.read_text(encoding="utf-8") == text and files.read_json(_overrides_file(layout)) == given
    except (OSError, ValueError):
        return False


def read_recipe(layout: Layout, overrides: Sequence[str] = ()) -> Config:
    """The preset, `conf.yaml` and the command line above the defaults, checked."""
    overriding = merge([parse_override(item) for item in overrides])
    source = layout.conf.relative_to(ROOT) if layout.conf.is_relative_to(ROOT) else layout.conf
    given = merge([_read_yaml(layout.conf), overriding])
    return parse(merge([_preset(given), given]), str(source), overriding)


def _preset(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the preset that `given` names, less what it says in other words; none for a name that is none."""
    name = given.get("hardware")
    if name not in presets.names():
        return {}  # auto, or a mistake, which the schema finds
    values = _read_yaml(presets.path(name))
    training = given.get("train")
    for module, settings in values["train"].items():
        asked = training.get(module) if isinstance(training, Mapping) else None
        for key, others in _SAY_IT_TOO.items():
            if isinstance(asked, Mapping) and any(asked.get(other, "auto") not in ("auto", False) for other in others):
                settings.pop(key, None)
    return values


_SAY_IT_TOO = {"gradient_accumulation_steps": ["tokens_per_update"], "bf16": ["fp16"], "fp16": ["bf16"]}
"""Settings of a preset that give way when one of the others is set by hand: both at once would be a contradiction."""


def find_recipe(given: Path) -> Path:
    """The recipe's directory: `given` as seen from the working directory, else from the repository's root."""
    for path in (given, ROOT / given):
        if (path / "conf.yaml").is_file():
            return path.resolve()
    have = sorted(path.parent.name for path in (ROOT / "egs").glob("*/conf.yaml") if path.parent.name != "TEMPLATE")
    raise UserError(
        f"{given}: no recipe there (no conf.yaml); make one with cp -r egs/TEMPLATE egs/NAME; "
        f"egs/ has {', '.join(have) or 'none yet'}",
        exit_status=_USAGE,
    )


def checked_name(exp: str) -> str:
    if re.fullmatch(r"[^\W_][\w.+ -]*", exp):
        return exp
    raise UserError(f"--exp {exp!r}: not a directory's name; use letters, digits and _ . + -", exit_status=_USAGE)


def _overrides_file(layout: Layout) -> Path:
    return layout.exp_dir / "overrides.json"


def _kept_overrides(layout: Layout, overrides: Sequence[str]) -> list[str]:
    path = _overrides_file(layout)
    if not path.is_file():
        return []
    given = {item.partition("=")[0] for item in overrides}
    return [item for item in files.read_json(path) if item.partition("=")[0] not in given]


def _refuse_stale_stages(layout: Layout, config: Config, first: int, last: int) -> None:
    """A finished stage outside first..last must have been run with the settings of now."""
    users: dict[Change, list[Stage]] = {}
    for stage in STAGES:
        record = Record.read(layout, stage)
        if record is None or first <= stage.number <= last:
            continue
        for change in record.changed_settings(flatten(config, stage.uses)):
            users.setdefault(change, []).append(stage)
    if users:
        messages = [_stale(change, stages, first, last) for change, stages in users.items()]
        raise UserError(*messages, exit_status=_USAGE)


def _stale(change: Change, stages: Sequence[Stage], first: int, last: int) -> str:
    """What changed, who has used it, and the two or three ways out."""
    named = ", ".join(f"{stage.number} ({stage.name})" for stage in stages)
    used = f"which stages {named} have used" if len(stages) > 1 else f"which stage {named} has used"
    again = []
    if stages[0].number < first:
        again.append(f"--stage {stages[0].number}")
    if stages[-1].number > last:
        again.append(f"--stop_stage {stages[-1].number}")
    another_exp = "" if any(stage.is_shared for stage in stages) else ", or take another --exp name"
    return f"{change}, {used}; keep it with {change.restoring}, or run again with {' '.join(again)}{another_exp}"


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506
    except (yaml.YAMLError, ValueError) as failure:  # ValueError: another encoding, or a date such as 2026-13-45
        raise UserError(f"{path}: not readable as YAML: {' '.join(str(failure).split())}", exit_status=_USAGE) from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected 'key: value' lines, found {type(values).__name__}", exit_status=_USAGE)
    return values


class _Loader(yaml.SafeLoader):
    """SafeLoader (so the checks for unsafe ones are off) that reads 1e-4 as a number (YAML 1.1 asks for a dot).

    A key that stands twice is an error: YAML itself would silently take the last.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for twice in {key for key in keys if keys.count(key) > 1}:
            raise yaml.constructor.ConstructorError(None, None, f"the key '{twice}' stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def _scalar(text: str, override: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506
    except (yaml.YAMLError, ValueError):
        raise UserError(f"'{override}': the value is not readable as YAML; quote it", exit_status=_USAGE) from None


def _wants_text(key: str, text: str) -> bool:
    """Whether `text` is to be taken as it is: the setting is a text, and YAML reads something else in it."""
    kinds: Any = Config
    for part in key.split("."):
        field = kinds.model_fields.get(part) if isinstance(kinds, type) and issubclass(kinds, BaseModel) else None
        if field is None:
            return False
        kinds = field.annotation
    is_union = typing.get_origin(kinds) in (types.UnionType, typing.Union)  # list[str] has str in it, too
    if kinds is not str and not (is_union and str in typing.get_args(kinds)):
        return False
    try:
        return text != "" and not isinstance(yaml.load(text, Loader=_Loader), str)  # noqa: S506
    except (yaml.YAMLError, ValueError):
        return True


def _explain(error: Any) -> tuple[str, str]:
    """The key of one pydantic error, and what would be right in its place."""
    location = [str(part) for part in error["loc"]]
    known = _all_keys(Config)
    if error["type"] == "extra_forbidden":
        key = ".".join(location)
        if advice := otherwise.called_here(location):
            return key, f"unknown key '{key}': {advice}"
        # `lerning_rate` alone and `train.lm.learning_rate` are both meant to be found.
        tails = {name.rpartition(".")[2]: name for name in reversed(known)}
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.75) or [
            tails[tail] for tail in difflib.get_close_matches(location[-1], tails, n=1, cutoff=0.0)
        ]
        return key, f"unknown key '{key}'; did you mean '{near[0]}'?"
    while location and ".".join(location) not in known:
        location.pop()  # pydantic adds the types that it tried and the places in a list
    message = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if error["type"] == "string_type":
        message += '; put it in quotes: "..."'
    return ".".join(location), message


def _as_list(key: str, text: str, is_typed: bool) -> str:
    """The setting as a list of this one text: as a command line has it, or as a line of conf.yaml."""
    value = yaml.safe_dump([text], default_flow_style=True, allow_unicode=True, width=2 * len(text) + 80).strip()
    typed = f"{key}={value}" if re.fullmatch(r"[^\s'\"]+", value) else shlex.quote(f"{key}={value}")
    return typed if is_typed else f"{key.rpartition('.')[2]}: {value}"


def _has(values: Mapping[str, Any], key: str) -> bool:
    """Whether the nested mapping sets the dotted key."""
    value: Any = values
    for part in key.split("."):
        if not isinstance(value, Mapping):
            return True  # a whole section was replaced by a scalar
        if part not in value:
            return False
        value = value[part]
    return True


def _all_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        inner = field.annotation
        if isinstance(inner, type) and not isinstance(inner, types.GenericAlias) and issubclass(inner, BaseModel):
            keys += _all_keys(inner, f"{prefix}{name}.")
    return keys


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--exp", default="default")
    parser.add_argument("--stage", type=int, default=STAGES[0].number)
    parser.add_argument("--stop_stage", type=int, default=STAGES[-1].number)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_intermixed_args()
    print(freeze(arguments.recipe, arguments.exp, arguments.overrides, arguments.stage, arguments.stop_stage))
    return 0


if __name__ == "__main__":
    run_main(main)
