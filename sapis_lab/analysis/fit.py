"""Fit one scaling law to one model's points, in log L and robustly, and say how the fit went.

Stages: exponent grid with projected amplitudes (`search`), Newton from every start (`solve`), distinct optima
kept as modes, then the same optima under Huber's loss. The Huber threshold follows the residuals, 1.345
sigma, which keeps 95 % efficiency under normal noise (Huber 1964); a fixed threshold of 1e-3, as in Hoffmann
et al. 2022, is nearly an L1 fit at the 0.3-3 % noise of real lattices and keeps 64 %.

With weights w_i, the precisions of ln L_i up to a factor, the objective is sum_i rho_delta(sqrt(w_i) r_i): a
residual is judged by its own standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from sapis_lab.analysis.laws import Array, Centre, Law, law_named, size_symbol
from sapis_lab.analysis.search import starts_for
from sapis_lab.analysis.solve import SOON, Solutions, huber, joined, solve

Robust = Literal["auto", "none"] | float
MAX_MODES = 6
HEAT = 25
"""Steps that every start may take before the best distinct ones go on."""
THRESHOLD_ROUNDS = 3
FAR, NARROW, HIDDEN = 3.0, 0.05, 0.8
"""A residual beyond `FAR` thresholds (4 sigma) asks for a second look with one that is `NARROW` times as
wide; what it finds is taken where its own threshold is below `HIDDEN` times the first."""
N_SHAKEN, SHAKES = 64, (2.0, 2.0, 0.5)
"""Starts about the best optimum under a threshold that makes the objective nearly L1; how far away, in
standard errors, by round."""
PATIENCE = 2000
"""Steps for an optimum at the end of a flat valley."""


class TooFewPoints(ValueError):
    """The points cannot determine a law."""

    def __init__(self, law: str, reason: str, *, lacking: tuple[str, ...]) -> None:
        super().__init__(f"law {law} {reason}")
        self.reason = reason
        """What the law needs, in N, D and C."""
        self.lacking = lacking
        """Of which there must be more values: n_params, n_frames."""


@dataclass(frozen=True)
class Points:
    """What a law is fitted to: sizes, data and losses of the finished points of one model, each (n,)."""

    n_params: Array
    n_frames: Array
    loss: Array
    weight: Array | None = None
    """Precision of each ln L, up to a common factor; None for equal ones."""
    group: np.ndarray | None = None
    """Label of the run (or any cluster) that a point comes from: points of one group err together."""
    steps: Array | None = None
    """Number of training steps, where laws of them are asked for."""

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def log_loss(self) -> Array:
        return np.log(self.loss)

    @property
    def weights(self) -> Array:
        """(n,), ones where none were given."""
        return np.ones(len(self)) if self.weight is None else self.weight

    @cached_property
    def cell(self) -> np.ndarray:
        """Which distinct (N, D), or (N, D, S), a point belongs to, (n,): points of one cell are repeats,
        seeds of one experiment."""
        sizes = [self.n_params, self.n_frames, *([] if self.steps is None else [self.steps])]
        return np.unique(np.stack(sizes, axis=1), axis=0, return_inverse=True)[1].ravel()

    @property
    def n_cells(self) -> int:
        """Distinct (N, D): repeated seeds sharpen a cell but tell a law nothing about another one."""
        return int(self.cell.max()) + 1 if len(self) else 0

    def take(self, which: np.ndarray) -> Points:
        """These points only, by position or by mask."""
        weight, group, steps = (
            None if a is None else a[which] for a in (self.weight, self.group, self.steps)
        )
        return Points(self.n_params[which], self.n_frames[which], self.loss[which], weight, group, steps)

    def coordinates(self, law: Law, centre: Centre) -> Array:
        """`Law.coordinates` of the points, (n, K)."""
        return law.coordinates(self.n_params, self.n_frames, centre=centre, steps=self.steps)


@dataclass(frozen=True)
class Mode:
    """One local optimum of the fit."""

    objective: float
    params: dict[str, float]
    theta: Array


@dataclass(frozen=True)
class LawFit:
    """A fitted law. `params` are natural (A, B, ..., alpha, ...), amplitudes in the unit of the loss."""

    law: Law
    points: Points
    centre: Centre
    theta: Array
    params: dict[str, float]
    objective: float
    """sum_i rho(sqrt(w_i) r_i) at the optimum."""
    least_squares: float
    """sum_i w_i r_i^2 / 2 at the least-squares optimum, which information criteria need."""
    robust: Robust
    """How the threshold was chosen."""
    delta: float
    """Huber threshold in log units; inf for least squares."""
    residuals: Array
    """ln(measured / predicted), (n,)."""
    converged: bool
    message: str
    modes: tuple[Mode, ...]
    """Distinct local optima, best first; the first one is the fit."""

    @property
    def degrees_of_freedom(self) -> int:
        return len(self.points) - self.law.n_parameters

    @property
    def residual_sd(self) -> float | None:
        """Standard deviation of ln L about the law (at weight 1); None when every point is used up by a
        parameter."""
        if self.degrees_of_freedom < 1:
            return None
        return float(np.sqrt((self.points.weights * self.residuals**2).sum() / self.degrees_of_freedom))

    @property
    def spread(self) -> Array | None:
        """Standard deviation of each ln L relative to one of weight 1, (n,); None where weights are equal."""
        return None if self.points.weight is None else 1.0 / np.sqrt(self.points.weight)

    @property
    def jacobian(self) -> Array:
        """d ln L / d theta at the optimum, (n, p)."""
        return self.law.jacobian(self.theta, self.z)

    @property
    def z(self) -> Array:
        """Centred coordinates of the fitted points, (n, K)."""
        return self.points.coordinates(self.law, self.centre)

    def predict(self, n_params: ArrayLike, n_frames: ArrayLike, steps: ArrayLike | None = None) -> Array:
        """L(N, D), or L(N, D, S), in the unit of the fitted loss, sizes broadcast against each other."""
        return self.law.predict(self.params, n_params, n_frames, steps)

    @property
    def fitted(self) -> Array:
        """The law's loss at the points, (n,)."""
        return np.exp(self.points.log_loss - self.residuals)


