"""A figure with the numbers and the words that belong to it, and how the three are written to disk."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from sapis_lab.config import write_text
from sapis_lab.figures._style import RC


@dataclass(frozen=True)
class Drawing:
    """What a figure module returns."""

    figure: Figure
    numbers: pd.DataFrame
    """Every plotted number in long form, in display units; column `part` tells points, curves and bands apart."""
    caption: str
    """Plain sentences; every number in them is computed."""


def save(drawing: Drawing, folder: Path, *, name: str) -> list[Path]:
    """Write NAME.pdf, NAME.png (300 dpi), NAME.csv and NAME.txt. The same drawing gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {suffix: folder / f"{name}.{suffix}" for suffix in ("pdf", "png", "csv", "txt")}
    with mpl.rc_context(RC), _fixed_date():
        drawing.figure.draw_without_rendering()
        drawing.figure.set_layout_engine("none")  # placed once: both files then agree to the pixel, in half the time
        drawing.figure.savefig(paths["pdf"], metadata={"Creator": "sapis_lab", "Producer": None, "CreationDate": None})
        drawing.figure.savefig(paths["png"], dpi=300, metadata={"Software": None})
    write_text(paths["csv"], drawing.numbers.to_csv(index=False, lineterminator="\n"))
    write_text(paths["txt"], textwrap.fill(drawing.caption, width=110) + "\n")
    return list(paths.values())


@contextmanager
def _fixed_date() -> Iterator[None]:
    """Matplotlib stamps a PDF with the clock unless SOURCE_DATE_EPOCH is set; dropping CreationDate alone was not enough."""
    before = os.environ.get("SOURCE_DATE_EPOCH")
    os.environ["SOURCE_DATE_EPOCH"] = before or "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ["SOURCE_DATE_EPOCH"]
