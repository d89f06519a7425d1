"""Contours of the fitted loss over N and D, with the compute-optimal path and its band where there is one."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sapis_lab.analysis.study import ModelAnalysis, StudyAnalysis
from sapis_lab.figures._drawing import Drawing, NotDrawn
from sapis_lab.figures._panels import model_panels
from sapis_lab.figures._style import RC, log_axes
from sapis_lab.figures._supported import fitted_models
from sapis_lab.quantities import quantity

N_GRID = 25
MARGIN = 1.5
NICE = np.array([1.0, 1.5, 2.0, 3.0, 5.0, 7.0])


def draw(study: StudyAnalysis) -> Drawing | NotDrawn:
    """One panel a model: contours of the chosen law, the measured points, lines of constant cost, N*(C) and
    its 95 % band."""
    models = fitted_models(study)
    if isinstance(models, NotDrawn):
        return models
    levels = _levels(study, models)
    with mpl.rc_context(RC):
        figure, panels, numbers = model_panels(
            study, models, lambda axes, model: _paint(axes, model, study, levels)
        )
        log_axes(panels[0], "xy")
        figure.supxlabel(quantity("n_params").axis, fontsize=8)
        figure.supylabel(quantity("n_frames").axis, fontsize=8)
    return Drawing(figure, numbers, _caption(study, models))


def _grid(study: StudyAnalysis) -> tuple[np.ndarray, np.ndarray]:
    ends = [(study.done[k].min() / MARGIN, study.done[k].max() * MARGIN) for k in ("n_params", "n_frames")]
    return np.geomspace(*ends[0], N_GRID), np.geomspace(*ends[1], N_GRID)


def _levels(study: StudyAnalysis, models: list[ModelAnalysis]) -> np.ndarray:
    """Round losses in display units, six to a dozen over all models."""
    x, y = _grid(study)
    values = [
        study.quantity.display_factor * m.fit.predict(x[None], y[:, None])
        for m in models
        if m.fit is not None
    ]
    low, high = min(v.min() for v in values), max(v.max() for v in values)
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for chosen in (NICE, NICE[[0, 2, 4]], NICE[:1]):
        levels = (decades[:, None] * chosen).ravel()
        levels = levels[(levels > low) & (levels < high)]
        if len(levels) <= 12:
            break
    return levels


def _paint(axes: Axes, model: ModelAnalysis, study: StudyAnalysis, levels: np.ndarray) -> pd.DataFrame:
    fit, found, factor = model.fit, model.allocation, study.quantity.display_factor
    assert fit is not None
    x, y = _grid(study)
    loss = factor * fit.predict(x[None], y[:, None])
    axes.set_xscale("log")
    axes.set_yscale("log")
    # the transform must be that of the final axes before labels are placed
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(y[0], y[-1])
    lines = axes.contour(x, y, loss, levels=levels, cmap="viridis", norm="log", linewidths=0.9)
    axes.clabel(lines, fmt=lambda v: f"{v:g}", fontsize=6, inline_spacing=2)
    axes.plot(
        model.runs["n_params"], model.runs["n_frames"], ls="none", marker=".", ms=3, color="0.55", zorder=1
    )
    columns = {"n_params": np.tile(x, N_GRID), "n_frames": np.repeat(y, N_GRID), "loss": loss.ravel()}
    parts = [pd.DataFrame({"part": "law"} | columns)]
    parts.append(
        pd.DataFrame({"part": "point"} | {k: model.runs[k].to_numpy(float) for k in ("n_params", "n_frames")})
    )
    if found.band is not None and found.cost is not None:
        best = found.band.best
        low, high = found.band.n_params
        edge = [found.budget / (found.cost.kappa * n + found.cost.label) for n in (low, high)]
        axes.fill(
            np.r_[low, high[::-1]], np.r_[edge[0], edge[1][::-1]], color="black", alpha=0.13, lw=0, zorder=2
        )
        axes.plot(best.n_params, best.n_frames, color="black", lw=1.4, zorder=3)
        for budget in 10.0 ** np.arange(
            np.floor(np.log10(found.budget[0])), np.ceil(np.log10(found.budget[-1])) + 1
        ):
            axes.plot(
                x,
                budget / (found.cost.kappa * x + found.cost.label),
                color="0.6",
                lw=0.5,
                ls=(0, (1, 2)),
                zorder=0,
            )
        path = {"budget": found.budget, "n_params": best.n_params, "n_frames": best.n_frames}
        parts.append(pd.DataFrame({"part": "optimum"} | path | {"n_params_low": low, "n_params_high": high}))
    return pd.concat(parts, ignore_index=True).assign(model=model.name)


def _caption(study: StudyAnalysis, models: list[ModelAnalysis]) -> str:
    unit = study.quantity.display_unit or study.quantity.unit
    laws = "; ".join(
        f"{m.name}: {m.selected}" + ("" if m.chosen and m.chosen.identified else ", not fully identified")
        for m in models
    )
    label = f"{study.quantity.label[0].upper()}{study.quantity.label[1:]} ({unit})"
    text = f"{label} of the chosen laws ({laws}) over N and D. Dots: measured points."
    with_path = [m.name for m in models if m.allocation.band is not None]
    if with_path:
        text += (
            " Black line and band: the compute-optimal N and D with the 95 % band of N; dotted: constant "
            "training FLOPs, a decade apart."
        )
    missing = [f"{m.name}: {m.allocation.why_not}" for m in models if m.allocation.band is None]
    if missing:
        same = len({m.allocation.why_not for m in models}) == 1
        text += f" No compute-optimal path: {models[0].allocation.why_not if same else '; '.join(missing)}."
    return text
