"""Loss against the number of labelled frames D at fixed model sizes N, with the fitted law."""

from sapis_lab.analysis.study import StudyAnalysis
from sapis_lab.figures._drawing import Drawing, NotDrawn
from sapis_lab.figures._slices import draw_slices


def draw(study: StudyAnalysis) -> Drawing | NotDrawn:
    """L(D) at every N, one panel a model."""
    return draw_slices(study, "n_frames")
