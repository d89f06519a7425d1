"""The laws of a table as text for a terminal: what `sapis fit TABLE` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.text import Text

from sapis_lab.analysis.forecast import Forecast, farthest
from sapis_lab.analysis.forms import BentLaw
from sapis_lab.analysis.identify import interval_text
from sapis_lab.analysis.laws import COMPUTE_LAWS, SYMBOLS, Law, size_symbol
from sapis_lab.analysis.misfit import Misfit
from sapis_lab.analysis.profile import MANY
from sapis_lab.analysis.result import LawResult
from sapis_lab.analysis.selection import aicc
from sapis_lab.analysis.table import PointTable
from sapis_lab.analysis.table_fit import Held, TableFit, listed, together
from sapis_lab.analysis.uncertainty import intervals
from sapis_lab.screen import Table, new_table


def print_table_fit(fits: TableFit, console: Console) -> None:
    """What a reader must know before using a number, the laws side by side, and the forecasts."""
    table = fits.table
    cells = f" in {table.points.n_cells} cells" if table.points.n_cells < len(table.points) else ""
    how = {"auto": "Huber, 1.345 sigma", "none": "least squares"}.get(
        str(fits.robust), f"Huber, delta {fits.robust}"
    )
    if fits.n_rows:
        cells = f", the laws fitted to their means in {len(table.points)} cells of alike N and D"
    n = fits.n_rows or len(table.points)
    console.print(Text(f"{table.path}: {n} points{cells}; ln loss, {how}"), soft_wrap=True)
    for line in (*left_out_rows(table), *warnings_of(fits)):
        console.print(Text(line, style="yellow"), soft_wrap=True)
    console.print()
    console.print(_grid(fits, console.width))
    legend = (
        "AICc from the best law; weight: in the average; LOO: rms of ln(forecast/measured), each point left "
        f"out; [ ]: 95 % profile intervals{_of_noise(fits)}; ?: not identified."
    )
    console.print(Text(legend, "dim"), soft_wrap=True)
    others = [name for name in fits.fits if name not in fits.close]
    if others:
        scores = [s for name in others if (s := aicc(fits.fits[name])) is not None]
        best = [s for f in fits.fits.values() if (s := aicc(f)) is not None]
        away = f", {min(scores) - min(best):.1f} or more of AICc from the best" if scores and best else ""
        others_text = f"Fitted too, without intervals: {len(others)} laws{away} (--json)."
        console.print(Text(others_text, "dim"), soft_wrap=True)
    console.print()
    for line in sentences_of(fits):
        console.print(Text(line), soft_wrap=True)
    if fits.forecasts:
        console.print()
        console.print(_forecasts(fits.forecasts, fits))
    if fits.held:
        console.print()
        _print_held(fits, console)


SHOWN = ("alpha", "beta", "gamma", "sigma", "E")
"""Parameters that stand in tables of laws."""
WIDE = 120
"""Width of a screen on which every parameter has a column of its own."""


def _grid(fits: TableFit, width: int) -> Table:
    close = fits.close
    names = [n for n in SHOWN if any(r.fit and n in r.fit.law.param_names for r in close.values())]
    heads = parameter_heads(names, width)
    grid = new_table("law", "AICc", "weight", "LOO", *heads, left=["law", *heads], wrapped=heads)
    best = min((a for f in fits.fits.values() if (a := aicc(f)) is not None), default=None)
    for name, result in close.items():
        assert result.fit is not None
        score, chosen = aicc(result.fit), name == fits.selected
        row = [
            f"{name} *" if chosen else name,
            "–" if score is None or best is None else f"{score - best:+.1f}",
            f"{fits.weights.get(name, 0.0):.2f}",
            "–" if result.loo is None else f"{result.loo.rmse:.4f}",
        ]
        grid.add_row(*row, *parameter_cells(result, names, width), style="bold" if chosen else "")
    return grid


def parameter_heads(names: Sequence[str], width: int) -> list[str]:
    """Headings of the columns of these parameters: one each, or one for all on a narrow screen."""
    return [SYMBOLS.get(n, n) for n in names] if width >= WIDE else ["parameters"]


def parameter_cells(result: LawResult, names: Sequence[str], width: int) -> list[Text]:
    """The cells of `parameter_heads`; on a narrow screen each parameter has a line."""
    cells = [parameter_cell(result, n) for n in names]
    if width >= WIDE:
        return cells
    lines = [Text(f"{SYMBOLS.get(n, n)} ") + cell for n, cell in zip(names, cells, strict=True) if cell.plain]
    return [Text("\n").join(lines)]


def _of_noise(fits: TableFit) -> str:
    """For the legend: what the intervals take the noise to be."""
    groups = fits.table.points.group is not None
    noise = "for equal noise of ln loss"
    if groups:
        noise = "of residuals that err together in a group"
        noise += ", by the column of weights" if fits.table.points.weight is not None else ""
    elif fits.n_rows:
        noise = "for the noise of means over cells"
    elif fits.table.points.weight is not None:
        noise = "for noise by the column of weights"
    elif fits.weighted and fits.noise is not None:
        noise = f"for noise that changes with {fits.noise.variable}"
    n = fits.effort.n_simulations
    if not n or fits.fits[fits.selected].degrees_of_freedom >= MANY:
        return f" {noise}"
    # the tail that a critical value is estimated from is known to 8 % with 199 data sets, its root to half
    share = 4.0 * np.sqrt(199 / n)
    return f" {noise}, their ends known to {share:.0f} % of the width by {n} simulations each (--calibrate)"


def misfit_text(law: str, found: Misfit, *, sizes: Sequence[str] = ("N", "D")) -> str:
    """That a law misses the data, and where; `sizes` as they are headed."""
    where = (
        " and ".join(edge.text for edge in found.edges[:2])
        or f"by less than the noise at every edge of {' and '.join(sizes)}"
    )
    p = min(found.p_value, found.p_repeats if found.p_repeats is not None else 1.0)
    against = "trends of its residuals" if p == found.p_value else "the scatter of repeats"
    return (
        f"The law {law} misses the data: {where} (noise {found.noise:.2g} of ln loss; test against "
        f"{against}, p = {p:.1g}); its intervals take it to be right, and are too narrow"
    )


def warnings_of(fits: TableFit) -> Iterator[str]:
    """Where the laws asked for could not be used, where the chosen one fails, and where the noise does."""
    steps = fits.table.points.steps
    if steps is not None and not np.ptp(steps) and not fits.fits[fits.selected].law.of_steps:
        who = f"--hold-out {', '.join(fits.conditions)} leaves" if fits.held else "The points have"
        yield (
            f"{who} one number of training steps, S = {steps[0]:.6g}: no law of steps can be fitted, and "
            f"the laws here take every run, also one that is forecast, for one of that S"
        )
    if fits.misfit is not None and fits.misfit.found:
        yield misfit_text(fits.selected, fits.misfit, sizes=size_heads(fits))
    noise = fits.noise
    if noise is not None and noise.unequal:
        done = "points are weighted by it" if fits.weighted else "points count alike all the same"
        yield (
            f"The noise changes with {noise.variable}, as {noise.variable}^{noise.slope:+.2f} (p = "
            f"{noise.p_value:.1g}); {done}"
        )


def _forecasts(forecasts: Sequence[Forecast], fits: TableFit) -> Table:
    compute = fits.selected in COMPUTE_LAWS
    left = ["forecast of", "95 % interval"]
    grid = new_table("forecast of", "weight", "loss", "95 % interval", "beyond", left=left)
    for found in forecasts:
        at = f"C {found.n_params:.4g}" if compute else f"N {found.n_params:.4g}, D {found.n_frames:.4g}"
        at += "" if found.steps is None else f", S {found.steps:.4g}"
        beyond = beyond_text(found.distance, compute=compute)
        average = f"{found.value:.5g}", f"[{found.low:.5g}, {found.high:.5g}]"
        grid.add_row(at, "", *average, beyond, style="bold")
        shown = sorted(found.laws, key=lambda name: -found.weights[name])[:4]
        for name in dict.fromkeys([*shown, *([fits.selected] if fits.selected in found.laws else [])]):
            law = found.laws[name]
            mark = f"  {name} *" if name == fits.selected else f"  {name}"
            values = f"{law.value:.5g}", f"[{law.low:.5g}, {law.high:.5g}]"
            grid.add_row(mark, f"{found.weights[name]:.2f}", *values, "")
    return grid


def beyond_text(distance: Mapping[str, float], *, compute: bool) -> str:
    """How far a target lies beyond the points, in the size that is farthest."""
    word, factor = farthest(distance, compute=compute)
    return f"{factor:.3g} x {word}" if factor > 1 else "inside"


def size_heads(fits: TableFit) -> list[str]:
    """Headings of the sizes of a run."""
    if fits.selected in COMPUTE_LAWS:
        return ["C"]
    return ["N", "D", *([] if fits.table.points.steps is None else ["S"])]


def sizes_at(found: Forecast, *, compute: bool) -> list[float]:
    """The sizes of a forecast, under `size_heads`."""
    if compute:
        return [found.n_params]
    return [found.n_params, found.n_frames, *([] if found.steps is None else [found.steps])]


def largest_first(held: Held) -> tuple[float, float]:
    """A key that sorts runs by N D, and then by S."""
    return -held.forecast.n_params * held.forecast.n_frames, -(held.forecast.steps or 0.0)


MOST_HELD = 12
"""Rows of runs left out that are printed; all are in --json."""


def _print_held(fits: TableFit, console: Console) -> None:
    """The runs that were left out beside their forecasts, the largest first."""
    compute = fits.selected in COMPUTE_LAWS
    held = sorted(fits.held, key=largest_first)
    sizes = size_heads(fits)
    grid = new_table(*sizes, "measured", "forecast", "95 % interval", "error", left=["95 % interval"])
    for h in held[:MOST_HELD]:
        f = h.forecast
        at = [f"{v:.4g}" for v in sizes_at(f, compute=compute)]
        mark = "" if h.inside else " outside"
        grid.add_row(
            *at,
            f"{h.loss:.5g}",
            f"{f.value:.5g}",
            f"[{f.low:.5g}, {f.high:.5g}]{mark}",
            f"{100 * np.expm1(h.error):+.2f} %",
        )
    console.print(grid)
    errors = np.array([h.error for h in held])
    inside = sum(h.inside for h in held)
    more = f" ({len(held) - MOST_HELD} more rows in --json)" if len(held) > MOST_HELD else ""
    console.print(
        Text(
            f"Left out ({', '.join(fits.conditions)}): {len(held)} runs, rms of ln(forecast/measured) "
            f"{np.sqrt(np.mean(errors**2)):.4f}, mean {errors.mean():+.4f}; {inside} of {len(held)} inside "
            f"their intervals{more}"
        ),
        soft_wrap=True,
    )


def left_out_rows(table: PointTable) -> Iterator[str]:
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


def parameter_cell(result: LawResult, name: str) -> Text:
    fit = result.fit
    assert fit is not None
    if name not in fit.law.param_names:
        return Text("")
    term = next(t for t in fit.law.terms if name in (t.exponent, t.amplitude))
    limits = None if result.intervals is None else result.intervals[name]
    known = next(v.identified for v in result.verdicts if v.term == term.name)
    digits = (".3f" if term.exponent == name else ".4g") if known else ".2g"
    exponent = term.exponent == name
    shown = "" if limits is None else " " + interval_text(limits, digits=digits, exponent=exponent)
    return Text(f"{fit.params[name]:{digits}}{shown}") if known else Text(f"?{shown}", "yellow")


def formula(law: Law, params: Mapping[str, float], known: Mapping[str, bool] | None = None) -> str:
    """The law written out with its numbers; those of terms that are not `known`, by name, as symbols."""

    def number(name: str, digits: str, term: str) -> str:
        if known is None or known.get(term, True):
            return f"{params[name]:{digits}}"
        return SYMBOLS.get(name, name)

    parts, size = {}, size_symbol(law)
    for t in law.terms:
        variable = {(1.0, 0.0): size, (0.0, 1.0): "D", (1.0, 1.0): "(N D)", (0.0, 0.0): "S"}
        at = variable[(t.power_n, t.power_d)]
        text = number(t.amplitude, ".5g", t.name)
        if t.exponent:
            text += f" {at}^-{number(t.exponent, '.4f', t.name)}"
        if isinstance(law, BentLaw) and t.name == law.broken:
            first, place = ("alpha_0", "N_b") if t.name == "n" else ("beta_0", "D_b")
            steep = (
                f"{params[first] - params[t.exponent or '']:+.4f}"
                if known is None or known.get(t.name, True)
                else f"({SYMBOLS[first]} - {SYMBOLS[t.exponent or '']})"
            )
            text += f" (1 + {number(place, '.4g', t.name)}/{at})^{steep}"
        if isinstance(law, BentLaw) and law.cross and t.name == "d":
            n_0, d_0 = f"{params['N_0']:.4g}", f"{params['D_0']:.4g}"
            p, kappa = number("p", ".4f", "d"), number("kappa", ".4f", "d")
            text += f" (N/{n_0})^-({p} + {kappa} ln(D/{d_0}))"
        parts[t.name] = text
    floor = parts.pop("e", None)
    if not isinstance(law, BentLaw):
        return "L = " + " + ".join([*parts.values(), *([floor] if floor else [])])
    if law.mean == "sum":
        inner = " + ".join(parts.values())
    else:
        q = number("q", ".4f", "n") if law.mean == "pnorm" else number(law.exponent_of("d"), ".4f", "d")
        inner = "[" + " + ".join(f"({text})^(1/{q})" for text in parts.values()) + f"]^{q}"
    if law.ceiling:
        inner = f"1 / (1/({inner}) + 1/{number('S', '.5g', 'n')})"
    return f"L = {inner}" + (f" + {floor}" if floor else "")


def sentences_of(fits: TableFit) -> Iterator[str]:
    chosen = fits.laws[fits.selected]
    assert chosen.fit is not None
    yield f"Chosen: {fits.selection_note}."
    known = {v.term: v.identified for v in chosen.verdicts}
    yield f"  {formula(chosen.fit.law, chosen.fit.params, known)}"
    extra = [_extra(chosen, name) for name in chosen.fit.law.extra_names]
    if extra:
        yield f"  {', '.join(extra)}"
    yield from remarks_of(fits)
    if chosen.bootstrap is not None and len(chosen.bootstrap.params):
        boot, names = chosen.bootstrap, chosen.fit.law.param_names
        found = intervals(boot, names)
        shown = ", ".join(
            f"{SYMBOLS.get(n, n)} [{found[n][0]:.3f}, {found[n][1]:.3f}]"
            for n in chosen.fit.law.exponent_names
        )
        yield f"By {boot.n_resamples} bootstraps of {boot.resampling}: {shown}"
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
    floor = next((r for n, r in fits.close.items() if r.intervals and n in _floored(fits.selected)), None)
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
        value = (
            f"? [{low}, {high}], not identified" if all(r.r_star_open) else f"{r.r_star:.3g} [{low}, {high}]"
        )
        yield (
            f"Repeated data, {r.fit.law.name}: R* = {value}, "
            f"{formula(r.fit.law, r.fit.params, known)} with D_eff for D"
        )


FAR, FEW = 10.0, 6
"""A law farther than `FAR` of AICc from the best has no remarks, unless no more than `FEW` were asked for."""


def _floored(law: str) -> tuple[str, ...]:
    """The law with a floor that stands beside one without."""
    head, _, tags = law.partition(":")
    base = "n+d" if head == "n+d+nd" else head
    return tuple(f"{base}+e{f':{t}' if t else ''}" for t in dict.fromkeys([tags]))


def _extra(result: LawResult, name: str) -> str:
    """An extra parameter of a law with its interval."""
    assert result.fit is not None
    limits = None if result.intervals is None else result.intervals.get(name)
    if limits is None:
        shown = ""
    elif name in ("alpha_0", "beta_0"):
        shown = " " + interval_text(limits, digits=".3g")
    else:
        shown = f" [{limits[0]:.3g}, {limits[1]:.3g}]".replace("inf", "∞")
    return f"{SYMBOLS.get(name, name)} = {result.fit.params[name]:.3g}{shown}"


def _worth_a_remark(fits: TableFit) -> Iterator[tuple[str, LawResult]]:
    """Laws that a reader is told of: those with intervals that are not far from the best."""
    best = min((s for f in fits.fits.values() if (s := aicc(f)) is not None), default=None)
    for name, result in fits.close.items():
        score = None if result.fit is None else aicc(result.fit)
        near = best is None or score is None or score - best < FAR
        if near or name == fits.selected or len(fits.laws) <= FEW:
            yield name, result


def _block(block: str, law: Law) -> str:
    """What is largest in held-out points, in the symbols of a law."""
    return {"n_params": size_symbol(law), "n_frames": "D", "n_params*n_frames": "N x D"}[block]


def remarks_of(fits: TableFit) -> Iterator[str]:
    """What a reader must know of the laws, a line for each kind of remark with the laws that it is of."""
    kinds: dict[str, list[str]] = {}
    for name, result in _worth_a_remark(fits):
        for kind, text in _remarks(name, result):
            kinds.setdefault(kind, []).append(text)
    why: dict[str, list[str]] = {}
    for name, result in _worth_a_remark(fits):
        for text, reason in _open(name, result):
            why.setdefault(reason, []).append(text)
    if why:
        yield f"Not identified: {'; '.join(f'{listed(texts)} ({reason})' for reason, texts in why.items())}."
    for kind, texts in kinds.items():
        yield f"{kind}: {'; '.join(texts)}."
    missing = [
        (r.law, (r.why_not or "").removeprefix("not fitted: ")) for r in fits.laws.values() if not r.fit
    ]
    if missing:
        yield f"Not fitted: {'; '.join(together(missing))}."


def _open(name: str, result: LawResult) -> Iterator[tuple[str, str]]:
    """Terms of a law that are not identified, each with the reason."""
    if result.fit is None:
        return
    terms = {t.name: t.exponent or t.amplitude for t in result.fit.law.terms}
    for verdict in result.verdicts:
        if not verdict.identified:
            # a p-value stands with its test
            known = [r for r in verdict.reasons if not r.startswith("p = ")]
            parameter = terms[verdict.term]
            reason = "; ".join(known) or "the points are described as well without its term"
            yield f"{SYMBOLS.get(parameter, parameter)} of {name}", reason


def _remarks(name: str, result: LawResult) -> Iterator[tuple[str, str]]:
    """Other remarks about one law, each after the kind that it belongs to."""
    fit = result.fit
    if fit is None:
        return
    if not fit.converged or "bound" in fit.message:
        yield "How the fit ended", f"{name}: {fit.message}"
    rivals = [m for m in fit.modes[1:] if m.objective < 1.2 * fit.objective]
    if rivals:
        yield "Other optima within 20 % of the objective", f"{name} {len(rivals)}"
    if result.lack_of_fit is not None:
        test = result.lack_of_fit
        yield "Lack of fit against repeats", f"{name} F{test.dof} = {test.F:.2f}, p = {test.p_value:.2g}"
    for kind, ratio in (("interaction", result.interaction), ("floor", result.floor)):
        if ratio is not None:
            point = f"95 % point {ratio.critical:.1f} by {ratio.n_simulations} simulations"
            yield (
                f"Likelihood ratio of the {kind}",
                f"{name} against {ratio.small} {_ratio(ratio.statistic)} ({point}), p = {ratio.p_value:.2g}",
            )


def _ratio(value: float) -> str:
    return f"{value:.1f}" if value < 1e5 else f"{value:.1e}"
