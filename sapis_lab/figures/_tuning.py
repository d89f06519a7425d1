"""What tuning found: the objective against every tuned setting, and the Pareto front of two objectives. Drawn
from trials.csv."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sapis_lab.figures._drawing import Drawing, save
from sapis_lab.figures._style import COLUMN, PAGE, RC, empty, ladder, log_axes, new_figure
from sapis_lab.quantities import quantity

_ACROSS = 3
"""Panels in a row."""
_FEW = 5
"""A setting with at most this many values has a tick at each."""


def draw_tuning(
    trials: pd.DataFrame,
    folder: Path,
    *,
    objectives: Sequence[str],
    settings: Sequence[str],
    logarithmic: Sequence[str],
) -> list[Path]:
    """Write settings.pdf and, with two objectives, pareto.pdf into `folder`, with PNG, CSV and caption; the
    paths.

    Args:
        trials: one row per trial with the columns cell, trial, state, the objectives and the settings.
        logarithmic: the settings that are searched in steps of equal ratio.
    """
    paths = save(settings_drawing(trials, objectives[0], settings, logarithmic), folder, name="settings")
    if len(objectives) == 2:
        paths += save(pareto_drawing(trials, objectives), folder, name="pareto")
    return paths


def settings_drawing(
    trials: pd.DataFrame, objective: str, settings: Sequence[str], logarithmic: Sequence[str]
) -> Drawing:
    """The objective against every setting, one panel each; a cell has one colour, and its best trial is
    filled."""
    done = trials[(trials["state"] == "done") & trials[objective].gt(0)]
    if done.empty:
        return Drawing(
            empty(PAGE, "no trial has finished"), pd.DataFrame({"part": []}), "No trial has finished."
        )
    q = quantity(objective)
    cells = list(dict.fromkeys(done["cell"]))
    shades = ladder(list(range(len(cells))))
    across = min(_ACROSS, len(settings))
    down = -(-len(settings) // across)
    parts = []
    with mpl.rc_context(RC):
        figure = new_figure(PAGE if across > 1 else COLUMN, 0.5 + 2.0 * down + 0.14 * -(-len(cells) // 3))
        panels = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
        for axes, name in zip(panels, settings, strict=False):
            words = _places(done[name], name in logarithmic or pd.api.types.is_numeric_dtype(done[name]))
            for k, cell in enumerate(cells):
                rows = done[done["cell"] == cell]
                x = (
                    rows[name].astype(str).map(words.get).to_numpy(float)
                    if words
                    else rows[name].to_numpy(float)
                )
                y = rows[objective].to_numpy(float) * q.display_factor
                color, marker = shades[k]
                axes.plot(x, y, ls="none", color=color, marker=marker, mfc="none", ms=3.5, label=cell)
                best = int(np.argmin(y))
                axes.plot(x[best], y[best], ls="none", color=color, marker=marker, ms=5)
                parts.append(
                    pd.DataFrame(
                        {
                            "part": "trial",
                            "cell": cell,
                            "setting": name,
                            "value": rows[name].to_numpy(),
                            objective: y,
                        }
                    )
                )
            if words:
                axes.set_xticks(list(words.values()), list(words))
            axes.set_xlabel(name)
            log_axes(axes, "xy" if name in logarithmic else "y")
            if not words and done[name].nunique() <= _FEW:
                axes.set_xticks(sorted(done[name].unique()))
        for axes in panels[len(settings) :]:
            axes.set_visible(False)
        for row in range(down):
            panels[row * across].set_ylabel(q.axis)
        _legend(figure, panels[0])
    caption = (
        f"{q.label} of {len(done)} finished trials against "
        f"{'each tuned setting' if len(settings) > 1 else settings[0]}; "
        f"colours: (model, N, D); filled: the best trial of each. {_ended_early(trials)}"
    )
    return Drawing(figure, pd.concat(parts, ignore_index=True), caption)


def _places(values: pd.Series, numeric: bool) -> dict[str, float]:
    """Positions of the choices along an axis; none where the setting is a number."""
    return {} if numeric else {str(v): float(k) for k, v in enumerate(dict.fromkeys(values))}


def pareto_drawing(trials: pd.DataFrame, objectives: Sequence[str]) -> Drawing:
    """Two objectives against each other; the trials that no other one beats in both are filled and joined."""
    y_key, x_key = objectives
    done = trials[(trials["state"] == "done") & trials[y_key].gt(0) & trials[x_key].gt(0)]
    if done.empty:
        return Drawing(
            empty(COLUMN, "no trial has finished"), pd.DataFrame({"part": []}), "No trial has finished."
        )
    qx, qy = quantity(x_key), quantity(y_key)
    cells = list(dict.fromkeys(done["cell"]))
    shades = ladder(list(range(len(cells))))
    parts = []
    with mpl.rc_context(RC):
        figure = new_figure(COLUMN, 2.6 + 0.14 * len(cells))
        axes = figure.subplots()
        for k, cell in enumerate(cells):
            rows = done[done["cell"] == cell].sort_values([x_key, y_key])
            x, y = (
                rows[x_key].to_numpy(float) * qx.display_factor,
                rows[y_key].to_numpy(float) * qy.display_factor,
            )
            on_front = y <= np.minimum.accumulate(y)
            color, marker = shades[k]
            axes.plot(x, y, ls="none", color=color, marker=marker, mfc="none", ms=3.5)
            axes.plot(
                x[on_front], y[on_front], drawstyle="steps-post", color=color, marker=marker, ms=4, label=cell
            )
            parts.append(
                pd.DataFrame({"part": np.where(on_front, "front", "trial"), "cell": cell, x_key: x, y_key: y})
            )
        axes.set_xlabel(qx.axis)
        axes.set_ylabel(qy.axis)
        log_axes(axes, "xy")
        _legend(figure, axes)
    n = sum(int((p["part"] == "front").sum()) for p in parts)
    caption = (
        f"{qy.label} against {qx.label} of {len(done)} finished trials; filled and joined: the {n} that no "
        f"other one beats in both."
    )
    return Drawing(figure, pd.concat(parts, ignore_index=True), caption)


def _legend(figure: mpl.figure.Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=min(len(handles), 3),
        columnspacing=0.8,
        handletextpad=0.1,
    )


def _ended_early(trials: pd.DataFrame) -> str:
    counts = trials["state"].value_counts().to_dict()
    words = [f"{counts[state]} {state}" for state in ("pruned", "diverged", "failed") if counts.get(state)]
    return f"Not shown: {', '.join(words)}." if words else "All trials finished."
