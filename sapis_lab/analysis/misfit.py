"""Does the law describe the points, and is their noise the same everywhere?

Lack of fit needs no repeats: if the law holds, residuals have no trend. Squares, cubes and the product of ln
N and ln D (and ln S, where there is a column of training steps) are freed of what the law could still follow
(its derivatives) and fitted to the residuals; their part of the sum of squares is judged as an F of q and n -
p - q (added variables; Cook & Weisberg 1982, section 2.4). With repeats the F test against their scatter
stands beside it (`selection.lack_of_fit`). Where either fails, the sentence says where: the mean residual of
the edge rows of N, D and S, the smallest and largest, in standard deviations of the noise.

Equal noise: squared residuals are regressed on ln N, ln D and ln L (Koenker 1981): n R^2 is a chi-square of
one degree of freedom. A scale sigma = exp(a + b t) in the variable t that shows it most gives each point its
precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from scipy import stats

from sapis_lab.analysis.fit import LawFit, Points
from sapis_lab.analysis.laws import Array
from sapis_lab.analysis.refit import noise_scale, noise_scales
from sapis_lab.analysis.selection import lack_of_fit

MAX_P_VALUE = 0.01
"""Both tests are made on every fit, so that a plain 5 % would cry wolf."""
EDGES = 1.0
"""A mean residual smaller than this many standard deviations of the noise is no finding."""
MIN_FREE = 4
"""Degrees of freedom that must be left beside the trends."""

Variable = Literal["N", "D", "loss"]


@dataclass(frozen=True)
class Edge:
    """The points of one end of N, D or S."""

    variable: Literal["N", "D", "S"]
    largest: bool
    n_points: int
    size: float
    """Mean of ln(measured / law) in standard deviations of the noise."""

    @property
    def text(self) -> str:
        end = "largest" if self.largest else "smallest"
        return f"{abs(self.size):.1f} x the noise at the {end} {self.variable}"


@dataclass(frozen=True)
class Misfit:
    """Whether residuals have a trend."""

    F: float
    dof: tuple[int, int]
    p_value: float
    noise: float
    """Standard deviation of ln L that trends and law leave, or that of repeats."""
    edges: tuple[Edge, ...]
    """Ends of N, D and S whose mean residual is larger than the noise, largest first."""
    p_repeats: float | None
    """Of the F test against repeats, where there are any."""

    @property
    def found(self) -> bool:
        """The law misses the points."""
        return self.p_value < MAX_P_VALUE or (self.p_repeats is not None and self.p_repeats < MAX_P_VALUE)


def misfit(fit: LawFit) -> Misfit | None:
    """The tests of one fit; None where the points are too few to tell."""
    law, points = fit.law, fit.points
    n, root = len(points), np.sqrt(points.weights)
    J = fit.jacobian * root[:, None]
    r = fit.residuals * root
    # an outlier counts as the fit counted it
    r = np.clip(r, -fit.delta, fit.delta) if np.isfinite(fit.delta) else r
    trends = _trends(*_sizes(points).values()) * root[:, None]
    Q = np.linalg.qr(J / np.maximum(np.linalg.norm(J, axis=0), 1e-12))[0]
    free = trends - Q @ (Q.T @ trends)
    kept = np.linalg.norm(free, axis=0) > 1e-6 * np.maximum(np.linalg.norm(trends, axis=0), 1e-300)
    U, singular, _ = np.linalg.svd(free[:, kept], full_matrices=False)
    U = U[:, singular > 1e-6 * max(float(singular.max(initial=0.0)), 1e-300)]
    q, rest = U.shape[1], n - law.n_parameters - U.shape[1]
    if not q or rest < MIN_FREE:
        return None
    explained = U @ (U.T @ r)
    total, part = float(r @ r), float(explained @ explained)
    variance = max((total - part) / rest, 1e-300)
    F = part / q / variance
    repeats = lack_of_fit(fit)
    left = fit.residuals * root - explained
    noise = float(noise_scales(left[None], np.array([fit.delta]), n_parameters=law.n_parameters + q)[0])
    if repeats is not None:
        noise = min(noise, noise_of_repeats(fit) or noise)
    return Misfit(
        F,
        (q, rest),
        float(stats.f.sf(F, q, rest)),
        noise,
        _edges(fit, noise),
        None if repeats is None else repeats.p_value,
    )


def noise_of_repeats(fit: LawFit) -> float | None:
    """Standard deviation of ln L (at weight 1) about the means of repeated (N, D); None without repeats."""
    points = fit.points
    n, m = len(points), points.n_cells
    if n == m:
        return None
    w, y = points.weights, points.log_loss
    mean = np.bincount(points.cell, w * y) / np.bincount(points.cell, w)
    return float(np.sqrt((w * (y - mean[points.cell]) ** 2).sum() / (n - m)))


def _sizes(points: Points) -> dict[Literal["N", "D", "S"], Array]:
    """N, D and, where there is a column of it, the number of steps S of the points, (n,) each."""
    sizes: dict[Literal["N", "D", "S"], Array] = {"N": points.n_params, "D": points.n_frames}
    return sizes if points.steps is None else sizes | {"S": points.steps}


def _trends(*sizes: Array) -> Array:
    """Squares, cubes and products of pairs of the standardised logarithms of the sizes, (n, 5) of two and
    (n, 9) of three."""
    columns = []
    scaled = [
        (v - v.mean()) / v.std() if v.std() > 0 else np.zeros_like(v) for v in (np.log(s) for s in sizes)
    ]
    for v in scaled:
        columns += [v**2, v**3]
    return np.stack([*columns, *(x * y for x, y in combinations(scaled, 2))], axis=1)


def _edges(fit: LawFit, noise: float) -> tuple[Edge, ...]:
    points, found = fit.points, []
    r = fit.residuals * np.sqrt(points.weights)
    r = np.clip(r, -fit.delta, fit.delta) if np.isfinite(fit.delta) else r
    for variable, values in _sizes(points).items():
        levels = np.unique(values)
        if len(levels) < 3:
            continue
        # of scattered sizes as many as would make one row of eight
        share = max(1, len(levels) // 8)
        for largest in (False, True):
            inside = values >= levels[-share] if largest else values <= levels[share - 1]
            size = float(r[inside].mean() / max(noise, 1e-300))
            if abs(size) > EDGES:
                found.append(Edge(variable, largest, int(inside.sum()), size))
    return tuple(sorted(found, key=lambda e: -abs(e.size)))


@dataclass(frozen=True)
class Noise:
    """How the standard deviation of ln L depends on where a point lies: sigma ~ t^slope."""

    variable: Variable
    slope: float
    p_value: float
    """The smallest of those of the variables, times their number (Bonferroni)."""

    @property
    def unequal(self) -> bool:
        return self.p_value < MAX_P_VALUE


def noise_trend(fit: LawFit) -> Noise | None:
    """The variable along which the noise changes most; None where points are too few or all alike."""
    points, n = fit.points, len(fit.points)
    if n - fit.law.n_parameters < 8:
        return None
    J = fit.jacobian * np.sqrt(points.weights)[:, None]
    leverage = np.einsum("np,pn->n", J, np.linalg.pinv(J))
    r = fit.residuals * np.sqrt(points.weights) / np.sqrt(1.0 - np.clip(leverage, 0.0, 0.95))
    cap = 4.0 * noise_scale(fit)
    square = np.clip(r, -cap, cap) ** 2
    variables: dict[Variable, Array] = {
        "N": np.log(points.n_params),
        "D": np.log(points.n_frames),
        "loss": np.log(fit.fitted),
    }
    found = []
    for name, t in variables.items():
        if t.std() == 0 or square.std() == 0:
            continue
        R = float(np.corrcoef(t, square)[0, 1])
        # E ln r^2 = 2 ln sigma + constant, with a variance of pi^2/2 under normal noise
        slope = 0.5 * float(np.polyfit(t, np.log(square + 1e-4 * square.mean()), 1)[0])
        found.append((float(stats.chi2.sf(n * R**2, 1)), name, slope))
    if not found:
        return None
    p, name, slope = min(found)
    return Noise(name, slope, min(1.0, p * len(found)))


def precisions(fit: LawFit, noise: Noise) -> Array:
    """The weights of the points under that noise, (n,), with a geometric mean of 1."""
    points = fit.points
    t = {
        "N": points.n_params,
        "D": points.n_frames,
        "loss": fit.fitted,
    }[noise.variable]
    log_t = np.log(t)
    return np.asarray(np.exp(-2.0 * noise.slope * (log_t - log_t.mean())) * points.weights)
