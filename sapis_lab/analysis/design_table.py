"""`sapis design TABLE`: what to run next, from a table of runs and a pool, as plain data
(`report.design_text` prints it).

The pool is a table of its own, or the rows of the runs' table without a loss, or, without either, the grid of
N and D within the runs and one step around them. A price is a column of the pool or a formula of n and d.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sapis_lab.analysis.fit import Points, fit_points
from sapis_lab.analysis.laws import Array, law_named
from sapis_lab.analysis.misfit import Misfit, misfit
from sapis_lab.analysis.next_runs import (
    LAW_NAMES,
    Belief,
    Pool,
    Purchase,
    believe,
    first_runs,
    grid_around,
    plan,
)
from sapis_lab.analysis.result import plain
from sapis_lab.analysis.table import Columns, PointTable, check_differ, read_frame, read_points
from sapis_lab.analysis.table_fit import MIN_WEIGHT
from sapis_lab.analysis.table_numbers import number_column, positive_column

SCHEMA = 1
DEFAULT_PRICE = "n*d"
Source = Literal["pool", "rows without a loss", "grid"]


@dataclass(frozen=True)
class Candidates:
    """The pool, and where it comes from."""

    pool: Pool
    source: Source
    rows: np.ndarray | None
    """Row of each run in its file, from 1; None of a grid."""


@dataclass(frozen=True)
class TableDesign:
    """What to run next."""

    table: PointTable
    candidates: Candidates
    price: str
    budget: float
    targets: Array
    """(T, 2), N and D."""
    belief: Belief
    forecast: tuple[Array, Array] | None
    """L at the targets, and the standard deviation of ln L of a run there; None where no law can be fitted
    yet."""
    first: list[int]
    """Runs of the pool to begin with, where no law can be fitted yet."""
    purchases: list[Purchase]
    misfits: dict[str, Misfit] = field(default_factory=dict)
    """Laws in use that miss the runs, all of them alike, as `sapis fit` fits them."""

    @property
    def pool(self) -> Pool:
        return self.candidates.pool


def design_table(
    path: Path,
    columns: Columns,
    *,
    targets: Sequence[tuple[float, float]],
    pool: Path | None = None,
    price: str = DEFAULT_PRICE,
    budget: float = np.inf,
    laws: Sequence[str] = LAW_NAMES,
    most: int = 10,
    seed: int = 0,
    sheet: str | None = None,
) -> TableDesign:
    """The runs to make next for a forecast at the targets.

    Args:
        price: the name of a column of the pool, or a formula of n and d.   most: how many runs.

    Raises:
        ValueError: a table cannot be read, the price is neither, or no run of the pool can be paid.
    """
    frame = read_frame(path, sheet=sheet)
    loss = number_column(frame, columns.loss, path, role="the loss", empty="nan")
    table = _runs(
        path, columns, sheet=sheet, open_rows=pool is None and bool(np.isnan(loss).any()), loss=loss
    )
    if len(table.points) > 1:
        check_differ(table)
    candidates = _candidates(path, frame, columns, loss, table.points, pool=pool, price=price)
    prices = candidates.pool.price
    if not (prices <= budget).any():
        where = path if pool is None else pool
        raise ValueError(
            f"{where}: the cheapest of {len(prices)} possible runs costs {prices.min():.4g}, more than "
            f"--budget {budget:.4g}; raise the budget, or add cheaper runs to the pool"
        )
    wanted = np.array(targets, dtype=float).reshape(-1, 2)
    belief = believe(table.points, wanted, laws)
    if not belief.fits:
        generator = np.random.default_rng(seed)
        made = table.points.n_params, table.points.n_frames
        first = first_runs(candidates.pool, budget=budget, most=most, generator=generator, made=made)
        return TableDesign(table, candidates, price, budget, wanted, belief, None, first, [])
    purchases = plan(belief, candidates.pool, wanted, budget=budget, most=most)
    known = belief.forecast(wanted)
    missing = _misfits(belief, table.points)
    return TableDesign(table, candidates, price, budget, wanted, belief, known, [], purchases, missing)


def _misfits(belief: Belief, points: Points) -> dict[str, Misfit]:
    """The laws of some weight that are seen to miss the points."""
    misfits = {}
    for name, weight in belief.weights.items():
        found = misfit(fit_points(law_named(name), points)) if weight >= MIN_WEIGHT else None
        if found is not None and found.found:
            misfits[name] = found
    return misfits


def _runs(path: Path, columns: Columns, *, sheet: str | None, open_rows: bool, loss: Array) -> PointTable:
    """The runs that have been made; rows without a loss are left out where they are the pool."""
    if np.isnan(loss).all():
        raise ValueError(
            f"{path}, column {columns.loss!r}: no row has a loss; a design needs at least one finished run"
        )
    return read_points(path, columns, missing="drop" if open_rows else "refuse", sheet=sheet)


def _candidates(
    path: Path,
    frame: Any,
    columns: Columns,
    loss: Array,
    points: Points,
    *,
    pool: Path | None,
    price: str,
) -> Candidates:
    source: Source = "pool" if pool is not None else "rows without a loss" if np.isnan(loss).any() else "grid"
    if source == "grid":
        n, d = grid_around(points.n_params, points.n_frames)
        if price.strip().isidentifier() and price.strip() not in ("n", "d"):
            raise ValueError(
                f"--price {price!r}: a grid of N and D has no columns; wanted a formula of n and d such as "
                f"6*n*d, or a --pool with that column"
            )
        return Candidates(Pool(n, d, formula(price, n, d)), source, None)
    where = path if pool is None else pool
    frame = frame if pool is None else read_frame(pool)
    rows = np.flatnonzero(np.isnan(loss)) if pool is None else np.arange(len(frame))
    if not len(rows):
        raise ValueError(f"{where}: the pool has no rows")
    part = frame.iloc[rows] if pool is None else frame
    _check_open_rows(frame, columns, where, rows)
    assert columns.n_frames is not None
    n, d = (
        positive_column(part, name, where, role=role)
        for name, role in ((columns.n_params, "N"), (columns.n_frames, "D"))
    )
    prices = (
        positive_column(part, price, where, role="the price")
        if price in map(str, frame.columns)
        else formula(price, n, d, columns=list(map(str, frame.columns)), where=where)
    )
    return Candidates(Pool(n, d, prices), source, rows + 1)


def _check_open_rows(frame: Any, columns: Columns, where: Path, rows: np.ndarray) -> None:
    """N and D stand in every row of the pool, named by its row in the whole file."""
    for name, role in ((columns.n_params, "N"), (columns.n_frames or "", "D")):
        values = number_column(frame, name, where, role=role, empty="nan")
        lacking = rows[np.isnan(values[rows])]
        if len(lacking):
            raise ValueError(
                f"{where}, column {name!r}, row {lacking[0] + 1}: got nothing, wanted {role} of a run that "
                f"can be made; fill it in or take the row out"
            )


# -------------------------------------------------------------------------------------------------- the price

_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


def formula(
    text: str, n: Array, d: Array, *, columns: Sequence[str] = (), where: Path | None = None
) -> Array:
    """The prices that a formula of n and d such as `6*n*d` gives, (n,).

    Raises:
        ValueError: it is none, or a price is no positive number.
    """
    known = f"; {where} has the columns {', '.join(columns)}" if columns else ""

    def value(node: ast.AST) -> Any:
        if isinstance(node, ast.Name) and node.id.lower() in ("n", "d"):
            return n if node.id.lower() == "n" else d
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            assert isinstance(node.value, int | float)
            return float(node.value)
        if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
            return _BINARY[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -value(node.operand)
        raise ValueError

    try:
        with np.errstate(all="ignore"):
            tree = ast.parse(text.strip(), mode="eval")
            prices = np.broadcast_to(np.asarray(value(tree.body), dtype=float), n.shape).copy()
    except (SyntaxError, ValueError, OverflowError, ZeroDivisionError, RecursionError, TypeError):
        raise ValueError(
            f"--price {text!r}: wanted a column of the pool or a formula of n and d such as 6*n*d{known}"
        ) from None
    wrong = np.flatnonzero(~(np.isfinite(prices) & (prices > 0)))
    if len(wrong):
        k = wrong[0]
        raise ValueError(
            f"--price {text!r}: gives {prices[k]:g} at n = {n[k]:g}, d = {d[k]:g}, wanted positive prices"
        )
    return prices


# ------------------------------------------------------------------------------------------------- plain data


def design_json(found: TableDesign) -> dict[str, Any]:
    """What `--json` writes."""
    pool, rows = found.pool, found.candidates.rows

    def run(place: int) -> dict[str, Any]:
        return {
            "n": float(pool.n_params[place]),
            "d": float(pool.n_frames[place]),
            "price": float(pool.price[place]),
            "row": None if rows is None else int(rows[place]),
        }

    now = [] if found.forecast is None else intervals(found, found.forecast[1])
    return dict(
        plain(
            {
                "schema": SCHEMA,
                "file": str(found.table.path),
                "sha256": found.table.sha256,
                "n_points": len(found.table.points),
                "pool": {"source": found.candidates.source, "n_runs": len(pool)},
                "price": found.price,
                "budget": found.budget,
                "targets": [{"n": n, "d": d} for n, d in found.targets.tolist()],
                "laws": found.belief.weights if found.belief.fits else {},
                "left_out": found.belief.left_out,
                "misfits": {
                    name: {"p_value": m.p_value, "p_repeats": m.p_repeats, "noise": m.noise}
                    | {"edges": [edge.text for edge in m.edges]}
                    for name, m in found.misfits.items()
                },
                "now": now,
                "runs": [run(i) for i in found.first]
                + [
                    run(p.place) | {"spent": p.spent, "expected": intervals(found, p.sd)}
                    for p in found.purchases
                ],
            }
        )
    )


def intervals(found: TableDesign, sd: Array) -> list[dict[str, float]]:
    """The 95 % interval of a run at each target, for standard deviations of its ln L, (T,)."""
    assert found.forecast is not None
    factor = np.exp(found.belief.half_width * sd)
    return [
        {"value": float(v), "low": float(v / f), "high": float(v * f)}
        for v, f in zip(found.forecast[0], factor, strict=True)
    ]
