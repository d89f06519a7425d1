"""The laws of a table as text for a terminal: what `sapis fit TABLE` prints."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from sapis_lab.analysis.identify import interval_text
from sapis_lab.analysis.laws import SYMBOLS, Law, size_symbol
from sapis_lab.analysis.result import LawResult
from sapis_lab.analysis.selection import aicc
from sapis_lab.analysis.table import PointTable
from sapis_lab.analysis.table_fit import TableFit, together
from sapis_lab.screen import new_table


def print_table_fit(fits: TableFit, console: Console) -> None:
    """The laws side by side, and beneath them what a reader must know before using a number."""
    table = fits.table
    cells = f" in {table.points.n_cells} cells" if table.points.n_cells < len(table.points) else ""
    how = {"auto": "Huber, 1.345 sigma", "none": "least squares"}.get(
        str(fits.robust), f"Huber, delta {fits.robust}"
    )
    console.print(Text(f"{table.path}: {len(table.points)} points{cells}; ln loss, {how}"), soft_wrap=True)
    for line in _left_out(table):
        console.print(Text(line, style="yellow"), soft_wrap=True)
    console.print()
    names = [
        n
        for n in ("alpha", "beta", "gamma", "E")
        if any(r.fit and n in r.fit.law.param_names for r in fits.laws.values())
    ]
    symbols = [SYMBOLS.get(n, n) for n in names]
    grid = new_table("law", "AICc", "LOO", "sd", *symbols, left=["law", *symbols])
    best = min((a for r in fits.laws.values() if r.fit and (a := aicc(r.fit)) is not None), default=None)
    for name, result in fits.laws.items():
        if result.fit is None:
            continue
        score, chosen = aicc(result.fit), name == fits.selected
        row = [
            f"{name} *" if chosen else name,
            "–" if score is None or best is None else f"{score - best:+.1f}",
            "–" if result.loo is None else f"{result.loo.rmse:.4f}",
            "–" if result.fit.residual_sd is None else f"{result.fit.residual_sd:.4f}",
        ]
        grid.add_row(*row, *(_cell(result, n) for n in names), style="bold" if chosen else "")
    console.print(grid)
    legend = (
        "AICc from the best law; LOO: rms of ln(forecast/measured), each point left out; [ ]: 95 % profile "
        "intervals; ?: not identified."
    )
    console.print(Text(legend, "dim"))
    console.print()
    for line in _sentences(fits):
        console.print(Text(line), soft_wrap=True)


def _left_out(table: PointTable) -> Iterator[str]:
    """A sentence on each sort of rows that are no points."""
    if table.n_copies:
        equal = (
            "1 row equals an earlier one"
            if table.n_copies == 1
            else f"{table.n_copies} rows equal earlier ones"
        )
        advice = "runs that are to count as repeats must differ in a column, such as a seed"
        yield f"{equal} in every column and count as copies of one run; {advice}"
    if table.n_dropped:
        were = "1 row has" if table.n_dropped == 1 else f"{table.n_dropped} rows have"
        yield f"{were} no number in a column that is needed, left out"
    if table.columns.best_over:
        were = "1 row" if table.n_reduced == 1 else f"{table.n_reduced} rows"
        over = ", ".join(table.columns.best_over)
        yield f"{were} left out: for each N and D the best {over} stays, by the mean loss over its seeds"


def _cell(result: LawResult, name: str) -> Text:
    fit = result.fit
    assert fit is not None
    if name not in fit.law.param_names:
        return Text("")
    term = next(t for t in fit.law.terms if name in (t.exponent, t.amplitude))
    limits = None if result.intervals is None else result.intervals[name]
    known = next(v.identified for v in result.verdicts if v.term == term.name)
    digits = (".3f" if term.exponent == name else ".4g") if known else ".2g"
    shown = "" if limits is None else " " + interval_text(limits, digits=digits)
    return Text(f"{fit.params[name]:{digits}}{shown}") if known else Text(f"?{shown}", "yellow")


def formula(law: Law, params: dict[str, float]) -> str:
    """The law written out with its numbers."""
    variable = {(1.0, 0.0): size_symbol(law), (0.0, 1.0): "D", (1.0, 1.0): "(N D)"}
    parts = []
    for t in law.terms:
        power = f" {variable[(t.power_n, t.power_d)]}^-{params[t.exponent]:.4f}" if t.exponent else ""
        parts.append(f"{params[t.amplitude]:.5g}{power}")
    return "L = " + " + ".join(parts)


def _sentences(fits: TableFit) -> Iterator[str]:
    chosen = fits.laws[fits.selected]
    assert chosen.fit is not None
    yield f"Chosen: {fits.selection_note}."
    yield f"  {formula(chosen.fit.law, chosen.fit.params)}"
    yield from together((name, text) for name, result in fits.laws.items() for text in _remarks(result))
    held = [h for h in chosen.held_out if not isinstance(h, str)]
    if held:
        shown = ", ".join(
            f"largest {_block(h.block, chosen.fit.law)} ({h.n_held} point{'s' if h.n_held > 1 else ''}) "
            f"{h.rmse:.3f} (mean {h.bias:+.3f})"
            for h in held
        )
        yield (
            f"{fits.selected} fitted without the largest points forecasts them with an rms of ln L of: "
            f"{shown}"
        )
    floor = next(
        (r for n, r in fits.laws.items() if r.intervals and n.startswith("n+d+e") and "nd" not in n), None
    )
    if (
        floor is not None
        and floor.intervals is not None
        and "E" not in chosen.fit.law.param_names
        and floor.intervals["E"][1] > 0
    ):
        highest = f"{floor.intervals['E'][1]:.4g}"
        yield (
            f"A floor of up to {highest} is not excluded ({floor.law}): beyond these points the loss may "
            f"flatten there."
        )
    if fits.repeated is not None:
        r = fits.repeated
        low = ("≤ " if r.r_star_open[0] else "") + f"{r.r_star_interval[0]:.3g}"
        high = ("≥ " if r.r_star_open[1] else "") + f"{r.r_star_interval[1]:.3g}"
        yield (
            f"Repeated data, {r.fit.law.name}: R* = {r.r_star:.3g} [{low}, {high}], "
            f"{formula(r.fit.law, r.fit.params)} with D_eff for D"
        )


def _block(block: str, law: Law) -> str:
    """What is largest in held-out points, in the symbols of a law."""
    return {"n_params": size_symbol(law), "n_frames": "D", "n_params*n_frames": "N x D"}[block]


def _remarks(result: LawResult) -> Iterator[str]:
    """What a reader must know of one law."""
    if result.fit is None:
        yield result.why_not or ""
        return
    for verdict in result.verdicts:
        if not verdict.identified:
            yield verdict.text
    if not result.fit.converged or "bound" in result.fit.message:
        yield result.fit.message
    rivals = [m for m in result.fit.modes[1:] if m.objective < 1.2 * result.fit.objective]
    if rivals:
        yield f"other optima within 20 % of the objective: {len(rivals)}"
    if result.lack_of_fit is not None:
        test = result.lack_of_fit
        yield f"lack of fit against repeats, F{test.dof} = {test.F:.2f}, p = {test.p_value:.2g}"
    for kind, ratio in (("interaction", result.interaction), ("floor", result.floor)):
        if ratio is not None:
            point = f"95 % point {ratio.critical:.1f} by {ratio.n_simulations} simulations"
            yield (
                f"{kind} against {ratio.small}, likelihood ratio {ratio.statistic:.1f} "
                f"({point}), p = {ratio.p_value:.2g}"
            )
