"""The best loss that a training budget buys, and the N and D that buy it, for every model whose points
support it."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd
from matplotlib.lines import Line2D

from sapis_lab.analysis.laws import Array
from sapis_lab.analysis.study import ModelAnalysis, StudyAnalysis
from sapis_lab.figures._drawing import Drawing, NotDrawn
from sapis_lab.figures._style import PAGE, RC, log_axes, looks, new_figure
from sapis_lab.figures._supported import budget_models
from sapis_lab.quantities import quantity


def draw(study: StudyAnalysis) -> Drawing | NotDrawn:
    """L*(C), N*(C) and D*(C) with 95 % bands; dashed beyond the largest measured budget."""
    models = budget_models(study)
    if isinstance(models, NotDrawn):
        return models
    factor, parts = study.quantity.display_factor, []
    with mpl.rc_context(RC):
        figure = new_figure(PAGE, 2.7)
        panels = figure.subplots(1, 3)
        for model in models:
            look, found = looks(study.runs)[model.name], model.allocation
            assert found.band is not None
            runs = model.runs
            panels[0].plot(
                runs["flops_train"],
                factor * runs[study.quantity.key],
                ls="none",
                color=look.color,
                marker=look.marker,
                mfc="none",
                ms=2.5,
                alpha=0.5,
            )
            points = {
                "budget": runs["flops_train"],
                "loss": factor * runs[study.quantity.key],
                "n_params": runs["n_params"],
            }
            parts.append(
                pd.DataFrame({"model": model.name, "part": "point"} | points | {"n_frames": runs["n_frames"]})
            )
            best, band = found.band.best, found.band
            curves: dict[str, tuple[Array, tuple[Array, Array]]] = {
                "loss": (factor * best.loss, (factor * found.loss[0], factor * found.loss[1])),
                "n_params": (best.n_params, band.n_params),
                "n_frames": (best.n_frames, band.n_frames),
            }
            inside = found.budget <= found.largest * 1.0001
            beyond = found.budget >= found.budget[inside][-1]
            numbers: dict[str, Array] = {"budget": found.budget}
            for axes, (key, (value, (low, high))) in zip(panels, curves.items(), strict=True):
                axes.plot(found.budget[inside], value[inside], color=look.color)
                axes.plot(found.budget[beyond], value[beyond], color=look.color, ls="--", lw=0.8)
                axes.fill_between(found.budget, low, high, color=look.color, alpha=0.16, lw=0)
                every = slice(3, None, 8)
                axes.plot(
                    found.budget[every], value[every], ls="none", color=look.color, marker=look.marker, ms=3
                )
                numbers |= {key: value, f"{key}_low": low, f"{key}_high": high}
            parts.append(
                pd.DataFrame({"model": model.name, "part": "frontier", "extrapolated": ~inside} | numbers)
            )
        for axes, label in zip(panels, (study.quantity.axis, "best N", "best D"), strict=True):
            log_axes(axes, "xy")
            axes.set_xlabel(quantity("flops_train").axis)
            axes.set_ylabel(label)
        shown = {m.name: looks(study.runs)[m.name] for m in models}
        handles = [
            Line2D([], [], color=look.color, marker=look.marker, label=name) for name, look in shown.items()
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 5))
    return Drawing(figure, pd.concat(parts, ignore_index=True), _caption(study, models))


def _caption(study: StudyAnalysis, models: list[ModelAnalysis]) -> str:
    slopes = []
    for m in models:
        assert m.allocation.compute_exponent is not None
        value, low, high = m.allocation.compute_exponent
        slopes.append(f"{m.name} {value:.2f} [{low:.2f}, {high:.2f}]")
    text = (
        f"The lowest {study.quantity.label} that a budget of training FLOPs buys, and the N and D that buy "
        f"it, with 95 % bands; "
        f"faint symbols: all points; dashed: beyond the largest measured cost. Exponent -dlnL/dlnC at that "
        f"cost: {', '.join(slopes)}."
    )
    if any(m.allocation.with_floor for m in models):
        text += " The bands of the error include the law with a floor, which the points do not exclude."
    if any(m.allocation.band is not None and m.allocation.band.best.at_edge.any() for m in models):
        text += " Where a curve is flat at an end, no split inside the range that was searched is best."
    missing = [f"{n} ({m.allocation.why_not})" for n, m in study.models.items() if m.allocation.band is None]
    return text + (f" Not shown: {'; '.join(missing)}." if missing else "")
