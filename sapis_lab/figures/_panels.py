"""One panel for each model, axes shared: the common frame of the figures that show models side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sapis_lab.analysis.study import ModelAnalysis, StudyAnalysis
from sapis_lab.figures._style import COLUMN, PAGE, looks, new_figure, panel_label

ACROSS = 4


def model_panels(
    study: StudyAnalysis,
    models: Sequence[ModelAnalysis],
    paint: Callable[[Axes, ModelAnalysis], pd.DataFrame],
    *,
    height: float = 2.3,
) -> tuple[Figure, list[Axes], pd.DataFrame]:
    """A figure with one named panel a model, filled by `paint`, which returns the numbers it drew; one column
    wide for one model."""
    across = min(len(models), ACROSS)
    down = -(-len(models) // across)
    figure = new_figure(COLUMN if len(models) == 1 else PAGE, height * down + 0.45)
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    parts = []
    for axes, model in zip(panels.flat, models, strict=False):
        panel_label(axes, model.name, color=looks(study.runs)[model.name].color)
        parts.append(paint(axes, model))
    for axes in panels.flat[len(models) :]:
        axes.set_axis_off()
    return figure, list(panels.flat[: len(models)]), pd.concat(parts, ignore_index=True)
