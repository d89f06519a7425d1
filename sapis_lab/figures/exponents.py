"""Exponents of every model with their 95 % intervals, for each law fitted."""

import matplotlib as mpl
import pandas as pd

from sapis_lab.analysis.laws import MAX_EXPONENT, SYMBOLS
from sapis_lab.analysis.study import ModelAnalysis, StudyAnalysis
from sapis_lab.figures._drawing import Drawing, NotDrawn
from sapis_lab.figures._style import PAGE, RC, looks, new_figure

WIDEST = 1.6
"""Exponents beyond this are not resolved by any lattice here; their intervals leave the panel with an
arrow."""


def draw(study: StudyAnalysis) -> Drawing | NotDrawn:
    """One panel an exponent; filled symbols are identified, hollow ones with thin dashed intervals are
    not."""
    table = exponent_table(study)
    if table.empty:
        return NotDrawn("no law could be fitted with intervals")
    names = [n for n in SYMBOLS if n in set(table["exponent"])]
    rows = list(dict.fromkeys(zip(table["model"], table["law"], strict=True)))
    look = looks(study.runs)
    with mpl.rc_context(RC):
        figure = new_figure(PAGE, 0.7 + 0.2 * len(rows))
        panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
        for axes, name in zip(panels, names, strict=True):
            for row in table[table["exponent"] == name].itertuples():
                y, style = rows.index((row.model, row.law)), look[row.model]
                line = {"ls": "-", "lw": 1.1} if row.identified else {"ls": (0, (2, 2)), "lw": 0.8}
                axes.plot([row.low, min(row.high, WIDEST)], [y, y], color=style.color, **line)
                if row.high > WIDEST:
                    axes.plot(WIDEST, y, color=style.color, marker=">", ms=3, clip_on=False)
                if row.identified or row.value <= WIDEST:
                    axes.plot(
                        row.value,
                        y,
                        color=style.color,
                        marker=style.marker,
                        mfc=style.color if row.identified else "white",
                    )
            axes.set_xlim(0, min(WIDEST, max(0.2, 1.08 * table["high"].clip(upper=WIDEST).max())))
            axes.set_xlabel(f"exponent {SYMBOLS[name]}")
        panels[0].set_yticks(range(len(rows)), [f"{model}   {law}" for model, law in rows])
        panels[0].set_ylim(len(rows) - 0.4, -0.6)
    return Drawing(figure, table, _caption(table))


def exponent_table(study: StudyAnalysis) -> pd.DataFrame:
    """Columns model, part, law, exponent, value, low, high, identified; one row an exponent, by family and
    l_max."""
    rows = []
    families = list(dict.fromkeys(m.family for m in study.models.values()))
    for model in sorted(study.models.values(), key=lambda m: (families.index(m.family), _lmax(m))):
        for result in model.laws.values():
            if result.fit is None or result.intervals is None:
                continue
            for term, verdict in zip(result.fit.law.terms, result.verdicts, strict=True):
                if term.exponent:
                    low, high = result.intervals[term.exponent]
                    value = result.fit.params[term.exponent]
                    rows.append(
                        (
                            model.name,
                            "exponent",
                            result.law,
                            term.exponent,
                            value,
                            low,
                            high,
                            verdict.identified,
                        )
                    )
    return pd.DataFrame(
        rows, columns=["model", "part", "law", "exponent", "value", "low", "high", "identified"]
    )


def _lmax(model: ModelAnalysis) -> int:
    degree = model.runs["lmax"].dropna()
    return int(degree.iloc[0]) if len(degree) else -1


def _caption(table: pd.DataFrame) -> str:
    known, unknown = int(table["identified"].sum()), int((~table["identified"]).sum())
    return (
        f"Exponents with 95 % profile-likelihood intervals. Filled symbols and full lines: the {known} "
        f"exponents that the points identify. "
        f"Hollow symbols and dashed lines: the {unknown} that they do not; no value should be read from "
        f"those. "
        f"An arrow marks an interval that goes on to the right (exponents are sought up to {MAX_EXPONENT:g})."
    )
