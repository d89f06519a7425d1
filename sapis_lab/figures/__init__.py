"""Figures of a study, each a pure function of its analysis. No torch here.

Every public module of this folder is one kind of figure, found by listing the folder, and holds one function

    draw(study: StudyAnalysis) -> Drawing | NotDrawn

`draw_all(study, folder)` writes, for each kind, NAME.pdf, NAME.svg, NAME.png, NAME.csv (every plotted number)
and NAME.txt (the caption), and not_drawn.json, which says why the others are missing. `draw_tuning` and
`draw_regime` draw what a tuning found, `draw_rules` rules from a table, of which no study analysis knows,
`data_drawing` what a data set holds, and
`draw_table` and `draw_groups` the laws of any table.
"""

from __future__ import annotations

from pathlib import Path

from sapis_lab import config
from sapis_lab.analysis.study import StudyAnalysis
from sapis_lab.figures._data import data_drawing
from sapis_lab.figures._drawing import NOT_DRAWN, Drawing, NotDrawn, save, write_drawings
from sapis_lab.figures._regime import draw_regime
from sapis_lab.figures._rule import draw_rules
from sapis_lab.figures._tables import STEP_FIGURES, TABLE_FIGURES, draw_groups, draw_table, group_folders
from sapis_lab.figures._tuning import draw_tuning


def kinds() -> tuple[str, ...]:
    """Names of all figures, in alphabetical order."""
    return config.kinds("figures")


def draw(kind: str, study: StudyAnalysis) -> Drawing | NotDrawn:
    """One figure by name, or why it cannot be drawn. ValueError lists the known ones."""
    return config.kind_module("figures", kind).draw(study)


def draw_all(study: StudyAnalysis, folder: Path) -> list[Path]:
    """Write every figure that the study supports into `folder`, and not_drawn.json; the paths written. Old
    files of the others go."""
    return write_drawings(((kind, draw(kind, study)) for kind in kinds()), folder)


__all__ = [
    "NOT_DRAWN",
    "STEP_FIGURES",
    "TABLE_FIGURES",
    "Drawing",
    "NotDrawn",
    "data_drawing",
    "draw",
    "draw_all",
    "draw_groups",
    "draw_regime",
    "draw_rules",
    "draw_table",
    "draw_tuning",
    "group_folders",
    "kinds",
    "save",
]
