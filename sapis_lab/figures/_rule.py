"""Rules from a table: the optima with the rule, and the bowl of every cell with its runs."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd

from sapis_lab.analysis.bowl import Sweep
from sapis_lab.analysis.regime import Regime
from sapis_lab.analysis.rule_table import ModelFit, RuleFits
from sapis_lab.figures._drawing import Drawing, save
from sapis_lab.figures._regime import regime_drawing
from sapis_lab.figures._style import PAGE, RC, ladder, log_axes, new_figure, number_label, panel_label

_ACROSS = 4
_MOST = 48
"""Panels of one figure."""


def draw_rules(fits: RuleFits, folder: Path) -> list[Path]:
    """Write rule.pdf and bowls.pdf, with PNG, CSV and caption, into `folder`; the paths."""
    regime = Regime(
        fits.table.path.name, fits.table.columns.loss, {k: m.rule for k, m in fits.models.items()}
    )
    paths = save(regime_drawing(regime), folder, name="rule")
    for k, m in enumerate(fits.models.values()):
        if m.bowls is not None:
            name = "bowls" if len(fits.models) == 1 else f"bowls_{k + 1}"
            paths += save(bowls_drawing(m, fits.table.columns.loss), folder, name=name)
    return paths


def bowls_drawing(m: ModelFit, loss: str) -> Drawing:
    """The error against the rate, one panel a cell: runs in the fit of the bowl filled, others hollow."""
    assert m.bowls is not None
    cells = list(range(len(m.sweeps)))[:_MOST]
    across, down = min(_ACROSS, len(cells)), -(-len(cells) // _ACROSS)
    parts = []
    with mpl.rc_context(RC):
        figure = new_figure(PAGE, 0.3 + 1.35 * down)
        panels = figure.subplots(down, across, squeeze=False).ravel()
        for axes, i in zip(panels, cells, strict=False):
            parts.append(_panel(axes, m, i))
        for axes in panels[len(cells) :]:
            axes.set_visible(False)
        for row in range(down):
            panels[row * across].set_ylabel(loss)
        for axes in panels[max(0, len(cells) - across) : len(cells)]:
            axes.set_xlabel("learning rate")
    most = "" if len(cells) == len(m.sweeps) else f" The first {len(cells)} of {len(m.sweeps)} cells."
    batch = (
        " Colours, dark to light: batch sizes; the bowl is drawn at the best one."
        if m.sweeps[0].x.shape[1] == 2
        else ""
    )
    caption = (
        f"{loss} against the learning rate for every (N, D): runs, filled where the bowl with the largest "
        f"weight is fitted to them, the bowl, and as a band the 95 % interval of its minimum.{batch}{most}"
    )
    return Drawing(figure, pd.concat(parts, ignore_index=True), caption)


def _panel(axes: mpl.axes.Axes, m: ModelFit, i: int) -> pd.DataFrame:
    assert m.bowls is not None
    sweep, bowl, optimum = m.sweeps[i], m.bowls.bowls[i], m.rules["learning_rate"].optima[i]
    rate = np.exp(sweep.x[:, 0])
    colors = _colors(sweep)
    for x, y, used, color in zip(rate, sweep.loss, bowl.used, colors, strict=True):
        axes.plot(x, y, "o", ms=2.5, color=color, mfc=color if used else "none")
    line = np.linspace(sweep.x[:, 0].min(), sweep.x[:, 0].max(), 60)
    places = np.column_stack([line, *[np.full(60, v) for v in bowl.optimum[1:]]])
    fitted = np.exp(np.minimum(bowl.log_loss(places), 700.0))
    top = float(np.exp(bowl.bottom) * 1.0 + 1.3 * (np.max(sweep.loss[bowl.used]) - np.exp(bowl.bottom)))
    inside = fitted <= top
    axes.plot(np.exp(line)[inside], fitted[inside], color="black", lw=0.9)
    axes.axvspan(optimum.low, optimum.high, color="0.85", lw=0, zorder=0)
    low = float(min(sweep.loss.min(), np.exp(bowl.bottom)))
    axes.set_ylim(low - 0.08 * (top - low), top + 0.05 * (top - low))
    log_axes(axes, "x")
    panel_label(
        axes,
        f"{number_label(float(f'{sweep.n_params:.3g}'))}, {number_label(float(f'{sweep.n_frames:.3g}'))}",
    )
    about = {"n_params": sweep.n_params, "n_frames": sweep.n_frames}
    runs = pd.DataFrame(
        {"part": np.where(bowl.used, "run", "run left out"), **about, "rate": rate, "loss": sweep.loss}
    )
    if sweep.x.shape[1] == 2:
        runs["batch"] = np.exp(sweep.x[:, 1])
    return pd.concat([runs, pd.DataFrame({"part": "bowl", **about, "rate": np.exp(line), "loss": fitted})])


def _colors(sweep: Sweep) -> list[tuple]:
    if sweep.x.shape[1] == 1:
        return ["#0072B2"] * len(sweep.loss)  # type: ignore[list-item]
    values = [float(v) for v in np.unique(sweep.x[:, 1])]
    shades = ladder(values)
    return [shades[float(v)][0] for v in sweep.x[:, 1]]
