"""Error of every model over that of the reference, in every cell (N, D, seed) that both have measured."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from sapis_lab.analysis.study import StudyAnalysis
from sapis_lab.figures._drawing import Drawing, NotDrawn
from sapis_lab.figures._style import COLUMN, RC, ladder, looks, new_figure, number_label


def draw(study: StudyAnalysis) -> Drawing | NotDrawn:
    """Ratios cell by cell, spread by size; a bar marks each geometric mean."""
    if len(study.models) < 2:
        return NotDrawn("there is one model, and nothing to compare it with")
    if not study.comparisons:
        return NotDrawn("no two models share a finished cell (N, D, seed)")
    look = looks(study.runs)
    sizes = sorted(study.done["n_params_target"].unique())
    shades = ladder(sizes)
    parts = []
    with mpl.rc_context(RC):
        figure = new_figure(COLUMN, 0.55 + 0.55 * len(study.comparisons) + 0.5)
        axes = figure.subplots()
        for row, comparison in enumerate(study.comparisons):
            cells, mean = comparison.loss.cells, comparison.loss.geometric_mean
            # cells of one size lie on one height, so a trend with N is a slope; nothing is jittered at random
            height = row + 0.5 * (
                np.searchsorted(sizes, cells["n_params_target"]) / max(len(sizes) - 1, 1) - 0.5
            )
            for size, (color, marker) in shades.items():
                here = (cells["n_params_target"] == size).to_numpy()
                axes.plot(
                    cells["ratio"][here],
                    height[here],
                    ls="none",
                    color=color,
                    marker=marker,
                    mfc="none",
                    ms=3.5,
                )
            axes.plot(
                [mean, mean], [row - 0.36, row + 0.36], color=look[comparison.model].color, lw=2.2, zorder=1
            )
            parts.append(cells.assign(model=comparison.model, part="cell"))
            parts.append(
                pd.DataFrame({"model": [comparison.model], "part": ["geometric mean"], "ratio": [mean]})
            )
        axes.axvline(1.0, color="0.4", lw=0.8, ls=":")
        axes.set_xscale("log")
        ticks = [
            t
            for t in (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 20)
            if axes.get_xlim()[0] <= t <= axes.get_xlim()[1]
        ]
        axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
        axes.minorticks_off()
        axes.set_yticks(range(len(study.comparisons)), [c.model for c in study.comparisons])
        axes.set_ylim(len(study.comparisons) - 0.45, -0.55)
        axes.set_xlabel(f"{study.quantity.label} / that of {study.reference}")
        handles = [
            Line2D([], [], color=c, marker=m, mfc="none", ls="none", label=f"N = {number_label(s)}")
            for s, (c, m) in shades.items()
        ]
        figure.legend(
            handles=handles,
            loc="outside upper center",
            ncols=min(len(handles), 4),
            columnspacing=0.8,
            handletextpad=0.1,
        )
    return Drawing(figure, pd.concat(parts, ignore_index=True), _caption(study))


def _caption(study: StudyAnalysis) -> str:
    means = "; ".join(
        f"{c.model} {c.loss.geometric_mean:.2f} ({c.loss.range[0]:.2f} to {c.loss.range[1]:.2f}, "
        f"{c.loss.n_cells} cells)"
        for c in study.comparisons
    )
    return (
        f"Ratio of the {study.quantity.label} to that of {study.reference} at equal requested N, equal D and "
        f"seed; "
        f"above 1 the reference is more accurate. Symbols: cells; bars: geometric means. {means}."
    )
