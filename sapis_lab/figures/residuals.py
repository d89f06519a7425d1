"""What the chosen law leaves over along N, along D and along their product: a pattern means that the form is
wrong."""

import matplotlib as mpl
import numpy as np
import pandas as pd

from sapis_lab.analysis.study import StudyAnalysis
from sapis_lab.figures._drawing import Drawing, NotDrawn
from sapis_lab.figures._style import PAGE, RC, log_axes, looks, new_figure
from sapis_lab.quantities import quantity

AXES = {"n_params": quantity("n_params").axis, "n_frames": quantity("n_frames").axis, "product": "N D"}
SPREAD = 1.06
"""Models at one N (or D) stand side by side, this factor apart."""


def draw(study: StudyAnalysis) -> Drawing | NotDrawn:
    """Residuals 100 ln(measured / law) against N, D and N D."""
    table = residual_table(study)
    if table.empty:
        return NotDrawn("no law could be fitted")
    names = list(dict.fromkeys(table["model"]))
    with mpl.rc_context(RC):
        figure = new_figure(PAGE, 2.6)
        panels = figure.subplots(1, 3, sharey=True)
        for axes, (key, label) in zip(panels, AXES.items(), strict=True):
            for k, name in enumerate(names):
                rows, look = table[table["model"] == name], looks(study.runs)[name]
                style = {"ls": "none", "color": look.color, "marker": look.marker, "mfc": "none", "ms": 3.5}
                aside = SPREAD ** (k - (len(names) - 1) / 2)
                axes.plot(aside * rows[key], rows["residual_percent"], label=name, **style)
            axes.axhline(0, color="0.4", lw=0.8, ls=":", zorder=0)
            log_axes(axes, "x")
            axes.set_xlabel(label)
        panels[0].set_ylabel("100 ln(measured / law)")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 5))
    return Drawing(figure, table, _caption(study))


def residual_table(study: StudyAnalysis) -> pd.DataFrame:
    """One row a fitted point: model, part, law, N, D, N D, measured and predicted loss (display unit),
    residual in percent."""
    parts = []
    for model in study.models.values():
        fit, factor = model.fit, study.quantity.display_factor
        if fit is None:
            continue
        columns = {
            "n_params": fit.points.n_params,
            "n_frames": fit.points.n_frames,
            "measured": factor * fit.points.loss,
        }
        columns["product"] = fit.points.n_params * fit.points.n_frames
        columns["predicted"] = factor * fit.points.loss * np.exp(-fit.residuals)
        columns["residual_percent"] = 100 * fit.residuals
        parts.append(pd.DataFrame({"model": model.name, "part": "point", "law": fit.law.name} | columns))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _caption(study: StudyAnalysis) -> str:
    spreads = [
        f"{m.name} ({m.selected}) {100 * m.fit.residual_sd:.1f} %"
        for m in study.models.values()
        if m.fit is not None and m.fit.residual_sd is not None
    ]
    text = (
        f"What the law chosen for each model leaves over of the measured {study.quantity.label}, along N, D "
        f"and N D."
    )
    if spreads:
        text += f" Standard deviation of ln(measured / law): {', '.join(spreads)}."
    tests = [
        f"{m.name} p = {m.chosen.lack_of_fit.p_value:.2g}"
        for m in study.models.values()
        if m.chosen is not None and m.chosen.lack_of_fit is not None
    ]
    return text + (f" Lack of fit against the scatter of repeats: {', '.join(tests)}." if tests else "")
