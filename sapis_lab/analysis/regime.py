"""The compute-optimal regime: how the best learning rate and batch size move with N and D, fitted from tuning
at several of them.

    rate = kappa N^lambda D^mu,   batch = kappa N^lambda D^mu        (as in Bi et al., arXiv:2401.02954,
    section 3, there in C alone)

First the optimum of every cell (one model, N and D): the error near its minimum is a paraboloid in x = (ln
rate, ln batch),

    ln L = c + b.x + x.A x,   x* = -A^-1 b / 2,

fitted by least squares to the trials within `NEAR` of the best one. Trials beyond are no part of the
paraboloid, but say where the error rises steeply: where it would put one of them below `NEAR`, that trial
takes part at `NEAR` (a censored value), which keeps the optimum on the safe side of rates at which training
breaks down. The uncertainty comes from draws of (c, b, A) about the fit with Student's distribution, kept
within what was tried.

Then the power law through the optima by weighted least squares in logarithms, with weights 1 / (sigma_i^2 +
tau^2), where tau^2 is the scatter beyond the sigma_i (Paule & Mandel, J. Res. NBS 87, 377 (1982)). Intervals
are 95 % and from a parametric bootstrap of the studentised coefficients, since cells are few.

An exponent of a size that did not vary is 0 and called not identified. No torch here: the analysis side and
the lattice both read the rule.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from sapis_lab.config import ConfigError, read_yaml
from sapis_lab.files import read_json, write_text
from sapis_lab.records import read_csv

if TYPE_CHECKING:
    from pandas import DataFrame

FILE = "regime.json"
FORMAT = 1
TUNABLE = {"learning_rate": "train.learning_rate", "batch_size": "train.batch_size"}
"""What a rule can be fitted for, and its dotted name."""
NEAR = 0.7
"""Trials whose ln L exceeds the best by less than this belong to the paraboloid: an error up to twice the
best."""
MIN_TRIALS = 2
"""Trials beyond the number of coefficients that a paraboloid needs."""
DRAWS = 2000
LEVEL = 0.95

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Optimum:
    """The best value of one setting in one cell."""

    n_params: int
    """N, counted."""
    n_frames: int
    """D."""
    value: float
    low: float
    high: float
    """95 % interval of the value; for `best trial` the neighbouring trials."""
    sigma: float
    """Standard deviation of ln value."""
    method: Literal["paraboloid", "best trial"]
    """How it was found. The best trial is taken where the paraboloid has too few trials, no minimum, or one
    outside of what was tried."""
    n_trials: int
    """Finished trials of the cell."""
    loss: float
    """Lowest error of the trials."""
    note: str = ""
    """Why it is no minimum of a paraboloid, or that it lies at the edge of the search."""


@dataclass(frozen=True)
class PowerRule:
    """value = kappa N^n_exponent D^d_exponent, with 95 % intervals."""

    kappa: float
    n_exponent: float
    d_exponent: float
    intervals: dict[str, tuple[float, float] | None]
    """By name; None where it is not identified."""
    scatter: float
    """tau: standard deviation of the optima about the rule in ln value, beyond their own uncertainties."""
    optima: tuple[Optimum, ...]

    def at(self, n_params: float, n_frames: float) -> float:
        """The value at N and D."""
        return self.kappa * n_params**self.n_exponent * n_frames**self.d_exponent


@dataclass(frozen=True)
class ModelRule:
    """The rules of one model."""

    model: str
    family: str
    rules: dict[str, PowerRule]
    """By setting: learning_rate, batch_size."""

    def learning_rate(self, n_params: int, n_frames: int) -> float | None:
        """The rate of the rule; None where it was not tuned."""
        rule = self.rules.get("learning_rate")
        return None if rule is None else rule.at(n_params, n_frames)

    def batch_size(self, n_params: int, n_frames: int) -> int | None:
        """The batch size of the rule, at most D; None where it was not tuned."""
        rule = self.rules.get("batch_size")
        return None if rule is None else max(1, min(n_frames, round(rule.at(n_params, n_frames))))


@dataclass(frozen=True)
class Regime:
    """The rules of all models of a tuned study."""

    study: str
    quantity: str
    """The error that was made small."""
    models: dict[str, ModelRule]
    """By label."""

    def rule_for(self, label: str, family: str) -> ModelRule | None:
        """The rule of a model by its label, or else of the one tuned model of its family."""
        if label in self.models:
            return self.models[label]
        same = [m for m in self.models.values() if m.family == family]
        return same[0] if len(same) == 1 else None

    def text(self) -> str:
        """The rules, their intervals, and the optima behind them, for people."""
        lines = []
        for model in self.models.values():
            for name, rule in model.rules.items():
                lines += _lines(model.model, name, rule)
        return "\n".join(lines)


# --------------------------------------------------------------------------------------------------- one cell


def optima(
    x: Array, loss: Array, *, n_params: int, n_frames: int, generator: np.random.Generator
) -> list[Optimum]:
    """The best value of every tuned setting in one cell, in the order of the columns of `x`.

    Args:
        x: ln of the settings of every finished trial, (n, d), d = 1 or 2.   loss: their errors, (n,),
            positive.
    """
    best = int(np.argmin(loss))
    fitted = _paraboloid(x, np.log(loss / loss[best]), generator)
    reason = fitted if isinstance(fitted, str) else _outside(fitted[0], x)
    rest: dict[str, Any] = {
        "n_params": n_params,
        "n_frames": n_frames,
        "n_trials": len(loss),
        "loss": float(loss[best]),
    }
    if reason or isinstance(fitted, str):
        return [_best_trial(x[:, k], best, reason, rest) for k in range(x.shape[1])]
    center, draws = fitted
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    # Draws have heavy tails where the curvature is nearly zero: the interval says more than a second moment.
    sigma = (high - low) / (2 * 1.959964)
    low, high = np.minimum(low, center), np.maximum(high, center)  # an interval of the optimum holds it
    return [
        Optimum(
            value=math.exp(center[k]),
            low=math.exp(low[k]),
            high=math.exp(high[k]),
            sigma=float(sigma[k]),
            method="paraboloid",
            **rest,
        )
        for k in range(x.shape[1])
    ]


def _paraboloid(x: Array, y: Array, generator: np.random.Generator) -> tuple[Array, Array] | str:
    """The minimum (d,) of the paraboloid through y = ln(L / L_best) (n,) at x (n, d), and draws of it (m, d);
    or why there is none."""
    d = x.shape[1]
    n_coefficients = 1 + d + d * (d + 1) // 2
    near = y < NEAR
    if near.sum() < n_coefficients + MIN_TRIALS:
        wanted = n_coefficients + MIN_TRIALS
        return (
            f"{near.sum()} trials within a factor {math.exp(NEAR):.1f} of the best error, a paraboloid wants "
            f"{wanted}"
        )
    center, width = x[near].mean(0), np.maximum(x[near].std(0), 1e-12)
    every, level = _design((x - center) / width), np.minimum(y, NEAR)
    if np.linalg.matrix_rank(every[near]) < n_coefficients:
        return "too few distinct values for a paraboloid"
    used = near
    for _ in range(20):  # one-sided least squares: which of the trials beyond take part follows from the fit
        solution = np.asarray(np.linalg.lstsq(every[used], level[used], rcond=None)[0], np.float64)
        now = near | (every @ solution < NEAR)
        if (now == used).all():
            break
        used = now
    design = every[used]
    where = _minimum(solution[None], d)[0]
    if np.isnan(where).any():
        return "the error has no minimum among the trials"
    dof = int(used.sum()) - n_coefficients
    variance = float(np.sum((level[used] - design @ solution) ** 2)) / dof
    factor = np.linalg.cholesky(np.linalg.inv(design.T @ design) * max(variance, 1e-16))
    # A multivariate t: the variance of the residuals is itself known from `dof` numbers only.
    spread = np.sqrt(dof / generator.chisquare(dof, size=(DRAWS, 1)))
    draws = _minimum(solution + spread * (generator.standard_normal((DRAWS, n_coefficients)) @ factor.T), d)
    kept = draws[~np.isnan(draws).any(1)]
    if len(kept) < 0.8 * DRAWS:
        return (
            f"its minimum is uncertain: only {100 * len(kept) / DRAWS:.0f} % of the curves that fit as well "
            f"have one"
        )
    return center + width * where, np.clip(center + width * kept, x.min(0), x.max(0))


def _design(z: Array) -> Array:
    """Columns 1, z_k, and z_k z_l (k <= l) of points (n, d)."""
    n, d = z.shape
    pairs = [z[:, k] * z[:, l] for k in range(d) for l in range(k, d)]
    return np.column_stack([np.ones(n), z, *pairs])


def _minimum(coefficients: Array, d: int) -> Array:
    """Minima (m, d) of paraboloids (m, n_coefficients); nan where there is none."""
    m = len(coefficients)
    b = coefficients[:, 1 : 1 + d]
    a = np.zeros((m, d, d))
    at = 1 + d
    for k in range(d):
        for l in range(k, d):
            a[:, k, l] += coefficients[:, at] / 2
            a[:, l, k] += coefficients[:, at] / 2
            at += 1
    convex = np.linalg.eigvalsh(a).min(1) > 1e-9
    where = np.full((m, d), np.nan)
    where[convex] = -np.linalg.solve(a[convex], b[convex][..., None])[..., 0] / 2
    return where


def _outside(center: Array, x: Array) -> str:
    """Says so where a minimum lies outside of what was tried."""
    inside = (center >= x.min(0)) & (center <= x.max(0))
    return "" if inside.all() else "the minimum of the paraboloid lies outside of what was tried"


def _best_trial(x: Array, best: int, why: str, rest: dict[str, Any]) -> Optimum:
    """The best trial's value, between its neighbours."""
    values = np.unique(x)
    at = int(np.searchsorted(values, x[best]))
    low, high = values[max(at - 1, 0)], values[min(at + 1, len(values) - 1)]
    edge = "; the best value lies at the edge of what was tried" if at in (0, len(values) - 1) else ""
    # one value says nothing: a factor of e either way
    sigma = max(float(high - low), float(values[-1] - values[0]) / 4) / 2 or 1.0
    return Optimum(
        value=math.exp(x[best]),
        low=math.exp(low),
        high=math.exp(high),
        sigma=sigma,
        method="best trial",
        note=why + edge,
        **rest,
    )


