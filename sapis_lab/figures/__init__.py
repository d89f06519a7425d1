"""Figures of a study, each a pure function of its analysis. No torch here.

Every public module of this folder is one kind of figure, found by listing the folder, and holds one function

    draw(study: StudyAnalysis) -> Drawing | NotDrawn

`draw_all(study, folder)` writes, for each kind, NAME.pdf, NAME.svg, NAME.png, NAME.csv (every plotted number)
and NAME.txt (the caption), and not_drawn.json, which says why the others are missing. `draw_tuning` and
`draw_regime` draw what a tuning found, `draw_rules` rules from a table, of which no study analysis knows.
"""

from __future__ import annotations

import json
from pathlib import Path

from sapis_lab import config
from sapis_lab.analysis.study import StudyAnalysis
from sapis_lab.figures._drawing import SUFFIXES, Drawing, NotDrawn, save
from sapis_lab.figures._regime import draw_regime
from sapis_lab.figures._rule import draw_rules
from sapis_lab.figures._tuning import draw_tuning
from sapis_lab.files import make_folder, write_text

NOT_DRAWN = "not_drawn.json"


def kinds() -> tuple[str, ...]:
    """Names of all figures, in alphabetical order."""
    return config.kinds("figures")


def draw(kind: str, study: StudyAnalysis) -> Drawing | NotDrawn:
    """One figure by name, or why it cannot be drawn. ValueError lists the known ones."""
    return config.kind_module("figures", kind).draw(study)


def draw_all(study: StudyAnalysis, folder: Path) -> list[Path]:
    """Write every figure that the study supports into `folder`, and not_drawn.json; the paths written. Old
    files of the others go."""
    written, missing = [], {}
    for kind in kinds():
        drawing = draw(kind, study)
        if isinstance(drawing, Drawing):
            written += save(drawing, folder, name=kind)
            continue
        missing[kind] = drawing.reason
        for suffix in SUFFIXES:
            (folder / f"{kind}.{suffix}").unlink(missing_ok=True)
    make_folder(folder)
    write_text(folder / NOT_DRAWN, json.dumps(missing, indent=1, ensure_ascii=False) + "\n")
    return [*written, folder / NOT_DRAWN]


__all__ = [
    "NOT_DRAWN",
    "Drawing",
    "NotDrawn",
    "draw",
    "draw_all",
    "draw_regime",
    "draw_rules",
    "draw_tuning",
    "kinds",
    "save",
]
