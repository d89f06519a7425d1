"""Loss against model size N at fixed numbers of labelled frames D, with the fitted law."""

from sapis_lab.analysis.study import StudyAnalysis
from sapis_lab.figures._drawing import Drawing, NotDrawn
from sapis_lab.figures._slices import draw_slices


def draw(study: StudyAnalysis) -> Drawing | NotDrawn:
    """L(N) at every D, one panel a model."""
    return draw_slices(study, "n_params")
