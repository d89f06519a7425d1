"""What a data set holds: histograms of its energies and forces."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd

from sapis_lab.figures._drawing import Drawing
from sapis_lab.figures._style import PAGE, RC, new_figure, panel_label

_BINS = 60


def data_drawing(name: str, energies: np.ndarray, forces: np.ndarray) -> Drawing:
    """Histograms of energies (n,), eV per atom, and of sizes of forces (n,), eV/Å; a panel for each that
    there is."""
    shown = [
        (part, values, label)
        for part, values, label in (
            ("energy", energies, "energy less its mean (meV per atom)"),
            ("force", forces, "force on an atom (eV/Å)"),
        )
        if len(values)
    ]
    parts, words = [], []
    with mpl.rc_context(RC):
        figure = new_figure(PAGE, 2.2)
        for axes, (part, values, label) in zip(
            figure.subplots(1, len(shown), squeeze=False).ravel(), shown, strict=True
        ):
            values = 1000 * (values - values.mean()) if part == "energy" else values
            # what lies far outside is in the last bins: one wild frame leaves the others visible
            low, high = np.quantile(values, [0.002, 0.998])
            low, high = (low, high) if high > low else (low - 0.5, low + 0.5)
            counts, edges = np.histogram(np.clip(values, low, high), bins=_BINS, range=(low, high))
            axes.stairs(counts, edges, fill=True, color="0.6")
            axes.set_xlabel(label)
            axes.set_ylabel("frames" if part == "energy" else "atoms")
            panel_label(axes, part)
            parts.append(pd.DataFrame({"part": part, "x": edges[:-1], "width": np.diff(edges), "y": counts}))
            words.append(f"{len(values)} {'energies' if part == 'energy' else 'forces'}")
    caption = (
        f"{name}: histograms of {' and '.join(words)}. Values outside of the inner 99.6 % are counted in the "
        f"outermost bins."
    )
    return Drawing(figure, pd.concat(parts, ignore_index=True), caption)
