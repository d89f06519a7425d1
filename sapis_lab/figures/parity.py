"""What the chosen law says of a point against what was measured: fitted, and forecast from all other
points."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd

from sapis_lab.analysis.study import StudyAnalysis
from sapis_lab.figures._drawing import Drawing, NotDrawn
from sapis_lab.figures._style import PAGE, RC, log_axes, looks, new_figure
from sapis_lab.figures._supported import fitted_models


def draw(study: StudyAnalysis) -> Drawing | NotDrawn:
    """Two panels: the law fitted to all points, and for each point the law fitted to the others (leave one
    out)."""
    models = fitted_models(study)
    if isinstance(models, NotDrawn):
        return models
    factor, unit, parts = (
        study.quantity.display_factor,
        study.quantity.display_unit or study.quantity.unit,
        [],
    )
    with mpl.rc_context(RC):
        figure = new_figure(PAGE, 3.1)
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for model in models:
            assert model.fit is not None and model.chosen is not None
            measured = model.fit.points.loss
            said = {"fitted": measured * np.exp(-model.fit.residuals)}
            if model.chosen.loo is not None:
                said["forecast"] = measured * np.exp(model.chosen.loo.errors)
            look = looks(study.runs)[model.name]
            for axes, part in zip(panels, ("fitted", "forecast"), strict=True):
                if part in said:
                    style = {
                        "ls": "none",
                        "color": look.color,
                        "marker": look.marker,
                        "mfc": "none",
                        "ms": 3.5,
                    }
                    axes.plot(factor * said[part], factor * measured, label=model.name, **style)
                    columns = {"predicted": factor * said[part], "measured": factor * measured}
                    where = {"n_params": model.fit.points.n_params, "n_frames": model.fit.points.n_frames}
                    parts.append(
                        pd.DataFrame(
                            {"model": model.name, "part": part, "law": model.fit.law.name} | where | columns
                        )
                    )
        numbers = pd.concat(parts, ignore_index=True)
        ends = np.array([numbers["measured"].min(), numbers["measured"].max()])
        for axes, label in zip(
            panels, ("law fitted to all points", "law fitted to all other points"), strict=True
        ):
            axes.plot(ends, ends, color="0.4", lw=0.8, ls=":", zorder=0)
            axes.set_xlabel(f"{label} ({unit})")
        log_axes(panels[0], "xy")
        panels[0].set_ylabel(f"measured ({unit})")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 5))
    errors = [
        f"{m.name} ({m.selected}) {100 * m.chosen.loo.rmse:.1f} %"
        for m in models
        if m.chosen is not None and m.chosen.loo is not None
    ]
    text = (
        f"Measured {study.quantity.label} against the law chosen for each model (left) and its forecast from "
        f"all other points (right)."
    )
    return Drawing(
        figure, numbers, text + (f" Rms of ln(forecast / measured): {', '.join(errors)}." if errors else "")
    )
