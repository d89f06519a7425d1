"""What a measured quantity is: its key in records and tables, its label, its unit, and which way is better.

Tables and files hold a quantity in the package's units (eV, Å); figures and reports show
`value * display_factor` in `display_unit`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
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
    """True for times, and for what else depends on the machine: the only columns of a runs table that two
    identical runs may differ in."""
    split: str = ""
    """Of an error: the frames it was measured on, 'val', 'test', 'test_600K' or 'train'."""
    measure: str = ""
    """Of an error: its key without the split, `force_rmse`."""
    evaluation: str = ""
    """The evaluation that measures it on finished points; none where training does."""
    unit_of: str = ""
    """The key of the quantity whose unit it has, where that is not known before; with the places of `key`."""

    @property
    def on_validation(self) -> str:
        """The key of the same error on validation frames, by which settings are chosen; its own where
        training does not measure it on frames."""
        return f"val_{self.measure}" if self.split else self.key

    @property
    def on_test(self) -> str:
        """The key of the same error on test frames; its own where it is one already, or no error."""
        return f"test_{self.measure}" if self.split == "train" else self.key.replace("val_", "test_", 1)

    def filled(self, key: str) -> Quantity | None:
        """The quantity called `key`, where this one's key has places for words, as in
        '{split}_force_mae_{element}'; None where `key` is not of that form."""
        words = re.split(r"\{(\w+)\}", self.key)
        parts = [f"(?P<{w}>[A-Za-z0-9_]+)" if k % 2 else re.escape(w) for k, w in enumerate(words)]
        match = re.fullmatch("".join(parts), key)
        if match is None:
            return None
        label = self.label.format(**{k: v.replace("_", " ") for k, v in match.groupdict().items()})
        return replace(self, key=key, label=label, unit_of=self.unit_of.format(**match.groupdict()))

    @property
    def axis(self) -> str:
        """The label with its display unit, as an axis carries it."""
        shown = self.display_unit or self.unit
        return f"{self.label} ({shown})" if shown else self.label


@dataclass(frozen=True)
class Measure:
    """An error that is measured on several splits, a quantity on each of them."""

    key: str
    """Of the quantity, without the split: `force_rmse`."""
    label: str
    """As people read it: 'force RMSE'."""
    unit: str
    display_unit: str = ""
    display_factor: float = 1.0

    def quantity(self, split: str) -> Quantity:
        """The quantity of this measure on the frames of `split`: 'val', 'test', 'test_600K' or 'train'."""
        name = {"val": "validation", "train": "training"}.get(split) or split.replace("_", " ")
        return Quantity(
            f"{split}_{self.key}",
            f"{name} {self.label}",
            self.unit,
            better="lower",
            display_unit=self.display_unit,
            display_factor=self.display_factor,
            split=split,
            measure=self.key,
        )
