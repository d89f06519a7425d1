"""Profile curves of every exponent: how much worse the best fit becomes when one exponent is held at another
value."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy import stats

from sapis_lab.analysis.exponents import signed_root
from sapis_lab.analysis.laws import SYMBOLS
from sapis_lab.analysis.result import LawResult
from sapis_lab.analysis.study import StudyAnalysis
from sapis_lab.figures._drawing import Drawing, NotDrawn
from sapis_lab.figures._style import PAGE, RC, Look, looks, new_figure

CHI2 = float(stats.chi2.ppf(0.95, 1))
TOP = 12.0
WIDEST = 2.0
"""Exponents that are shown; a lattice that allows larger ones does not resolve them."""
N_VALUES = 201


def draw(study: StudyAnalysis) -> Drawing | NotDrawn:
    """One row a law, one column an exponent, one line a model; the cut of chi square, and the calibrated cut
    at each end."""
    laws = list(dict.fromkeys(law for m in study.models.values() for law, r in m.laws.items() if r.profiles))
    if not laws:
        return NotDrawn("no law has a degree of freedom left for a profile")
    names = [
        n
        for n in SYMBOLS
        if any(n in (r.profiles or {}) for m in study.models.values() for r in m.laws.values())
    ]
    parts, shown = [], {}
    with mpl.rc_context(RC):
        figure = new_figure(PAGE, 0.55 + 1.75 * len(laws))
        panels = figure.subplots(len(laws), len(names), sharex="col", sharey=True, squeeze=False)
        for row, law in zip(panels, laws, strict=True):
            for axes, name in zip(row, names, strict=True):
                found = {
                    m.name: m.laws[law]
                    for m in study.models.values()
                    if law in m.laws and name in (m.laws[law].profiles or {})
                }
                if not found:
                    axes.set_axis_off()
                    continue
                axes.axhline(CHI2, color="0.4", lw=0.8, ls=":", zorder=0)
                for model, result in found.items():
                    parts.append(
                        _paint(axes, result, name, looks(study.runs)[model]).assign(
                            model=model, law=law, exponent=name
                        )
                    )
                    shown[model] = axes.lines[-1]
                axes.tick_params(labelbottom=True)
                axes.set_xlabel(SYMBOLS[name], labelpad=1)
            row[0].set_ylabel(f"{law}\nT")
        numbers = pd.concat(parts, ignore_index=True)
        for k, name in enumerate(names):
            right = numbers[(numbers["exponent"] == name) & (numbers["statistic"] < TOP)]["value"].max()
            panels[0, k].set_xlim(0, min(WIDEST, 1.05 * right))
        panels[0, 0].set_ylim(0, TOP)
        figure.legend(list(shown.values()), list(shown), loc="outside upper center", ncols=min(len(shown), 5))
    return Drawing(figure, numbers, _caption(numbers))


def _paint(axes: Axes, result: LawResult, name: str, look: Look) -> pd.DataFrame:
    assert result.profiles is not None and result.fit is not None
    profile, best = result.profiles[name], result.fit.params[name]
    v = np.unique(np.r_[np.linspace(0.0, WIDEST, N_VALUES), best])
    T = signed_root(profile, best)(v) ** 2
    known = (v >= profile.value.min()) & (v <= profile.value.max())
    axes.plot(v[known], T[known], color=look.color, ls=look.line, lw=1.0)
    rows = [pd.DataFrame({"part": "profile", "value": v[known], "statistic": T[known]})]
    # where the interval ends, at the height of the cut that was used there
    for end, cut, still_open in zip(
        profile.interval, profile.cuts, (profile.open_low, profile.open_high), strict=True
    ):
        if not still_open:
            axes.plot(end, cut, color=look.color, ls="none", marker=look.marker, ms=3.5, zorder=3)
            rows.append(pd.DataFrame([{"part": "end", "value": end, "statistic": cut}]))
    axes.plot([], [], color=look.color, ls=look.line, marker=look.marker, ms=3.5)
    return pd.concat(rows, ignore_index=True)


def _caption(numbers: pd.DataFrame) -> str:
    cuts = numbers[numbers["part"] == "end"]["statistic"]
    text = (
        "Profile statistic T of every exponent of every law: 0 at the best value, all other parameters "
        "fitted again elsewhere. "
        f"Dotted: the cut of chi square, {CHI2:.2f}. Symbols: the ends of the 95 % intervals, at the height "
        f"of the cut that was used there"
    )
    ends = f" ({cuts.min():.2f} to {cuts.max():.2f})" if len(cuts) else ""
    return f"{text}{ends}. A curve that leaves the panel below its cut is open on that side."
