"""Do exponents differ between models? Pairwise differences with intervals and p-values corrected for their
number."""

import matplotlib as mpl
import pandas as pd

from sapis_lab.analysis.laws import SYMBOLS
from sapis_lab.analysis.study import StudyAnalysis
from sapis_lab.figures._drawing import Drawing, NotDrawn
from sapis_lab.figures._style import PAGE, RC, new_figure

LEVEL = 0.05


def draw(study: StudyAnalysis) -> Drawing | NotDrawn:
    """One panel an exponent, one row a pair; filled where the corrected p-value is below 5 %, with that value
    beside it."""
    tests = study.exponent_tests
    if len(study.models) < 2:
        return NotDrawn("there is one model, and nothing to compare it with")
    if not tests:
        return NotDrawn("no two models have an exponent of one law with a closed interval that excludes 0")
    names = [n for n in SYMBOLS if any(t.exponent == n for t in tests)]
    pairs = list(dict.fromkeys((t.model, t.other) for t in tests))
    with mpl.rc_context(RC):
        figure = new_figure(PAGE, 0.75 + 0.22 * len(pairs))
        panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
        for axes, name in zip(panels, names, strict=True):
            mine = [t for t in tests if t.exponent == name]
            for t in mine:
                row, color = pairs.index((t.model, t.other)), "0.15" if t.p_holm < LEVEL else "0.55"
                axes.plot([t.low, t.high], [row, row], color=color, lw=1.0)
                axes.plot(
                    t.difference, row, color=color, marker="o", mfc=color if t.p_holm < LEVEL else "white"
                )
                axes.annotate(
                    f"p = {t.p_holm:.2g}",
                    (1.0, row),
                    xycoords=("axes fraction", "data"),
                    xytext=(3, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=6,
                    annotation_clip=False,
                )
            axes.axvline(0, color="0.4", lw=0.8, ls=":", zorder=0)
            axes.set_xlabel(f"difference of {SYMBOLS[name]}")
        panels[0].set_yticks(range(len(pairs)), [f"{a} − {b}" for a, b in pairs])
        panels[0].set_ylim(len(pairs) - 0.4, -0.6)
    table = pd.DataFrame([vars(t) for t in tests]).assign(part="difference")
    clear = [t for t in tests if t.p_holm < LEVEL]
    found = "; ".join(
        f"{SYMBOLS[t.exponent]} of {t.model} − {t.other}: {t.difference:+.2f} [{t.low:.2f}, {t.high:.2f}]"
        for t in clear
    )
    return Drawing(
        figure,
        table,
        f"Differences of the exponents of law {tests[0].law}, which describes all models best together, with "
        f"95 % intervals, and p-values "
        f"of equal exponents, corrected by Holm's method for {len(tests)} tests. Filled: corrected p below "
        f"{LEVEL}. " + (f"Clear: {found}." if clear else "No difference is clear."),
    )