# --------------------------------------------------------------------------------------------------- the rule


def power_rule(found: Sequence[Optimum], *, generator: np.random.Generator) -> PowerRule:
    """The power law through the optima of one setting.

    Raises:
        ValueError: there is none.
    """
    if not found:
        raise ValueError("a rule needs an optimum at one (N, D) at least")
    y = np.log([o.value for o in found])
    sigma = np.array([o.sigma for o in found])
    n_params, n_frames = np.log([o.n_params for o in found]), np.log([o.n_frames for o in found])
    columns = {"kappa": np.ones(len(found)), "n_exponent": n_params, "d_exponent": n_frames}
    varied = [k for k, c in columns.items() if k == "kappa" or np.ptp(c) > 0.1]
    # About the middle of the cells, so that kappa and the exponents are not all but collinear; kappa is moved
    # to N = D = 1 at the end.
    middle = {k: 0.0 if k == "kappa" else float(np.mean(columns[k])) for k in varied}
    design = np.column_stack([columns[k] - middle[k] for k in varied])
    if np.linalg.matrix_rank(design) < len(varied):
        raise ValueError("N and D of the cells move together; tune at N and D that vary independently")
    to_kappa = np.array([1.0 if k == "kappa" else -middle[k] for k in varied])
    fit = _Weighted(design, y, sigma)
    dof = len(found) - len(varied)
    intervals: dict[str, tuple[float, float] | None] = dict.fromkeys(columns)
    value = {
        **dict.fromkeys(columns, 0.0),
        **dict(zip(varied, fit.solution, strict=True)),
        "kappa": float(to_kappa @ fit.solution),
    }
    if dof > 0:
        contrasts = np.array(
            [to_kappa if k == "kappa" else np.eye(len(varied))[j] for j, k in enumerate(varied)]
        )
        for k, (low, high) in zip(varied, _intervals(fit, design, contrasts, generator), strict=True):
            intervals[k] = (math.exp(low), math.exp(high)) if k == "kappa" else (low, high)
    value["kappa"] = math.exp(value["kappa"])
    return PowerRule(**value, intervals=intervals, scatter=fit.tau, optima=tuple(found))


