"""Rules of the best learning rate and batch size as text for a terminal: what `sapis rule` prints."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from rich.console import Console
from rich.text import Text

from sapis_lab.analysis.regime import Optimum, PowerRule
from sapis_lab.analysis.rule_table import ALL, ModelFit, Prediction, RuleFits, at_edge
from sapis_lab.screen import new_table

EXPONENTS = {"n_exponent": ("lambda", "N"), "d_exponent": ("mu", "D")}


def print_rules(
    fits: RuleFits, console: Console, *, predictions: dict[str, dict[str, list[Prediction]]]
) -> None:
    """Cells, rules, and beneath them what a reader must know before using a number."""
    source = fits.table
    cells = sum(len(m.sweeps) for m in fits.models.values())
    head = f"{source.path}: {source.n_runs} runs in {cells} cells, {source.n_diverged} of them diverged"
    console.print(Text(head), soft_wrap=True)
    if source.n_copies:
        one = source.n_copies == 1
        rows = "1 row equals an earlier one" if one else f"{source.n_copies} rows equal earlier ones"
        copies = f"{rows} in every column and count as copies of one run"
        console.print(Text(copies, style="yellow"), soft_wrap=True)
    for line in source.left_out:
        console.print(Text(f"left out: {line}", style="yellow"), soft_wrap=True)
    for model in fits.models.values():
        _print_model(model, console, predictions.get(model.model, {}))


def _print_model(m: ModelFit, console: Console, predictions: dict[str, list[Prediction]]) -> None:
    for name, rule in m.rules.items():
        console.print()
        about = "" if m.model == ALL else f"{m.model}: "
        console.print(Text(f"{about}best {name.replace('_', ' ')}", "bold"), soft_wrap=True)
        heads = ("N", "D", "best", "95 %", "rule", "runs", "used", "how")
        grid = new_table(*heads, left=["95 %", "how"], wrapped=["how"])  # numbers are never cut for a note
        for o in rule.optima:
            at = f"{rule.at(o.n_params, o.n_frames):.3g}"
            used = str(o.n_used) if o.method == "paraboloid" else "–"
            limits = f"{o.low:.3g} to {o.high:.3g}"
            row = [
                f"{o.n_params:.4g}",
                f"{o.n_frames:.4g}",
                f"{o.value:.3g}",
                limits,
                at,
                str(o.n_trials),
                used,
            ]
            grid.add_row(*row, _how(o), style="yellow" if o.note else "")
        console.print(grid)
        for line in _sentences(rule, name):
            console.print(Text(line), soft_wrap=True)
        for p in predictions.get(name, []):
            console.print(Text(_prediction(p, rule)), soft_wrap=True)
    console.print()
    for line in _about_cells(m):
        console.print(Text(line), soft_wrap=True)


def _how(o: Optimum) -> str:
    word = "bowl" if o.method == "paraboloid" else o.method
    return word + (f": {o.note}" if o.note else "")


def formula(rule: PowerRule) -> str:
    """The rule written out with its numbers."""
    sizes = [f"{s}^{getattr(rule, k):.3f}" for k, (_, s) in EXPONENTS.items() if getattr(rule, k)]
    return " ".join([f"{rule.kappa:.4g}", *sizes])


def _sentences(rule: PowerRule, name: str) -> Iterator[str]:
    yield f"{name.replace('_', ' ')} = {formula(rule)}"
    for key, (symbol, size) in EXPONENTS.items():
        value, limits = getattr(rule, key), rule.intervals[key]
        if limits is not None:
            zero = ": no trend is identified" if limits[0] <= 0 <= limits[1] else ""
            yield f"  {symbol:<7}{value:.3f}   95 % {limits[0]:.3f} to {limits[1]:.3f}{zero}"
        elif value:
            yield f"  {symbol:<7}{value:.3f}   interval not identified: no more cells than coefficients"
        else:
            yield f"  {symbol:<7}not identified: {size} did not vary"
    limits = rule.intervals["kappa"]
    shown = "" if limits is None else f"   95 % {limits[0]:.3g} to {limits[1]:.3g}"
    yield f"  kappa  {rule.kappa:.4g}{shown}"
    percent = 100 * (np.exp(rule.scatter) - 1)
    yield f"  scatter of the optima about the rule beyond their own uncertainties: {percent:.0f} %"


def _prediction(p: Prediction, rule: PowerRule) -> str:
    limits = "" if p.interval is None else f"   95 % {p.interval[0]:.3g} to {p.interval[1]:.3g}"
    far = []
    for k, exponent, s in (("n_params", "n_exponent", "N"), ("n_frames", "d_exponent", "D")):
        if p.beyond[k] > 1:
            still = "" if getattr(rule, exponent) else ", which did not vary in them: the rule knows none"
            far.append(f"{s} {p.beyond[k]:.3g} x beyond the cells{still}")
    where = f"  at N = {p.n_params:.4g}, D = {p.n_frames:.4g}"
    return f"{where}: {p.value:.3g}{limits}   ({', '.join(far) or 'within the cells'})"


def _about_cells(m: ModelFit) -> Iterator[str]:
    known = [p for p in m.penalties if p is not None]
    if known:
        worst = int(np.argmax([-1.0 if p is None else p for p in m.penalties]))
        cell = m.sweeps[worst]
        some = "" if len(known) == len(m.penalties) else f" of {len(known)} cells"
        where = f"N = {cell.n_params:.4g}, D = {cell.n_frames:.4g}"
        yield (
            f"With the rule instead of its own optimum the error of a cell is higher by "
            f"{100 * float(np.median(known)):.2g} % in the median{some}, "
            f"by {100 * max(known):.2g} % at worst ({where})."
        )
    if m.bowls is not None:
        source = "from repeats" if m.bowls.from_repeats else "from residuals"
        about = f"{source}, {m.bowls.noise_dof:.0f} degrees of freedom"
        yield f"Noise of one run: {100 * m.bowls.noise:.2g} % of its error ({about})."
    for name, rule in m.rules.items():
        edge = sum(at_edge(o) for o in rule.optima)
        if edge:
            others = "other bowls" if edge < len(rule.optima) else "bowls, seen from one side alone"
            yield (
                f"The best {name.replace('_', ' ')} lies at or beyond the edge of what was tried in {edge} "
                f"of {len(rule.optima)} cells: their optima rest on the shape of the {others}; widen the "
                f"search there."
            )
        alone = sum(o.method == "best trial" for o in rule.optima)
        if alone:
            yield f"In {alone} cells the best {name.replace('_', ' ')} is that of the best run; see how."
