"""8 digits of 3 levels -> a table with a row for each of the 6,561 codes, of a tenth of the parameters.

A row is the sum of what its digits say and of a small correction of its own. So codes that were seldom heard have
sensible rows, and the shipped files hold the parts. Upstream's modules see an ordinary `weight`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

DIGITS, LEVELS = 8, 3
CODES = LEVELS**DIGITS
_RANK = 48
_MARK = ".parametrizations.weight.original"


class CodeTable(nn.Module):
    """digits [24, width], own [6561, 48], mixed [48, width], others [rows beyond the codes, width] -> the table."""

    features: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("features", digit_features(), persistent=False)

    def forward(self, digits: Tensor, own: Tensor, mixed: Tensor, others: Tensor) -> Tensor:
        return torch.cat([self.features @ digits + own @ mixed, others])

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Fresh random parts that make a table of about the given one's spread; its values are not kept."""
        width, spread = weight.shape[1], float(weight.std())
        digits = torch.randn(DIGITS * LEVELS, width) * spread / DIGITS**0.5
        own, mixed = torch.randn(CODES, _RANK) * 0.3, torch.randn(_RANK, width) * spread / _RANK**0.5
        return digits, own, mixed, weight[CODES:].detach().clone()


def digit_features() -> Tensor:
    """float32 [6561, 24]: which level each digit of a code has; the first digit counts least, as upstream's."""
    codes = torch.arange(CODES)
    levels = [(codes // LEVELS**digit) % LEVELS for digit in range(DIGITS)]
    return torch.cat([nn.functional.one_hot(level, LEVELS) for level in levels], dim=1).float()


def factor(module: nn.Module) -> None:
    """Let the `weight` of an embedding or of a linear layer over the codes be a `CodeTable`."""
    parametrize.register_parametrization(module, "weight", CodeTable(), unsafe=True)


def expand(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state_dict with tables in parts -> the one of upstream's plain module."""
    features = digit_features()
    plain = {key: value for key, value in state.items() if _MARK not in key}
    for first in (key for key in state if key.endswith(f"{_MARK}0")):
        name = first.removesuffix(f"{_MARK}0")
        digits, own, mixed, others = (state[f"{name}{_MARK}{number}"].float() for number in range(4))
        plain[f"{name}.weight"] = torch.cat([_product(features, digits) + _product(own, mixed), others])
    return plain


def _product(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right`, summed in one order: a matrix product's last bits depend on the machine, and files are hashed."""
    total = torch.zeros(len(left), right.shape[1])
    for number in range(len(right)):
        total += left[:, number : number + 1] * right[number]
    return total


def disturb(codes: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Give a random digit of a `share` of the codes a random level: what a model hears that speaks by drawing."""
    device = codes.device

    def draw(high: int) -> Tensor:
        return torch.randint(high, codes.shape, generator=generator, device=device)

    power = LEVELS ** draw(DIGITS)
    changed = codes + (draw(LEVELS) - (codes // power) % LEVELS) * power
    return torch.where(torch.rand(codes.shape, generator=generator, device=device) < share, changed, codes)
