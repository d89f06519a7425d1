"""Loss against model size at fixed training compute, with the fitted law under the study's own cost: no
parabola is fitted anywhere."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from sapis_lab.analysis.optimum import optimum_band
from sapis_lab.analysis.study import ModelAnalysis, StudyAnalysis
from sapis_lab.figures._drawing import Drawing, NotDrawn
from sapis_lab.figures._panels import model_panels
from sapis_lab.figures._style import PAGE, RC, ladder, log_axes, number_label
from sapis_lab.figures._supported import budget_models
from sapis_lab.quantities import quantity

N_BUDGETS = 5
N_SIZES = 60
BEYOND = 3.0
"""How far outside the measured D a line is continued."""


def draw(study: StudyAnalysis) -> Drawing | NotDrawn:
    """One panel a model: L(N) along lines of constant training FLOPs, the measured points, and N* with its
    interval on every line."""
    models = budget_models(study)
    if isinstance(models, NotDrawn):
        return models
    spent = np.concatenate([_costs(m) for m in models])
    budgets = np.geomspace(spent.min(), spent.max(), N_BUDGETS + 2)[1:-1]
    shades = ladder([float(b) for b in budgets])
    with mpl.rc_context(RC):
        figure, panels, numbers = model_panels(
            study, models, lambda axes, model: _paint(axes, model, study, shades)
        )
        log_axes(panels[0], "xy")
        figure.supxlabel(quantity("n_params").axis, fontsize=8)
        figure.supylabel(study.quantity.axis, fontsize=8)
        handles = [
            Line2D([], [], color=c, marker=m, mfc="white", label=_flop(b)) for b, (c, m) in shades.items()
        ]
        figure.legend(
            handles=handles,
            loc="outside upper center",
            ncols=len(handles) if figure.get_figwidth() == PAGE else 3,
            columnspacing=1.0,
        )
    return Drawing(figure, numbers, _caption(study, models))


def _flop(budget: float) -> str:
    return f"{number_label(float(f'{budget:.1e}'))} FLOP"


def _costs(model: ModelAnalysis) -> np.ndarray:
    assert model.allocation.cost is not None
    return model.allocation.cost.of(
        model.runs["n_params"].to_numpy(float), model.runs["n_frames"].to_numpy(float)
    )


def _paint(axes: Axes, model: ModelAnalysis, study: StudyAnalysis, shades: dict) -> pd.DataFrame:
    fit, cost, factor = model.fit, model.allocation.cost, study.quantity.display_factor
    assert (
        fit is not None
        and cost is not None
        and model.chosen is not None
        and model.chosen.bootstrap is not None
    )
    N, D, L = fit.points.n_params, fit.points.n_frames, fit.points.loss
    budgets = np.array(list(shades))
    nearest = np.abs(np.log(_costs(model))[:, None] - np.log(budgets)).argmin(axis=1)
    best = optimum_band(fit, model.chosen.bootstrap, budgets, cost)
    parts = []
    for k, (budget, (color, marker)) in enumerate(shades.items()):
        x = np.geomspace(N.min() / 1.5, N.max() * 1.5, N_SIZES)
        y = budget / (cost.kappa * x + cost.label)
        near = (y > D.min() / BEYOND) & (y < D.max() * BEYOND)
        x, y = x[near], y[near]
        inside = (x >= N.min()) & (x <= N.max()) & (y >= D.min()) & (y <= D.max())
        if not inside.any():
            continue  # another model's budget
        loss = factor * fit.predict(x, y)
        limits = model.band(x, y)
        assert limits is not None
        low, high = (factor * v for v in limits)
        axes.plot(x[inside], loss[inside], color=color)
        axes.fill_between(x[inside], low[inside], high[inside], color=color, alpha=0.15, lw=0)
        for outside in (x <= x[inside].min(), x >= x[inside].max()):
            axes.plot(x[outside], loss[outside], color=color, lw=0.6, ls=":")
        # a point beside the line is moved onto it along the law, its residual kept
        here = nearest == k
        moved_d = budget / (cost.kappa * N[here] + cost.label)
        moved = factor * fit.predict(N[here], moved_d) * np.exp(fit.residuals[here])
        shown = (moved_d >= D.min() / 1.5) & (moved_d <= D.max() * 1.5)
        axes.plot(N[here][shown], moved[shown], ls="none", color=color, marker=marker, mfc="white", zorder=3)
        star = [float(best.best.n_params[k]), factor * float(best.best.loss[k])]
        ends = [float(v[k]) for v in best.n_params]
        axes.plot(ends, [star[1]] * 2, color="black", lw=0.9, zorder=4)
        axes.plot(*star, color="black", marker="*", ms=6, zorder=5)
        parts.append(
            pd.DataFrame(
                {
                    "part": "law",
                    "budget": budget,
                    "n_params": x,
                    "n_frames": y,
                    "loss": loss,
                    "low": low,
                    "high": high,
                }
            )
        )
        measured = {
            "n_params": N[here],
            "n_frames": moved_d,
            "loss": moved,
            "measured": factor * L[here],
            "measured_n_frames": D[here],
        }
        parts.append(pd.DataFrame({"part": "point", "budget": budget} | measured)[shown])
        row = {
            "n_params": star[0],
            "n_frames": best.best.n_frames[k],
            "loss": star[1],
            "n_params_low": ends[0],
            "n_params_high": ends[1],
        }
        parts.append(pd.DataFrame([{"part": "optimum", "budget": budget} | row]))
    return pd.concat(parts, ignore_index=True).assign(model=model.name)


def _caption(study: StudyAnalysis, models: list[ModelAnalysis]) -> str:
    label = study.quantity.label
    laws = "; ".join(f"{m.name}: {m.selected}" for m in models)
    text = (
        f"{label[0].upper()}{label[1:]} against N along lines of constant training cost, one panel a model. "
        f"Lines and 95 % bands: the "
        f"law chosen for each model ({laws}), with D = C / (kappa N + fixed) from the measured costs; dotted "
        f"outside the measured N and D. "
        "Symbols: measured points, moved along the law to the nearest budget with their residuals kept. "
        "Stars and bars: the best N and "
        "its 95 % interval."
    )
    if any(m.floor_open for m in models):
        text += " Bands include the law with a floor, which the points do not exclude."
    missing = [f"{n} ({m.allocation.why_not})" for n, m in study.models.items() if m.allocation.band is None]
    return text + (f" Not shown: {'; '.join(missing)}." if missing else "")
