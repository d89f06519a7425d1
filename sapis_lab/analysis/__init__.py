"""Scaling laws from a runs table: fits with intervals, what they do not identify, comparisons and costs. No
torch here.

`analyse(runs)` does all of it; `fit(law, n_params, n_frames, loss)` is one law on one set of points.
"""

from sapis_lab.analysis.fit import LawFit, fit
from sapis_lab.analysis.laws import LAWS, Law, law_named
from sapis_lab.analysis.options import LawOptions
from sapis_lab.analysis.study import StudyAnalysis, analyse, write_fit_json

__all__ = [
    "LAWS",
    "Law",
    "LawFit",
    "LawOptions",
    "StudyAnalysis",
    "analyse",
    "fit",
    "law_named",
    "write_fit_json",
]