def fit(
    law: Law | str,
    n_params: ArrayLike,
    n_frames: ArrayLike,
    loss: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    group: ArrayLike | None = None,
    steps: ArrayLike | None = None,
    robust: Robust = "auto",
) -> LawFit:
    """The best description of the points by `law`.

    Args:
        n_params, n_frames, loss: (n,) each; loss in any unit, positive. Points of equal (N, D) are repeats.
        weight: (n,) precisions of ln L up to a factor, 1 / variance; equal when not given.
        group: (n,) labels of the runs that points come from; they change no optimum, only intervals.
        steps: (n,) numbers of training steps, for laws of them.
        robust: "auto" (threshold 1.345 sigma of the residuals), "none" (least squares of ln L), or a
            threshold in log units.

    Raises:
        TooFewPoints: the points cannot determine the law; the message says what is missing.
        ValueError: an entry is no positive number.
    """
    N, D, L = (np.asarray(a, dtype=float) for a in (n_params, n_frames, loss))
    points = Points(
        N,
        D,
        L,
        None if weight is None else np.asarray(weight, dtype=float),
        None if group is None else np.asarray(group),
        None if steps is None else np.asarray(steps, dtype=float),
    )
    return fit_points(law_named(law) if isinstance(law, str) else law, points, robust=robust)


def fit_points(law: Law, points: Points, *, robust: Robust = "auto") -> LawFit:
    """`fit` of points that are already together."""
    _check(law, points, robust)
    centre = Centre.of(points.n_params, points.n_frames, points.steps)
    z, y, W = points.coordinates(law, centre), points.log_loss, points.weight
    data: dict[str, Any] = {
        "z": z,
        "log_loss": y,
        "weight": W,
        "spread": None if W is None else 1.0 / np.sqrt(W),
    }

    starts = starts_for(law, z=z, log_loss=y, weight=W)
    found = _optima(law, starts, data)
    least_squares = float(found.objective[0])
    delta = np.inf if robust == "none" else float(robust) if robust != "auto" else np.inf
    if robust == "auto":
        found, delta = _settled(law, found, starts, data, points)
    elif np.isfinite(delta):
        # A small threshold makes the objective nearly L1, whose optima need not be near those of least
        # squares and are many.
        found = _optima(law, np.vstack([found.theta, starts]), data, delta=delta)
        for seed, reach in enumerate(SHAKES):
            found = _shaken(law, found, data, delta, reach=reach, seed=seed)

    if not found.converged[0]:
        slow = solve(law, found.theta[:1], delta=delta, continuation=False, max_steps=PATIENCE, **data)
        found = _distinct(law, joined(slow, found), z)

    best = found.theta[0]
    residuals = -law.residual(best, z, y)
    spread = 1.0 if W is None else 1.0 / np.sqrt(W)
    # the solver takes its last step without evaluating it
    objectives = [
        float((points.weights * huber(law.residual(t, z, y), delta * spread)).sum()) for t in found.theta
    ]
    return LawFit(
        law=law,
        points=points,
        centre=centre,
        theta=best,
        params=_named(law, best, centre),
        objective=objectives[0],
        least_squares=least_squares,
        robust=robust,
        delta=delta,
        residuals=residuals,
        converged=bool(found.converged[0]),
        message=_message(law, found, y, z),
        modes=tuple(
            Mode(float(F), _named(law, t, centre), t) for F, t in zip(objectives, found.theta, strict=True)
        ),
    )


