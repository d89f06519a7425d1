"""Every measured quantity once: its key in records and tables, its label, its unit, and which way is better.

Tables and files hold the quantity in the package's units (eV, Å); figures and reports show `value *
display_factor` in `display_unit`. No torch here: the analysis side reads this file too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Quantity:
    """One measured quantity.

    `display_unit` and `display_factor` say how people read it: meV/Å rather than eV/Å.
    """

    key: str
    label: str
    unit: str
    better: Literal["lower", "higher", "none"] = "none"
    display_unit: str = ""
    display_factor: float = 1.0
    is_time: bool = False
    """True for wall and CPU times: the only columns of a runs table that two identical runs may differ in."""

    @property
    def axis(self) -> str:
        """The label with its display unit, as an axis carries it."""
        shown = self.display_unit or self.unit
        return f"{self.label} ({shown})" if shown else self.label


def _errors(prefix: str, name: str) -> list[Quantity]:
    def error(key: str, label: str, unit: str) -> Quantity:
        return Quantity(
            f"{prefix}_{key}",
            f"{name} {label}",
            unit,
            better="lower",
            display_unit=f"m{unit}",
            display_factor=1e3,
        )

    return [
        error("force_rmse", "force RMSE", "eV/Å"),
        error("force_mae", "force MAE", "eV/Å"),
        error("energy_rmse", "energy RMSE", "eV"),
        error("energy_mae", "energy MAE", "eV"),
        error("energy_mae_per_atom", "energy MAE per atom", "eV"),
    ]


_ALL = [
    *_errors("val", "validation"),
    *_errors("test", "test"),
    Quantity("n_params", "trainable parameters N", ""),
    Quantity("n_params_equivariant", "equivariant parameters", ""),
    Quantity("n_params_scalar", "scalar parameters", ""),
    Quantity("n_params_target", "requested parameters", ""),
    Quantity("n_frames", "labelled training frames D", ""),
    Quantity("steps", "optimiser steps", ""),
    Quantity("epochs", "passes over the training frames", ""),
    Quantity("samples", "frames seen in training", ""),
    Quantity("batch_size", "frames per step", ""),
    Quantity("learning_rate", "peak learning rate", ""),
    Quantity("flops_per_step", "training FLOPs per step", "FLOP"),
    Quantity("flops_elementwise_per_step", "elementwise and scatter operations per step", "FLOP"),
    Quantity("flops_train", "training FLOPs C", "FLOP"),
    Quantity("flops_inference_per_frame", "inference FLOPs per frame", "FLOP"),
    Quantity("seconds_train", "training time", "s", is_time=True),
    Quantity("cpu_seconds_train", "training CPU time", "s", is_time=True),
    Quantity("seconds_total", "time of the point", "s", is_time=True),
]

QUANTITIES: dict[str, Quantity] = {q.key: q for q in _ALL}
"""All known quantities by key."""


def quantity(key: str) -> Quantity:
    """The quantity called `key`; ValueError with the nearest known key otherwise."""
    if key in QUANTITIES:
        return QUANTITIES[key]
    named = re.fullmatch(r"(test_[A-Za-z0-9]+)_((?:force|energy)_\w+)", key)
    if named:  # further test sets, as in test_600K_force_mae
        found = {q.key: q for q in _errors(named[1], named[1].replace("_", " "))}
        if key in found:
            return found[key]
    from difflib import get_close_matches

    near = get_close_matches(key, QUANTITIES, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown quantity {key!r}{hint} known: {', '.join(QUANTITIES)}")
