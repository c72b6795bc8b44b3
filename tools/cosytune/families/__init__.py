"""The name of a model family -> everything that is special about it, as data.

    python -c "from cosytune import families; print(families.get('cosyvoice2-0.5b').lora_targets)"

Nothing outside this package and the bridge knows how one family differs from another.
"""

from __future__ import annotations

from cosytune.errors import UserError
from cosytune.families.cosyvoice2 import COSYVOICE2
from cosytune.families.family import Family, FlowShape, LlmShape, Mel, Published, Shape, VocoderShape
from cosytune.families.spec import Apply, Name, New, Ref

__all__ = [
    "Apply",
    "Family",
    "FlowShape",
    "LlmShape",
    "Mel",
    "Name",
    "New",
    "Published",
    "Ref",
    "Shape",
    "VocoderShape",
    "get",
]

_FAMILIES = {family.name: family for family in (COSYVOICE2,)}


def get(name: str) -> Family:
    """The family of that name; raises UserError that lists the known ones."""
    if name not in _FAMILIES:
        raise UserError(f"model = {name}: unknown family; one of {', '.join(sorted(_FAMILIES))}", exit_status=2)
    return _FAMILIES[name]
