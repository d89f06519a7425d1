"""The lowest error that each model reaches with a number of labels, whatever its size: what labels buy."""

import matplotlib as mpl
import numpy as np
import pandas as pd

from sapis_lab.analysis.study import StudyAnalysis
from sapis_lab.figures._drawing import Drawing, NotDrawn
from sapis_lab.figures._style import COLUMN, RC, log_axes, looks, new_figure
from sapis_lab.quantities import quantity

CURVE_POINTS = 40


def draw(study: StudyAnalysis) -> Drawing | NotDrawn:
    """All models in one panel: the best measured point at each D, and the law at the largest measured N with
    its band."""
    if study.done.empty:
        return NotDrawn("no point has finished")
    key, factor, parts = study.quantity.key, study.quantity.display_factor, []
    with mpl.rc_context(RC):
        figure = new_figure(COLUMN, 2.9)
        axes = figure.subplots()
        for name, look in looks(study.runs).items():
            runs = study.done[study.done["model"] == name]
            if runs.empty:
                continue
            best = runs.loc[runs.groupby("n_frames")[key].idxmin()]
            axes.plot(
                best["n_frames"],
                factor * best[key],
                ls="none",
                color=look.color,
                marker=look.marker,
                mfc="white",
                label=name,
                zorder=3,
            )
            columns = {"n_frames": best["n_frames"], "n_params": best["n_params"], "loss": factor * best[key]}
            parts.append(pd.DataFrame({"model": name, "part": "point"} | columns))
            model = study.models[name]
            if model.fit is None or runs["n_frames"].nunique() < 2:
                continue
            x, N = (
                np.geomspace(runs["n_frames"].min(), runs["n_frames"].max(), CURVE_POINTS),
                float(runs["n_params"].max()),
            )
            law = factor * model.fit.predict(N, x)
            low, high = model.band(N, x) or (np.full_like(x, np.nan), np.full_like(x, np.nan))
            axes.plot(x, law, color=look.color, ls=look.line)
            axes.fill_between(x, factor * low, factor * high, color=look.color, alpha=0.15, lw=0)
            columns = {"n_frames": x, "n_params": N, "loss": law, "low": factor * low, "high": factor * high}
            parts.append(pd.DataFrame({"model": name, "part": "law"} | columns))
        log_axes(axes, "xy")
        axes.set_xlabel(quantity("n_frames").axis)
        axes.set_ylabel(study.quantity.axis)
        figure.legend(
            loc="outside upper center",
            ncols=2 if study.done["model"].nunique() in (2, 4) else 3,
            columnspacing=1.0,
        )
    return Drawing(figure, pd.concat(parts, ignore_index=True), _caption(study))


def _caption(study: StudyAnalysis) -> str:
    label = study.quantity.label
    text = (
        f"{label[0].upper()}{label[1:]} against the number of labels. Symbols: the best point of each model "
        f"at each D; lines and 95 % "
        "bands: the law chosen for it, at its largest N."
    )
    unit, factor = study.quantity.display_unit, study.quantity.display_factor
    found = [
        (e, m)
        for e in study.efficiency
        if e.cost == "n_frames" and e.quantity == study.quantity.key and (m := e.middle()) is not None
    ]
    said = ", ".join(
        f"{e.model} {m[1]:.3g} [{m[2]:.3g}, {m[3]:.3g}] at {factor * m[0]:.3g} {unit}" for e, m in found
    )
    return text + (f" Labels for equal error, over those of {study.reference}: {said}." if found else "")
