"""Parts that several models share: constants kept in float64, linear maps with unit-variance weights, and
path lists of couplings.

Linear maps follow e3nn and NequIP: weights are drawn from N(0, 1) and divided by sqrt(fan-in) where they are
used, so that a step of Adam changes them by the same fraction at every width.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn


class Fixed:
    """A constant held in float64 and cast on first use, so that a model in float64 is exact. It is neither
    parameter nor state."""

    def __init__(self, value: Tensor) -> None:
        self.value = value
        self._cast: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def __call__(self, like: Tensor) -> Tensor:
        """The constant with the precision and device of `like`."""
        key = (like.dtype, like.device)
        if key not in self._cast:
            self._cast[key] = self.value.to(device=like.device, dtype=like.dtype)
        return self._cast[key]


def _gain(values: np.ndarray, weights: np.ndarray) -> float:
    return float(1 / math.sqrt((weights * values**2).sum() / weights.sum()))


_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(200)
SILU_GAIN = _gain(_NODES / (1 + np.exp(-_NODES)), _WEIGHTS)
"""1 / sqrt(E[silu(z)^2]) for z ~ N(0, 1)."""
SIGMOID_GAIN = _gain(1 / (1 + np.exp(-_NODES)), _WEIGHTS)
"""The same for the sigmoid."""


def unit_normal(*shape: int) -> nn.Parameter:
    """Weights from N(0, 1)."""
    return nn.Parameter(torch.randn(*shape))


def silu(x: Tensor) -> Tensor:
    """SiLU scaled to keep unit variance."""
    return nn.functional.silu(x) * SILU_GAIN


class Path(NamedTuple):
    """One coupling of degrees l1 x l2 -> l3."""

    l1: int
    l2: int
    l3: int


def paths(degrees_1: range, degrees_2: range, degrees_3: range) -> list[Path]:
    """All couplings of natural parity (l1 + l2 + l3 even), ordered by l3."""
    return [
        Path(a, b, c)
        for c in degrees_3
        for a in degrees_1
        for b in degrees_2
        if abs(a - b) <= c <= a + b and (a + b + c) % 2 == 0
    ]


@cache
def coupling(path: Path) -> Tensor:
    """Clebsch-Gordan tensor (2 l1 + 1, 2 l2 + 1, 2 l3 + 1), float64, from e3nn: components of unit variance
    in and out."""
    from e3nn import o3

    with torch.device("cpu"):
        return math.sqrt(2 * path.l3 + 1) * o3.wigner_3j(*path, dtype=torch.float64)


def block(l: int) -> slice:
    """Rows of degree l in a component axis."""
    return slice(l * l, (l + 1) ** 2)
