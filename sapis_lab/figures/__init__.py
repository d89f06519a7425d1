"""Figures of a study, each a pure function of its analysis. No torch here.

Every public module of this folder is one kind of figure, found by listing the folder, and holds one function

    draw(study: StudyAnalysis) -> Drawing

`draw_all(study, folder)` writes, for each kind, NAME.pdf, NAME.png, NAME.csv (every plotted number) and NAME.txt (the caption).
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from sapis_lab.analysis.study import StudyAnalysis
from sapis_lab.figures._drawing import Drawing, save


def kinds() -> tuple[str, ...]:
    """Names of all figures, in alphabetical order."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")))


def draw(kind: str, study: StudyAnalysis) -> Drawing:
    """One figure by name. ValueError lists the known ones."""
    if kind not in kinds():
        raise ValueError(f"no figure {kind!r}; known figures are {', '.join(kinds())}")
    return importlib.import_module(f"{__name__}.{kind}").draw(study)


def draw_all(study: StudyAnalysis, folder: Path) -> list[Path]:
    """Write every figure into `folder`; the paths written. A figure that the study cannot fill says so in its caption."""
    return [path for kind in kinds() for path in save(draw(kind, study), folder, name=kind)]


__all__ = ["Drawing", "draw", "draw_all", "kinds", "save"]
