"""Whether the fits of `analysis` can be trusted, and how fast they are (`sapis selftest fits`).

    recovery    exact data of known laws: the largest relative error of a parameter
    lattices    noisy lattices of random laws: is any other optimum below the one that `fit` reports? Many
                random starts through our solver, and some through scipy's trust-region least squares, which
                shares nothing with it
    speed       4,000 bootstraps of a 250-point fit against loops over scalar fits on the same resamples, in
                the same process: L-BFGS-B with numerical gradients from a grid of starts, as published
                replications do it; BFGS with exact gradients from the optimum of the full data; and the same
                with our centring and scaling. Both our threshold and delta 1e-3 (Hoffmann et al. 2022)
    forms       every form of a law on the lattice of arXiv:2602.05702, beside the published AICc
    published   the tables of `$SAPIS_DATA/scaling`: the published fit under its own objective, ours under the
    same beside it

Times are CPU times of one process.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.text import Text
from scipy import optimize

from sapis_lab.analysis.fit import LawFit, Robust, fit
from sapis_lab.analysis.laws import LAWS, Array, Centre, Law, law_named
from sapis_lab.analysis.solve import huber, solve
from sapis_lab.analysis.uncertainty import Bootstrap, bootstrap, row_weights
from sapis_lab.selftest import forms

PARTS = ("recovery", "lattices", "speed", "published", "forms")
TOLERANCE = 1e-6
"""Relative difference of objectives that counts as a miss."""
DELTA = 1e-3


def run_fits(
    parts: Sequence[str],
    *,
    n_lattices: int,
    n_starts: int,
    data: Path | None,
    console: Console,
    save: Callable[[dict[str, Any]], None],
) -> int:
    """Do the parts in turn; 0 if nothing was missed, else 1."""
    unknown = [p for p in parts if p not in PARTS]
    if unknown:
        raise ValueError(f"part {unknown[0]!r} is not known; wanted {', '.join(PARTS)}")
    results: dict[str, Any] = {}
    failed = False

    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style), soft_wrap=True)

    for part in parts:
        say(part, "bold")
        if part == "recovery":
            results[part] = recovery()
            for name, error in results[part].items():
                say(f"  {name:<10} largest relative error of a parameter {error:.1e}")
            failed |= max(results[part].values()) > 1e-10
        elif part == "lattices":
            results[part] = found = lattices(n_lattices, say=say)
            failed |= bool(found["misses"] or found["scipy_misses"])
        elif part == "speed":
            results[part] = found = speed(n_starts=n_starts, say=say)
            failed |= any(one["worse"] for one in found.values())
        else:
            if data is None or not (data / "scaling").is_dir():
                say("  no tables: set SAPIS_DATA to a folder with scaling/", "yellow")
                continue
            if part == "forms":
                results[part] = _forms(data / "scaling" / "optimetal_2b", say)
                save(results)
                continue
            results[part] = rows = published(data / "scaling")
            for row in rows:
                say(f"  {row.text}")
            failed |= any(row.worse for row in rows)
            results[part] = [vars(row) for row in rows]
        save(results)
    say("a fit missed an optimum" if failed else "no fit missed an optimum", "red" if failed else "green")
    return int(failed)


def _forms(folder: Path, say: Callable[..., None]) -> dict[str, Any]:
    """Every form on a published lattice."""
    if not (folder / "grid.csv").is_file():
        say(f"  no table {folder / 'grid.csv'}", "yellow")
        return {}
    found, shown = forms.scores(folder), forms.parameters(folder)
    for score in found:
        say(f"  {score.text}")
    for law, values in shown.items():
        say(f"  {forms.parameters_text(law, values)}")
    return {"aicc": [vars(score) for score in found], "parameters": shown}


# --------------------------------------------------------------------------------------------------- recovery


def recovery() -> dict[str, float]:
    """The largest relative error over all parameters, for each law on exact data of a 5 x 5 lattice over
    three decades."""
    truth = {"A": 40.0, "B": 5.0, "C": 20.0, "E": 0.05, "alpha": 0.55, "beta": 0.45, "gamma": 0.25}
    n, d = (a.ravel() for a in np.meshgrid(np.geomspace(1e4, 1e7, 5), np.geomspace(1e2, 1e5, 5)))
    found = {}
    for name, law in LAWS.items():
        params = fit(law, n, d, law.predict(truth, n, d), robust="none").params
        found[name] = max(abs(value / truth[key] - 1) for key, value in params.items())
    return found


# --------------------------------------------------------------------------------------------------- lattices


def random_lattice(generator: np.random.Generator) -> tuple[Law, Array, Array, Array]:
    """A law, and N, D, L of a noisy lattice that follows it (not always the law that will be fitted)."""
    law = law_named(str(generator.choice(["n+d", "n+d+e", "n+d+nd", "n+d+nd+e"])))
    side, decades = int(generator.integers(4, 8)), generator.uniform(1.5, 3.5)
    along = np.linspace(-0.5, 0.5, side) * decades
    x, y = (a.ravel() for a in np.meshgrid(along, along))
    theta = np.r_[
        np.log(generator.dirichlet(np.full(law.n_terms, 2.0))),
        generator.uniform(0.1, 1.0, len(law.exponent_names)),
    ]
    z = law.coordinates(10**x, 10**y, centre=Centre(0.0, 0.0))
    log_loss = law.log_loss(theta, z)[0] + generator.uniform(0.005, 0.05) * generator.standard_normal(len(x))
    return law, 1e5 * 10**x, 1e3 * 10**y, np.exp(log_loss)


def lattices(
    n_lattices: int, *, n_random: int = 100, n_scipy: int = 4, say: Callable[..., None] = print
) -> dict[str, Any]:
    """Fits of the floor and the three-term law to noisy lattices against many random starts each."""
    generator = np.random.default_rng(2024)
    ours, others, misses, scipy_misses, several = 0.0, 0.0, [], [], 0
    for k in range(n_lattices):
        _, n, d, loss = random_lattice(generator)
        law = law_named("n+d+nd" if k % 2 else "n+d+e")
        begin = time.process_time()
        found = fit(law, n, d, loss, robust="none")
        middle = time.process_time()
        several += len(found.modes) > 1
        y, (lower, upper) = found.points.log_loss, law.bounds(found.points.log_loss, found.z)
        J = law.n_parameters - law.n_terms
        starts = np.hstack(
            [
                y.mean() + generator.uniform(-6, 0.5, (n_random, law.n_terms)),
                generator.uniform(0.0, 2.0, (n_random, J)),
            ]
        )
        best = solve(law, starts, z=found.z, log_loss=y).objective.min()
        if best < found.objective * (1 - TOLERANCE):
            misses.append({"lattice": k, "law": law.name, "ours": found.objective, "best": float(best)})
        for start in starts[:n_scipy]:
            other = optimize.least_squares(
                law.residual,
                start,
                jac=lambda t, z, _, law=law: law.jacobian(t, z),
                bounds=(lower, upper),
                args=(found.z, y),
                max_nfev=200,
            )
            if other.cost < found.objective * (1 - TOLERANCE):
                scipy_misses.append(
                    {"lattice": k, "law": law.name, "ours": found.objective, "scipy": float(other.cost)}
                )
        ours, others = ours + middle - begin, others + time.process_time() - middle
    say(
        f"  {n_lattices} lattices: {len(misses)} beaten by one of {n_random} random starts, "
        f"{len(scipy_misses)} by scipy from {n_scipy}"
    )
    say(
        f"  {several} have several optima; a fit took {1e3 * ours / n_lattices:.0f} ms, its examination "
        f"{1e3 * others / n_lattices:.0f} ms"
    )
    return {
        "n": n_lattices,
        "n_random": n_random,
        "n_scipy": n_scipy,
        "misses": misses,
        "scipy_misses": scipy_misses,
        "several_modes": several,
        "seconds_per_fit": ours / n_lattices,
    }


# ------------------------------------------------------------------------------------------------------ speed


def speed_table() -> tuple[Array, Array, Array]:
    """N, D and L of 250 scattered runs with 1 % noise and some outliers, such as published replications
    fit."""
    generator = np.random.default_rng(7)
    n = np.exp(generator.uniform(np.log(4e7), np.log(1.6e10), 250))
    d = 6e19 * np.exp(generator.uniform(-3.0, 3.0, 250)) / (6 * n)
    truth = {"A": 480.0, "B": 2100.0, "E": 1.8, "alpha": 0.35, "beta": 0.37}
    noise = 0.01 * generator.standard_t(4, 250)
    return n, d, LAWS["n+d+e"].predict(truth, n, d) * np.exp(noise)


def speed(
    *,
    n_resamples: int = 4000,
    n_starts: int = 12,
    n_published: int = 6,
    n_exact: int = 60,
    say: Callable[..., None] = print,
) -> dict[str, Any]:
    """CPU time of the bootstraps, and of the loops measured on some of the same resamples, under both
    thresholds."""
    return {
        str(how): _speed(how, n_resamples, n_starts, n_published, n_exact, say) for how in ("auto", DELTA)
    }


def _speed(
    how: Robust, n_resamples: int, n_starts: int, n_published: int, n_exact: int, say: Callable[..., None]
) -> dict[str, Any]:
    n, d, loss = speed_table()
    found = fit("n+d+e", n, d, loss, robust=how)

    def ours() -> tuple[float, Bootstrap]:
        begin = time.process_time()
        boot = bootstrap(
            found, n_resamples=n_resamples, resampling="rows", generator=np.random.default_rng(0)
        )
        return time.process_time() - begin, boot

    first, boot = ours()
    weights = row_weights(len(n), n_resamples, np.random.default_rng(0))
    mine = np.array([_objective(found, theta, w) for theta, w in zip(boot.theta, weights, strict=True)])
    loops = {
        f"numerical gradients, {n_starts} starts": (
            lambda w: published_loop(found, w, n_starts=n_starts),
            n_published,
        ),
        "numerical gradients, one start": (lambda w: published_loop(found, w, n_starts=1), n_published),
        "exact gradients, one good start": (lambda w: exact_loop(found, w, centred=False), n_exact),
        "the same, centred and scaled as ours": (lambda w: exact_loop(found, w, centred=True), n_exact),
    }
    seconds = [first]
    rows: list[dict[str, Any]] = []
    worse = 0
    for name, (one, count) in loops.items():
        each, values = _time(one, weights[:count])
        seconds.append(ours()[0])
        beaten = int((mine[:count] > np.array(values) * (1 + TOLERANCE)).sum())
        missed = int((np.array(values) > mine[:count] * (1 + TOLERANCE)).sum())
        worse += beaten
        rows.append(
            {
                "loop": name,
                "seconds_each": each,
                "measured": count,
                "better_than_ours": beaten,
                "worse_than_ours": missed,
            }
        )
    middle = float(np.median(seconds))
    ends = f"{min(seconds):.2f}-{max(seconds):.2f}"
    say(
        f"  {n_resamples} bootstraps of a {len(n)}-point fit (n+d+e, delta {how}): {middle:.2f} CPU s "
        f"({ends})"
    )
    for row in rows:
        row["ratio"] = row["seconds_each"] * n_resamples / middle
        say(
            f"    {row['loop']}: {1e3 * row['seconds_each']:.1f} ms each, {row['ratio']:.0f} times ours; "
            f"objective better {row['better_than_ours']}, worse {row['worse_than_ours']} of {row['measured']}"
        )
    return {
        "n_points": len(n),
        "n_resamples": n_resamples,
        "seconds": middle,
        "all_seconds": seconds,
        "loops": rows,
        "worse": worse,
    }


def _time(fit_one: Callable[[Array], float], weights: Array) -> tuple[float, list[float]]:
    """CPU seconds of one, and the objectives."""
    begin = time.process_time()
    values = [fit_one(w) for w in weights]
    return (time.process_time() - begin) / len(weights), values


def _objective(found: LawFit, theta: Array, weight: Array) -> float:
    return float(
        (weight * huber(found.law.residual(theta, found.z, found.points.log_loss), found.delta)).sum()
    )


def published_loop(found: LawFit, weight: Array, *, n_starts: int) -> float:
    """The objective of one resample as published replications find it: raw parameters, numerical gradients, a
    grid of starts."""
    points, delta = found.points, found.delta
    log_n, log_d, log_loss = np.log(points.n_params), np.log(points.n_frames), points.log_loss

    def objective(p: Array) -> float:
        a, b, e, alpha, beta = p
        terms = np.stack([a - alpha * log_n, b - beta * log_d, np.full_like(log_n, e)])
        top = terms.max(axis=0)
        predicted = top + np.log(np.exp(terms - top).sum(axis=0))
        return float((weight * huber(predicted - log_loss, delta)).sum())

    grid = list(itertools.product([5.0, 10.0, 0.0], [5.0, 10.0], [0.5], [0.5, 0.0], [0.5, 1.0]))[:n_starts]
    return min(float(optimize.minimize(objective, start, method="L-BFGS-B").fun) for start in grid)


def exact_loop(found: LawFit, weight: Array, *, centred: bool) -> float:
    """The objective of one resample by BFGS with exact gradients from the optimum of the full data.

    Args:
        centred: with this package's centred coordinates and an objective of order one, which make the problem
            well conditioned and scipy's absolute tolerances mean something; else in the raw parameters of the
            law.
    """
    assert found.law.name == "n+d+e"
    y, delta, scale = (
        found.points.log_loss,
        found.delta,
        1.0 / max(found.objective, 1e-12) if centred else 1.0,
    )
    centre = found.centre if centred else Centre(0.0, 0.0)
    start = found.law.centred(found.params, centre=centre)
    z = found.law.coordinates(found.points.n_params, found.points.n_frames, centre=centre)
    x, v = np.ascontiguousarray(z[:, 0]), np.ascontiguousarray(z[:, 1])

    def objective(t: Array) -> tuple[float, Array]:
        in_n, in_d, floor = np.exp(t[0] - t[3] * x), np.exp(t[1] - t[4] * v), np.exp(t[2])
        total = in_n + in_d + floor
        r = np.log(total) - y
        psi = np.clip(r, -delta, delta)
        pull = weight * psi / total
        gradient = np.array(
            [pull @ in_n, pull @ in_d, pull.sum() * floor, -(pull * in_n) @ x, -(pull * in_d) @ v]
        )
        return scale * float(weight @ (psi * (r - 0.5 * psi))), scale * gradient

    return float(optimize.minimize(objective, start, jac=True, method="BFGS").fun) / scale


# -------------------------------------------------------------------------------------------------- published


@dataclass(frozen=True)
class Published:
    """A published fit beside ours under one objective."""

    table: str
    objective: str
    published: float
    ours: float
    params: dict[str, float]
    note: str = ""

    @property
    def worse(self) -> bool:
        return self.ours > self.published * (1 + TOLERANCE)

    @property
    def text(self) -> str:
        shown = ", ".join(f"{k} {v:.5g}" for k, v in self.params.items())
        sign = "WORSE" if self.worse else f"{100 * (self.ours / self.published - 1):+.3f} %"
        return (
            f"{self.table}: {self.objective}: published {self.published:.6g}, ours {self.ours:.6g} ({sign}); "
            f"{shown}{self.note}"
        )


def published(folder: Path) -> list[Published]:
    """Every table of the folder that we know."""
    return takano(folder / "kyo_takano_llm") + gadre(folder / "gadre_overtraining")


def takano(folder: Path) -> list[Published]:
    """234 runs with a published n+d+e fit to the mean asymmetric absolute error of the loss: errors above the
    data count ten times."""
    table = pd.read_csv(folder / "df.csv")
    theirs = json.loads((folder / "published.json").read_text())["published"]
    n, d, loss = (table[c].to_numpy(float) for c in ("N", "D", "loss"))
    law = law_named("n+d+e")

    def asymmetric(params: dict[str, float]) -> float:
        error = loss - law.predict(params, n, d)
        return float(np.where(error < 0, -10.0 * error, error).mean())

    fits = {how: fit(law, n, d, loss, robust=how) for how in ("none", DELTA)}
    ours = asymmetric_fit(fits[DELTA], below=1.0, above=10.0)
    rows = [
        Published("takano", "its own, asymmetric absolute error", asymmetric(theirs), asymmetric(ours), ours)
    ]
    for how, found in fits.items():
        name = "least squares of ln L" if how == "none" else f"sum of Huber's loss of ln L, delta {how:g}"
        residual = np.log(law.predict(theirs, n, d) / loss)
        value = float(huber(residual, np.inf if how == "none" else float(how)).sum())
        rows.append(Published("takano", name, value, found.objective, found.params))
    return rows


def asymmetric_fit(start: LawFit, *, below: float, above: float, n_steps: int = 200) -> dict[str, float]:
    """Natural parameters with the least sum of below (L - p)+ + above (p - L)+, p the predicted loss, by
    sequential linear programs.

    The law is linearised about the current parameters, the linear problem solved exactly within a box, which
    halves when a step fails.
    """
    law, z, loss = start.law, start.z, start.points.loss
    m, p = len(loss), law.n_parameters

    def value(theta: Array) -> float:
        error = loss - np.exp(law.log_loss(theta, z)[0])
        return float(np.where(error < 0, -above * error, below * error).sum())

    theta, reach, best = start.theta.copy(), 0.1, value(start.theta)
    for _ in range(n_steps):
        log_loss, share = law.log_loss(theta, z)
        predicted = np.exp(log_loss)
        J = law.jacobian(theta, z) * predicted[:, None]
        # loss - predicted - J step = u - v with u, v >= 0
        equality = np.hstack([J, np.eye(m), -np.eye(m)])
        cost = np.r_[np.zeros(p), np.full(m, below), np.full(m, above)]
        box = [(-reach, reach)] * p + [(0, None)] * (2 * m)
        linear = optimize.linprog(cost, A_eq=equality, b_eq=loss - predicted, bounds=box, method="highs")
        step = linear.x[:p] if linear.success else np.zeros(p)
        trial = value(theta + step)
        if trial < best:
            theta, best, reach = theta + step, trial, min(2 * reach, 1.0)
        else:
            reach *= 0.5
        if reach < 1e-10:
            break
    return dict(zip(law.param_names, law.natural(theta, centre=start.centre).tolist(), strict=True))


SMALL = ("d=96_l=8_h=4", "d=512_l=8_h=4", "d=576_l=24_h=8", "d=1024_l=24_h=8")


def gadre(folder: Path) -> list[Published]:
    """104 runs of over-trained models: the published procedure (tied exponents, least squares of the loss,
    five small runs) beside ours."""
    runs = gadre_runs(folder)
    theirs = json.loads((folder / "published.json").read_text())["published_rel_error_percent"]
    law = law_named("n+d+e:tied")
    rows = []
    for data in ("c4_original", "rpj", "rw_original"):
        part = runs[runs["data"] == data].set_index(["model", "multiplier"])
        chosen = part.loc[[(m, 1.0) for m in SMALL] + [(SMALL[0], 16.0)]]
        n, d, loss = (chosen[c].to_numpy(float) for c in ("n", "d", "loss"))
        again = curve_fit_tied(n, d, loss)
        found = fit(law, n, d, loss, weight=loss**2, robust="none")
        ours = least_squares_of_loss(found)
        errors = {}
        for key, model, multiplier in (("1b_M640", "open_lm_1b", 32.0), ("7b_M20", "open_lm_7b", 1.0)):
            if (model, multiplier) in part.index:
                run = part.loc[(model, multiplier)]
                errors[key] = 100 * abs(float(law.predict(ours, run["n"], run["d"])) / float(run["loss"]) - 1)
        known = {
            key: f" (published {theirs[f'{data}_{key}']:.4f} %)" if f"{data}_{key}" in theirs else ""
            for key in errors
        }
        printed = "".join(
            f"; forecast of {key} off by {error:.4f} %{known[key]}" for key, error in errors.items()
        )
        values = _squares(law, again, n, d, loss), _squares(law, ours, n, d, loss)
        rows.append(
            Published(
                f"gadre {data}",
                "its own procedure run again, squared error of the loss, 5 runs",
                *values,
                ours,
                printed,
            )
        )
    return rows


def gadre_runs(folder: Path) -> pd.DataFrame:
    """One row a run: data, model, multiplier, n, d and the loss on C4."""
    rows = []
    for path in sorted((folder / "models").glob("*.json")):
        run = json.loads(path.read_text())
        setting = run["hyperparameters"]
        loss = next(r["loss"] for r in run["results"] if "c4_val" in str(r["val_data"]))
        model = Path(setting["model"]).stem
        rows.append(
            (
                run["dataset_name"],
                model,
                setting["chinchilla_multiplier"],
                setting["params"],
                setting["tokens"],
                loss,
            )
        )
    return pd.DataFrame(rows, columns=["data", "model", "multiplier", "n", "d", "loss"])


def _squares(law: Law, params: dict[str, float], n: Array, d: Array, loss: Array) -> float:
    return float(((law.predict(params, n, d) - loss) ** 2).sum())


def curve_fit_tied(n: Array, d: Array, loss: Array) -> dict[str, float]:
    """The published procedure for L = a N^-alpha + b D^-alpha + E: scipy's curve_fit in raw parameters from a
    grid of starts."""

    def model(x: Array, a: float, b: float, power: float, floor: float) -> Array:
        return a * x[0] ** power + b * (np.sqrt(6.0) * x[1]) ** power + floor

    best, least = None, np.inf
    for start in itertools.product(
        [1e2, 3e2, 1e3, 3e3], [1e2, 3e2, 1e3, 3e3], [-0.1, -0.3], [0.0, 1.0, 2.0, 10.0]
    ):
        try:
            p, _ = optimize.curve_fit(model, np.stack([n, d]), loss, p0=start, maxfev=10000)
        except RuntimeError:
            continue
        squares = float(((model(np.stack([n, d]), *p) - loss) ** 2).sum())
        if squares < least:
            best, least = p, squares
    assert best is not None
    return {
        "A": float(best[0]),
        "B": float(best[1] * 6.0 ** (best[2] / 2)),
        "E": float(best[3]),
        "alpha": float(-best[2]),
    }


def least_squares_of_loss(found: LawFit) -> dict[str, float]:
    """The fit taken to the least squared error of the loss itself; with weights L^2 it is there to first
    order already."""
    law, z, loss = found.law, found.z, found.points.loss
    polished = optimize.least_squares(
        lambda t: np.exp(law.log_loss(t, z)[0]) - loss,
        found.theta,
        x_scale="jac",
        xtol=1e-15,
        ftol=1e-15,
        gtol=1e-15,
        jac=lambda t: law.jacobian(t, z) * np.exp(law.log_loss(t, z)[0])[:, None],
    )
    return dict(zip(law.param_names, law.natural(polished.x, centre=found.centre).tolist(), strict=True))