def _settled(
    law: Law, found: Solutions, starts: Array, data: dict[str, Any], points: Points
) -> tuple[Solutions, float]:
    """The optima under the threshold that their own residuals ask for, and that threshold, from the optima of
    least squares.

    A few runs that diverged can draw least squares so far off that residuals about it hide them. Where a fit
    that is nearly L1 leaves residuals much smaller, it is the one to begin with (as MM-estimates begin with
    one of high breakdown; Yohai 1987).
    """
    root = np.sqrt(points.weights)

    def threshold(theta: Array) -> float:
        r = law.residual(theta, data["z"], data["log_loss"]) * root
        return float(huber_thresholds(r[None], n_parameters=law.n_parameters)[0])

    # sigma depends on the fit and the fit on sigma: three rounds settle it to well under the noise of sigma
    # itself
    def settle(found: Solutions) -> tuple[Solutions, float]:
        delta = np.inf
        for _ in range(THRESHOLD_ROUNDS):
            delta = threshold(found.theta[0])
            found = _distinct(law, solve(law, found.theta, delta=delta, **data), data["z"])
        return found, delta

    plain, delta = settle(found)
    if (np.abs(law.residual(plain.theta[0], data["z"], data["log_loss"]) * root) <= FAR * delta).all():
        return plain, delta
    narrow = _optima(law, np.vstack([found.theta, starts]), data, delta=NARROW * delta)
    other, smaller = settle(narrow)
    return (other, smaller) if smaller < HIDDEN * delta else (plain, delta)


def _optima(law: Law, starts: Array, data: dict[str, Any], *, delta: float = np.inf) -> Solutions:
    """The distinct optima that the starts lead to, best first: all run a while, the distinct ones until the
    best has arrived."""
    early = _distinct(
        law,
        solve(law, starts, delta=delta, max_steps=HEAT, **data),
        data["z"],
        most=2 * MAX_MODES,
        finished=False,
    )
    later = solve(law, early.theta, delta=delta, max_steps=SOON, **data)
    if not later.converged[np.argmin(np.where(np.isfinite(later.objective), later.objective, np.inf))]:
        later = solve(law, later.theta, delta=delta, **data)
    return _distinct(law, later, data["z"])


def _shaken(
    law: Law, found: Solutions, data: dict[str, Any], delta: float, *, reach: float, seed: int
) -> Solutions:
    """The optima, and any better ones within about `reach` standard errors of the best."""
    J = law.jacobian(found.theta[0], data["z"])
    r = law.residual(found.theta[0], data["z"], data["log_loss"])
    scale, (_, singular, directions) = np.median(np.abs(r)) / 0.6745, np.linalg.svd(J, full_matrices=False)
    length = np.minimum(reach * scale / np.maximum(singular, 1e-12), 0.5)
    push = np.random.default_rng(seed).standard_normal((N_SHAKEN, len(length))) * length
    near = solve(law, found.theta[0] + push @ directions, delta=delta, continuation=False, **data)
    return _distinct(law, joined(found, near), data["z"])


def huber_thresholds(residuals: Array, *, n_parameters: int) -> Array:
    """1.345 sigma of each row, (B,); sigma is the median of the absolute residuals over 0.6745 without the p
    - 1 smallest.

    A robust fit passes through up to p points; counting them would pull sigma, then the threshold, then more
    points to zero (the rule of Matlab's robustfit, after DuMouchel & O'Brien 1989).
    """
    size = np.sort(np.abs(residuals), axis=1)[:, min(n_parameters - 1, residuals.shape[1] - 1) :]
    # Residuals of rounding error have no outliers to guard against; the floor keeps them in the quadratic
    # part.
    return np.maximum(1.345 * np.median(size, axis=1) / 0.6745, 1e-6)


