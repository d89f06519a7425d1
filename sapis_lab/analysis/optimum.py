"""The best use of a budget: N*(C) and D*(C), how sure they are, and what another choice wastes.

    minimise L(N, D)   subject to   cost(N, D) = kappa N D + label D = C.

kappa is what a parameter costs for each labelled frame: training FLOPs per parameter and sample times epochs.
label is what a frame costs to make (DFT), in the same unit. With e_N = -dL/dlnN and e_D = -dL/dlnD the
optimum has equal gain per cost along both axes,

    e_N / (dcost/dlnN) = e_D / (dcost/dlnD),

one equation in ln N, solved by bisection for many draws of the law and many budgets at once. For label = 0
both sides share the interaction's part, so it moves no optimum, only the value of the loss there, and

    N* = G (C/kappa)^(beta/(alpha+beta)),   D* = (C/kappa)^(alpha/(alpha+beta)) / G,   G = (alpha A / (beta
    B))^(1/(alpha+beta)).

At fixed steps cost does not grow with D: this budget rule has no such optimum, and the question is then how
many labels to make.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sapis_lab.analysis.fit import LawFit
from sapis_lab.analysis.laws import Array, Law
from sapis_lab.analysis.uncertainty import Bootstrap, ends

SEARCH = (-5.0, 60.0)
"""Range of ln N."""
HALVINGS = 90


@dataclass(frozen=True)
class Cost:
    """cost(N, D) = kappa N D + label D, in FLOPs or in any one unit."""

    kappa: float
    """Cost of a parameter per labelled frame, all epochs together."""
    label: float = 0.0
    """Cost of making one labelled frame."""
    name: str = "FLOPs"

    def __post_init__(self) -> None:
        if not (self.kappa > 0 and self.label >= 0 and np.isfinite([self.kappa, self.label]).all()):
            raise ValueError(
                f"a cost needs kappa > 0 and label >= 0, got kappa={self.kappa} and label={self.label}"
            )

    @classmethod
    def from_runs(
        cls,
        n_params: ArrayLike,
        n_frames: ArrayLike,
        cost: ArrayLike,
        *,
        label: float = 0.0,
        name: str = "FLOPs",
    ) -> Cost:
        """The kappa of measured costs of training, their geometric mean over N D.

        Raises:
            ValueError: the costs are not proportional to N D, as those of a study at fixed steps.
        """
        ratio = (
            np.log(np.asarray(cost, float))
            - np.log(np.asarray(n_params, float))
            - np.log(np.asarray(n_frames, float))
        )
        log_d = np.log(np.asarray(n_frames, float))
        if np.ptp(log_d) > 0:
            slope = float(np.polyfit(log_d, ratio, 1)[0])
            if abs(slope) > 0.3:
                raise ValueError(
                    f"the costs grow as D^{1 + slope:.2f}, wanted D^1 (a fixed number of epochs); "
                    "at fixed steps no N, D split of a budget exists"
                )
        return cls(float(np.exp(ratio.mean())), label, name)

    def of(self, n_params: ArrayLike, n_frames: ArrayLike) -> Array:
        """cost(N, D), N and D broadcast against each other."""
        return self.kappa * np.asarray(n_params, float) * np.asarray(
            n_frames, float
        ) + self.label * np.asarray(n_frames, float)


@dataclass(frozen=True)
class Optimum:
    """The best split of budgets, one or many draws of the law; arrays (..., m) for m budgets."""

    budget: Array
    n_params: Array
    n_frames: Array
    loss: Array
    """L(N*, D*)."""
    at_edge: np.ndarray
    """The search ended on its edge: there is no optimum inside, as with an exponent of 0."""


def optimum(law: Law, params: Mapping[str, float] | Array, budget: ArrayLike, cost: Cost) -> Optimum:
    """The best N and D for each budget.

    Args:
        params: natural parameters by name, or draws of them (R, p) in the order of `Law.param_names`.
        budget: (m,), in the unit of the cost.

    Returns:
        Arrays (m,), or (R, m) for draws.

    Raises:
        ValueError: the law has no term in N or none in D, so nothing is traded.
    """
    if not (any(t.power_n for t in law.terms) and any(t.power_d for t in law.terms)):
        raise ValueError(f"law {law.name} has no terms in both N and D; there is nothing to trade")
    values = (
        np.array([params[k] for k in law.param_names])
        if isinstance(params, Mapping)
        else np.asarray(params, dtype=float)
    )
    C = np.atleast_1d(np.asarray(budget, dtype=float))
    shape = (*values.shape[:-1], len(C))
    log_terms, decay, along_n, along_d = _columns(law, values[..., None, :])
    low, high = np.full(shape, SEARCH[0]), np.full(shape, SEARCH[1])
    for _ in range(HALVINGS):
        x = 0.5 * (low + high)
        y = np.log(C) - np.log(cost.kappa * np.exp(x) + cost.label)
        term = np.exp(log_terms - decay * (along_n * x[..., None] + along_d * y[..., None]))
        gain_n, gain_d = (term * decay * along_n).sum(axis=-1), (term * decay * along_d).sum(axis=-1)
        # dcost/dlnN = kappa N D and dcost/dlnD = (kappa N + label) D
        larger = gain_n * (cost.kappa * np.exp(x) + cost.label) > gain_d * cost.kappa * np.exp(x)
        low, high = np.where(larger, x, low), np.where(larger, high, x)
    x = 0.5 * (low + high)
    N = np.exp(x)
    D = C / (cost.kappa * N + cost.label)
    loss = np.exp(log_terms - decay * (along_n * x[..., None] + along_d * np.log(D)[..., None])).sum(axis=-1)
    edge = (x < SEARCH[0] + 1e-6) | (x > SEARCH[1] - 1e-6)
    return Optimum(C, N, D, loss, edge)


@dataclass(frozen=True)
class OptimumBand:
    """The optimum of a fit with the percentile band of its draws about it, arrays (m,)."""

    best: Optimum
    n_params: tuple[Array, Array]
    n_frames: tuple[Array, Array]
    loss: tuple[Array, Array]
    waste: Array
    """Expected extra compute, as a part of the budget, that this uncertainty of N* costs: (alpha + beta)/2
    Var(ln N*)."""
    no_optimum: float
    """Part of the draws whose search ended on its edge at some budget."""


def optimum_band(
    fit: LawFit, draws: Bootstrap, budget: ArrayLike, cost: Cost, *, level: float = 0.95
) -> OptimumBand:
    """N*(C), D*(C) and L(N*, D*) of a fit, with bands from its draws."""
    best = optimum(fit.law, fit.params, budget, cost)
    many = optimum(fit.law, draws.params, budget, cost)
    variance = np.log(many.n_params).var(axis=0)
    exponents = fit.params.get("alpha", 0.0) + fit.params.get("beta", fit.params.get("alpha", 0.0))
    return OptimumBand(
        best,
        ends(many.n_params, best.n_params, level=level),
        ends(many.n_frames, best.n_frames, level=level),
        ends(many.loss, best.loss, level=level),
        waste(exponents, np.sqrt(variance)),
        float(many.at_edge.any(axis=-1).mean()),
    )


def waste(exponents: float | Array, log_ratio: ArrayLike) -> Array:
    """Extra compute, as a part of the budget, of N = N* exp(log_ratio) at equal N D: (alpha + beta)/2
    log_ratio^2, to second order.

    Args:
        exponents: alpha + beta.
    """
    return 0.5 * np.asarray(exponents) * np.asarray(log_ratio, dtype=float) ** 2


def _columns(law: Law, values: Array) -> tuple[Array, Array, Array, Array]:
    """ln amplitude and exponent of every term, (..., K), and its powers of N and D, (K,)."""
    amplitude = np.log(np.maximum(values[..., : law.n_terms], 1e-300))
    return (
        amplitude,
        law.exponents(values),
        np.array([t.power_n for t in law.terms]),
        np.array([t.power_d for t in law.terms]),
    )
