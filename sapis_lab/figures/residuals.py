"""How well the chosen law describes the points: prediction against measurement, and what is left over along N and D."""

import matplotlib as mpl
import numpy as np
import pandas as pd

from sapis_lab.analysis.study import StudyAnalysis
from sapis_lab.figures._drawing import Drawing
from sapis_lab.figures._style import PAGE, RC, empty, log_axes, looks, new_figure
from sapis_lab.quantities import quantity


def draw(study: StudyAnalysis) -> Drawing:
    """Parity, then residuals 100 ln(measured / law) against N and against D."""
    table = residual_table(study)
    if table.empty:
        reason = "no law could be fitted"
        return Drawing(empty(PAGE, reason), pd.DataFrame({"part": []}), "No law could be fitted.")
    with mpl.rc_context(RC):
        figure = new_figure(PAGE, 2.6)
        parity, along_n, along_d = figure.subplots(1, 3)
        for name, look in looks(study.runs).items():
            rows = table[table["model"] == name]
            if rows.empty:
                continue
            style = {"ls": "none", "color": look.color, "marker": look.marker, "mfc": "none", "ms": 3.5}
            parity.plot(rows["predicted"], rows["measured"], label=name, **style)
            along_n.plot(rows["n_params"], rows["residual_percent"], **style)
            along_d.plot(rows["n_frames"], rows["residual_percent"], **style)
        ends = [table[["predicted", "measured"]].min().min(), table[["predicted", "measured"]].max().max()]
        parity.plot(ends, ends, color="0.4", lw=0.8, ls=":", zorder=0)
        log_axes(parity, "xy")
        parity.set_xlabel(f"law ({_unit(study)})")
        parity.set_ylabel(f"measured ({_unit(study)})")
        for axes, key in ((along_n, "n_params"), (along_d, "n_frames")):
            axes.axhline(0, color="0.4", lw=0.8, ls=":", zorder=0)
            log_axes(axes, "x")
            axes.set_xlabel(quantity(key).axis)
        along_n.set_ylabel("100 ln(measured / law)")
        along_d.sharey(along_n)
        along_d.tick_params(labelleft=False)
        figure.legend(loc="outside upper center", ncols=min(len(table["model"].unique()), 5))
    return Drawing(figure, table, _caption(study))


def residual_table(study: StudyAnalysis) -> pd.DataFrame:
    """One row a fitted point: model, part, law, N, D, measured and predicted loss (display unit), residual in percent."""
    parts = []
    for model in study.models.values():
        fit, factor = model.fit, study.quantity.display_factor
        if fit is None:
            continue
        columns = {"n_params": fit.points.n_params, "n_frames": fit.points.n_frames, "measured": factor * fit.points.loss}
        columns["predicted"] = factor * fit.points.loss * np.exp(-fit.residuals)
        columns["residual_percent"] = 100 * fit.residuals
        parts.append(pd.DataFrame({"model": model.name, "part": "point", "law": fit.law.name} | columns))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _unit(study: StudyAnalysis) -> str:
    return study.quantity.display_unit or study.quantity.unit


def _caption(study: StudyAnalysis) -> str:
    spreads = [
        f"{m.name} ({m.selected}) {100 * m.fit.residual_sd:.1f} %"
        for m in study.models.values()
        if m.fit is not None and m.fit.residual_sd is not None
    ]
    text = f"The law chosen for each model against the measured {study.quantity.label} (left), and what it leaves over along N and D."
    return text + (f" Standard deviation of ln(measured / law): {', '.join(spreads)}." if spreads else "")