def _check(law: Law, points: Points, robust: Robust) -> None:
    if not (points.n_params.shape == points.n_frames.shape == points.loss.shape and points.loss.ndim == 1):
        shapes = points.n_params.shape, points.n_frames.shape, points.loss.shape
        raise ValueError(f"n_params, n_frames and loss must be 1-D of one length, got shapes {shapes}")
    for name, extra in (("weight", points.weight), ("group", points.group), ("steps", points.steps)):
        if extra is not None and extra.shape != points.loss.shape:
            raise ValueError(f"{name} must have one entry a point, ({len(points)},), got shape {extra.shape}")
    columns = [("n_params", points.n_params), ("n_frames", points.n_frames), ("loss", points.loss)]
    given = [("weight", points.weight), ("steps", points.steps)]
    for name, values in columns + [(name, values) for name, values in given if values is not None]:
        wrong = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
        if wrong.size:
            raise ValueError(
                f"{name} must be finite and positive, got {values[wrong[0]]} at position {wrong[0]}; leave "
                f"failed points out"
            )
    check_sizes(law, points)
    if points.n_cells < law.n_parameters:
        size = size_symbol(law)
        distinct = "C" if size == "C" else "(N, D)"
        raise TooFewPoints(
            law.name,
            f"has {law.n_parameters} parameters and needs as many distinct {distinct}, got {points.n_cells}",
            lacking=("n_params",) if size == "C" else ("n_params", "n_frames"),
        )
    if (
        isinstance(robust, str)
        and robust not in ("auto", "none")
        or not isinstance(robust, str)
        and not robust > 0
    ):
        raise ValueError(
            f"robust={robust!r} is not usable; wanted 'auto', 'none' or a positive threshold in log units"
        )


def check_sizes(law: Law, points: Points) -> None:
    """TooFewPoints where a size that the law is of has one value only."""
    for name, symbol, values, powers in (
        ("n_params", size_symbol(law), points.n_params, [t.power_n for t in law.terms]),
        ("n_frames", "D", points.n_frames, [t.power_d for t in law.terms]),
        ("steps", "S", np.ones(0) if points.steps is None else points.steps, [t.power_s for t in law.terms]),
    ):
        n_values = len(np.unique(values))
        if any(powers) and n_values < 2:
            reason = f"needs at least 2 distinct {symbol}, got {n_values}"
            raise TooFewPoints(law.name, reason, lacking=(name,))


def _distinct(
    law: Law, found: Solutions, z: Array, *, most: int = MAX_MODES, finished: bool = True
) -> Solutions:
    """The optima, best first and at most `most`; two are one where their predictions agree to a hundredth of
    the residuals.

    Parameters are no measure of it: where a term vanishes its exponent is arbitrary.
    """
    order = np.argsort(np.where(np.isfinite(found.objective), found.objective, np.inf), kind="stable")
    predicted = law.log_loss(found.theta, z)[0]
    near = 0.01 * np.sqrt(2.0 * max(found.objective[order[0]], 0.0) / len(z)) + 1e-8
    chosen: list[int] = []
    for i in order:
        usable = np.isfinite(found.objective[i]) and (found.converged[i] or not finished or not chosen)
        if usable and all(np.abs(predicted[i] - predicted[c]).max() > near for c in chosen):
            chosen.append(int(i))
        if len(chosen) == most:
            break
    return found[chosen]


def _named(law: Law, theta: Array, centre: Centre) -> dict[str, float]:
    named = dict(zip(law.param_names, law.natural(theta, centre=centre).tolist(), strict=True))
    return named | law.constants(centre)


def _message(law: Law, found: Solutions, log_loss: Array, z: Array) -> str:
    if not found.converged[0]:
        return "no minimum reached within the step limit"
    lower, upper = law.bounds(log_loss, z)
    names = law.param_names
    touched = [
        names[i] for i in range(len(names)) if found.theta[0, i] <= lower[i] or found.theta[0, i] >= upper[i]
    ]
    return f"minimum on a bound: {', '.join(touched)}" if touched else "minimum found"