class _Weighted:
    """Weighted least squares with a scatter beyond the given uncertainties."""

    def __init__(self, design: Array, y: Array, sigma: Array) -> None:
        self.sigma = sigma
        self.tau = _extra_scatter(design, y, sigma)
        weight = 1 / (sigma**2 + self.tau**2)
        self.covariance = np.linalg.inv(design.T @ (weight[:, None] * design))
        self.solution = self.covariance @ (design.T @ (weight * y))


def _extra_scatter(design: Array, y: Array, sigma: Array) -> float:
    """tau of Paule & Mandel: with weights 1 / (sigma^2 + tau^2) the residuals' chi^2 equals its degrees of
    freedom; 0 if it is below."""
    from scipy.optimize import brentq

    dof = len(y) - design.shape[1]
    if dof <= 0:
        return 0.0

    def excess(tau: float) -> float:
        root = 1 / np.sqrt(sigma**2 + tau**2)
        solution, *_ = np.linalg.lstsq(design * root[:, None], y * root, rcond=None)
        return float(np.sum(((y - design @ solution) * root) ** 2)) - dof

    top = 10 * (float(np.std(y)) + float(sigma.max())) + 1e-6
    return 0.0 if excess(0.0) <= 0 else float(brentq(excess, 0.0, top))


def _intervals(
    fit: _Weighted, design: Array, contrasts: Array, generator: np.random.Generator
) -> list[tuple[float, float]]:
    """95 % intervals of `contrasts @ solution`: quantiles of (theta* - theta) / se* over optima drawn about
    the rule, times se."""
    mean, spread = design @ fit.solution, np.sqrt(fit.sigma**2 + fit.tau**2)
    theta, se = (
        contrasts @ fit.solution,
        np.sqrt(np.einsum("ij,jk,ik->i", contrasts, fit.covariance, contrasts)),
    )
    ratios = np.empty((DRAWS // 2, len(contrasts)))
    for k in range(len(ratios)):
        again = _Weighted(design, mean + spread * generator.standard_normal(len(mean)), fit.sigma)
        own = np.sqrt(np.einsum("ij,jk,ik->i", contrasts, again.covariance, contrasts))
        ratios[k] = (contrasts @ again.solution - theta) / own
    low, high = np.quantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return [
        (float(t - max(h, 0.0) * s), float(t - min(l, 0.0) * s))
        for t, s, l, h in zip(theta, se, low, high, strict=True)
    ]


# ---------------------------------------------------------------------------------------------------- a study


def fit_regime(trials: DataFrame, *, study: str, quantity: str, seed: int = 0) -> Regime | None:
    """The rules of all models from a table of trials; None where neither rate nor batch size was tuned.

    Args:
        trials: one row per trial with the columns model, family, state, n_params, n_frames, the tuned
            settings and `quantity`.
    """
    tuned = [name for name, column in TUNABLE.items() if column in trials]
    done = trials[(trials["state"] == "done") & trials[quantity].gt(0)]
    if not tuned or done.empty:
        return None
    generator = np.random.default_rng(seed)
    models = {}
    for (label, family), rows in done.groupby(["model", "family"], sort=False):
        found: dict[str, list[Optimum]] = {name: [] for name in tuned}
        for _, cell in rows.groupby(["n_params_target", "n_frames"]):
            x = np.log(cell[[TUNABLE[name] for name in tuned]].to_numpy(float))
            n_params, n_frames = int(round(cell["n_params"].median())), int(cell["n_frames"].iloc[0])
            best = optima(
                x, cell[quantity].to_numpy(float), n_params=n_params, n_frames=n_frames, generator=generator
            )
            for name, optimum in zip(tuned, best, strict=True):
                found[name].append(optimum)
        rules = {name: power_rule(values, generator=generator) for name, values in found.items()}
        models[str(label)] = ModelRule(str(label), str(family), rules)
    return Regime(study, quantity, models)


def fit_folder(folder: Path) -> Regime | None:
    """Fit the rules of `results/NAME` from its trials.csv, and write regime.json and regime.txt; None where
    there is no rule to fit.

    There is none with several objectives, nor where N or D were themselves searched over.
    """
    settings = read_yaml(folder / "tune" / "study.yaml")
    tune, law = settings.get("tune") or {}, settings.get("law") or {}
    objectives = tune.get("objectives") or [law.get("quantity")]
    if len(objectives) > 1 or {"n_params_target", "n_frames"} & set(tune.get("space", {})):
        return None
    columns = ["model", "family", "state", "n_params", "n_frames", objectives[0]]
    table = read_csv(
        folder / "tune" / "trials.csv", columns=columns, then=f"write it anew with: sapis tune {folder.name}"
    )
    regime = fit_regime(table, study=str(settings["name"]), quantity=objectives[0])
    if regime is not None:
        write_regime(regime, folder, train=settings["train"])
    return regime


def write_regime(regime: Regime, folder: Path, *, train: dict[str, Any]) -> None:
    """Write regime.json, with the budget and schedule at which the rules hold, and regime.txt."""
    plain = {
        "format": FORMAT,
        **asdict(regime),
        "train": {k: v for k, v in train.items() if k not in TUNABLE},
    }
    write_text(folder / FILE, json.dumps(plain, indent=1, ensure_ascii=False) + "\n")
    write_text(folder / "regime.txt", regime.text() + "\n")


def read_regime(folder: Path) -> Regime:
    """The rules of a results folder. ConfigError when there are none, or the file is damaged."""
    path, anew = folder / FILE, f"write it anew with: sapis tune {folder.name}"
    try:
        raw = read_json(path, then=anew)
        if raw["format"] > FORMAT:
            raise ConfigError(
                f"{path} has format {raw['format']}, this program reads up to {FORMAT}; update sapis_lab to "
                f"read it"
            )
        models = {
            label: ModelRule(
                m["model"], m["family"], {name: _read_rule(rule) for name, rule in m["rules"].items()}
            )
            for label, m in raw["models"].items()
        }
        return Regime(raw["study"], raw["quantity"], models)
    except FileNotFoundError:
        raise ConfigError(
            f"regime: {path} is not there; tune that study first: sapis tune {folder.name}"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: cannot be read ({error!r}); {anew}") from None


def _read_rule(raw: dict[str, Any]) -> PowerRule:
    intervals = {
        name: None if interval is None else tuple(interval) for name, interval in raw["intervals"].items()
    }
    return PowerRule(**{**raw, "intervals": intervals, "optima": tuple(Optimum(**o) for o in raw["optima"])})


# ------------------------------------------------------------------------------------------------------ words


def _lines(model: str, name: str, rule: PowerRule) -> list[str]:
    word = name.replace("_", " ")
    parts = [f"{rule.kappa:.3g}"]
    parts += [
        f"{size}^{value:.3f}" for size, value in (("N", rule.n_exponent), ("D", rule.d_exponent)) if value
    ]
    lines = [
        f"{model}: {word} = {' '.join(parts)}   (scatter {100 * rule.scatter:.0f} % beyond the optima's own "
        f"uncertainty)"
    ]
    for key, symbol in (("kappa", "kappa"), ("n_exponent", "exponent of N"), ("d_exponent", "exponent of D")):
        lines.append(f"  {symbol:<14} {_interval(getattr(rule, key), rule.intervals[key])}")
    rows = [("N", "D", f"best {word}", "95 %", "rule", "trials", "how")]
    for o in rule.optima:
        how = o.method + (f" ({o.note})" if o.note else "")
        rule_value = f"{rule.at(o.n_params, o.n_frames):.3g}"
        rows.append(
            (
                f"{o.n_params}",
                f"{o.n_frames}",
                f"{o.value:.3g}",
                f"{o.low:.3g} to {o.high:.3g}",
                rule_value,
                f"{o.n_trials}",
                how,
            )
        )
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]) - 1)]
    lines += [
        "  " + "  ".join([*(text.rjust(w) for text, w in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    ]
    return lines


def _interval(value: float, interval: tuple[float, float] | None) -> str:
    if interval is None:
        return f"{value:.3g}, not identified" if value else "not identified: it did not vary"
    low, high = interval
    return f"{value:.3g}   95 % {low:.3g} to {high:.3g}"
