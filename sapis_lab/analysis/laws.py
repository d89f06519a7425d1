"""Scaling laws: the loss of a model as a sum of powers of its size N and of its number of labelled frames D.

    L(N, D) = A N^-alpha + B D^-beta + C (N D)^-gamma + E,      L(C) = A C^-alpha + E,

and their special cases. The two-term form with a floor is Hoffmann et al. 2022 (arXiv:2203.15556, eq. 2). A
law is a tuple of terms, so each form here is one line of `LAWS`.

Fits work in log L and in centred coordinates: with x = ln N - <ln N> and y = ln D - <ln D> over the data,

    ln L = ln sum_k exp(a_k - s_k z_k),   z_k = n_k x + d_k y,

where (n_k, d_k) says on which variables term k depends. Then a_k is the logarithm of term k in the middle of
the lattice instead of at N = D = 1, decades away from every point. That alone takes the condition number of
the usual problem from 3e6 to 1e4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
MAX_EXPONENT = 6.0
AMPLITUDE_RANGE = 30.0
"""A term may fall e^-30 below, or rise e^30 above, the typical loss in the middle of the points; a steep one
still shows in a corner."""


@dataclass(frozen=True)
class Term:
    """One power of the law, `amplitude * (N^power_n D^power_d)^-exponent`; a floor has no exponent."""

    name: str
    amplitude: str
    exponent: str | None
    power_n: float
    power_d: float
    power_s: float = 0.0
    """Of the number of training steps S."""


TERMS = {
    "n": Term("n", "A", "alpha", 1.0, 0.0),
    "d": Term("d", "B", "beta", 0.0, 1.0),
    "c": Term("c", "A", "alpha", 1.0, 0.0),
    "nd": Term("nd", "C", "gamma", 1.0, 1.0),
    "s": Term("s", "F", "sigma", 0.0, 0.0, 1.0),
    "e": Term("e", "E", None, 0.0, 0.0),
}
SYMBOLS = {
    "alpha": "α",
    "beta": "β",
    "gamma": "γ",
    "sigma": "σ",
    "alpha_0": "α₀",
    "beta_0": "β₀",
    "kappa": "κ",
}
"""How a parameter is printed; amplitudes print as they are named."""


@dataclass(frozen=True)
class Centre:
    """The origin of centred coordinates: mean ln N, mean ln D and mean ln S of the fitted points."""

    log_n: float
    log_d: float
    log_s: float = 0.0

    @classmethod
    def of(cls, n_params: ArrayLike, n_frames: ArrayLike, steps: ArrayLike | None = None) -> Centre:
        log_s = 0.0 if steps is None else float(np.mean(np.log(steps)))
        return cls(float(np.mean(np.log(n_params))), float(np.mean(np.log(n_frames))), log_s)


@dataclass(frozen=True)
class Law:
    """A sum of terms. `theta` below is always (..., K + J): K log amplitudes, then J exponents, centred.

    Shapes: K terms, J of them with an exponent, p = K + J parameters, n points; leading axes are free (a
    batch of fits).
    """

    name: str
    terms: tuple[Term, ...]

    @property
    def bent(self) -> bool:
        """It is no sum of powers."""
        return False

    @property
    def extra_names(self) -> tuple[str, ...]:
        """Names of parameters that are neither amplitudes nor exponents: none in a sum of powers."""
        return ()

    @cached_property
    def exponent_names(self) -> tuple[str, ...]:
        """Names of the J free exponents; terms that name the same one share it."""
        return tuple(dict.fromkeys(t.exponent for t in self.terms if t.exponent))

    @cached_property
    def slots(self) -> tuple[int | None, ...]:
        """Position in `theta` of the exponent of each term, (K,); None for a floor."""
        return tuple(
            self.n_terms + self.exponent_names.index(t.exponent) if t.exponent else None for t in self.terms
        )

    @cached_property
    def param_names(self) -> tuple[str, ...]:
        """Names in the order of `theta`: amplitudes, exponents, extra parameters."""
        return tuple(t.amplitude for t in self.terms) + self.exponent_names + self.extra_names

    @property
    def profiled_names(self) -> tuple[str, ...]:
        """The parameters that intervals are made for."""
        return self.param_names

    @property
    def n_terms(self) -> int:
        return len(self.terms)

    @property
    def n_parameters(self) -> int:
        return len(self.param_names)

    @property
    def of_steps(self) -> bool:
        """It has a term of the number of training steps."""
        return any(t.power_s for t in self.terms)

    def coordinates(
        self, n_params: ArrayLike, n_frames: ArrayLike, *, centre: Centre, steps: ArrayLike | None = None
    ) -> Array:
        """z_k of every point, (n, K): the logarithm that term k's exponent multiplies.

        Raises:
            ValueError: a law of steps without steps.
        """
        x = np.log(np.asarray(n_params, dtype=float)) - centre.log_n
        y = np.log(np.asarray(n_frames, dtype=float)) - centre.log_d
        s = self._log_steps(steps) - centre.log_s
        return np.stack([t.power_n * x + t.power_d * y + t.power_s * s for t in self.terms], axis=-1)

    def _log_steps(self, steps: ArrayLike | None) -> Array:
        if steps is None and self.of_steps:
            raise ValueError(f"law {self.name} needs the number of steps of every point")
        return np.zeros(()) if steps is None else np.log(np.asarray(steps, dtype=float))

    def log_terms(self, theta: Array, z: Array) -> Array:
        """u_k = a_k - s_k z_k, the logarithm of each term, (..., n, K)."""
        return theta[..., None, : self.n_terms] - self.exponents(theta)[..., None, :] * z

    def exponents(self, theta: Array) -> Array:
        """The exponent of every term, (..., K); 0 for a floor."""
        values = np.zeros((*theta.shape[:-1], self.n_terms))
        for k, slot in enumerate(self.slots):
            if slot is not None:
                values[..., k] = theta[..., slot]
        return values

    def log_loss(self, theta: Array, z: Array) -> tuple[Array, Array]:
        """ln L, (..., n), and the share of each term in L, (..., n, K)."""
        u = self.log_terms(theta, z)
        top = _over_terms(np.maximum, u)
        weight = np.exp(u - top[..., None])
        total = _over_terms(np.add, weight)
        return top + np.log(total), weight / total[..., None]

    def bounds(self, log_loss: Array, z: Array) -> tuple[Array, Array]:
        """Lower and upper limits of theta for points of ln L at z, each (p,)."""
        typical, J = float(np.mean(log_loss)), len(self.exponent_names)
        lower = np.r_[np.full(self.n_terms, typical - AMPLITUDE_RANGE), np.zeros(J)]
        upper = np.r_[np.full(self.n_terms, typical + AMPLITUDE_RANGE), np.full(J, MAX_EXPONENT)]
        return lower, upper

    def jacobian(self, theta: Array, z: Array) -> Array:
        """d ln L / d theta, (..., n, p): w_k for a log amplitude and -w_k z_k for an exponent."""
        share = self.log_loss(theta, z)[1]
        jacobian = np.zeros((*share.shape[:-1], self.n_parameters))
        jacobian[..., : self.n_terms] = share
        for k, slot in enumerate(self.slots):
            if slot is not None:
                jacobian[..., slot] -= share[..., k] * z[:, k]
        return jacobian

    def residual(self, theta: Array, z: Array, log_loss: Array) -> Array:
        """Predicted minus measured ln L, (..., n)."""
        return self.log_loss(theta, z)[0] - log_loss

    def natural(self, theta: Array, *, centre: Centre) -> Array:
        """A, B, ..., alpha, beta, ... from centred parameters, (..., p); amplitudes in the unit of the
        loss."""
        values = np.array(theta, dtype=float)
        values[..., : self.n_terms] += self.exponents(values) * self.centres(centre)
        values[..., : self.n_terms] = np.exp(np.minimum(values[..., : self.n_terms], 700.0))
        return values

    @property
    def logarithms(self) -> tuple[str, ...]:
        """Parameters that stand in theta as logarithms."""
        return tuple(t.amplitude for t in self.terms)

    def offset(self, name: str, centre: Centre) -> float:
        """ln of the natural value less the entry of theta, of a logarithm that is no amplitude."""
        return 0.0

    def constants(self, centre: Centre) -> dict[str, float]:
        """Numbers beside the parameters that the formula needs."""
        return {}

    def centres(self, centre: Centre) -> Array:
        """What centring subtracted from the coordinate of each term, (K,): ln A = a + alpha * this."""
        return np.array(
            [
                t.power_n * centre.log_n + t.power_d * centre.log_d + t.power_s * centre.log_s
                for t in self.terms
            ]
        )

    def centred(self, params: Mapping[str, float], *, centre: Centre) -> Array:
        """The inverse of `natural`, (p,)."""
        theta = np.array([params[name] for name in self.param_names], dtype=float)
        theta[: self.n_terms] = np.log(theta[: self.n_terms]) - self.exponents(theta) * self.centres(centre)
        return theta

    def term_values(
        self,
        params: Mapping[str, float],
        n_params: ArrayLike,
        n_frames: ArrayLike,
        steps: ArrayLike | None = None,
    ) -> Array:
        """Each term in the unit of the loss, (..., K), N, D and S broadcast against each other."""
        x, y, s = np.broadcast_arrays(
            np.log(np.asarray(n_params, float)), np.log(np.asarray(n_frames, float)), self._log_steps(steps)
        )
        return np.stack(
            [
                params[t.amplitude]
                * np.exp(-_exponent(t, params) * (t.power_n * x + t.power_d * y + t.power_s * s))
                for t in self.terms
            ],
            axis=-1,
        )

    def predict(
        self,
        params: Mapping[str, float],
        n_params: ArrayLike,
        n_frames: ArrayLike,
        steps: ArrayLike | None = None,
    ) -> Array:
        """L(N, D), or L(N, D, S), in the unit of the amplitudes, sizes broadcast against each other."""
        return self.term_values(params, n_params, n_frames, steps).sum(axis=-1)

    def slopes(
        self, params: Mapping[str, float], n_params: ArrayLike, n_frames: ArrayLike
    ) -> tuple[Array, Array]:
        """dL/dlnN and dL/dlnD, each of the shape of `predict`: what growing the model or the data would
        gain."""
        values = self.term_values(params, n_params, n_frames)
        decay = np.array([_exponent(t, params) for t in self.terms])
        along_n, along_d = (
            np.array([t.power_n for t in self.terms]),
            np.array([t.power_d for t in self.terms]),
        )
        return -(values * decay * along_n).sum(axis=-1), -(values * decay * along_d).sum(axis=-1)


def _over_terms(operation: np.ufunc, values: Array) -> Array:
    """Reduce the last axis term by term: numpy's own reductions are several times slower along an axis of 2
    to 4."""
    result = values[..., 0]
    for k in range(1, values.shape[-1]):
        result = operation(result, values[..., k])
    return result


def _exponent(term: Term, params: Mapping[str, float]) -> float:
    return params[term.exponent] if term.exponent else 0.0


def power_sum(name: str) -> Law:
    """The sum of powers of a name such as `n+d+e` or `n+d:tied`."""
    parts, _, tied = name.partition(":")
    terms = tuple(TERMS[part] for part in parts.split("+"))
    return Law(name, tuple(replace(t, exponent="alpha") if tied and t.name == "d" else t for t in terms))


LAWS = {name: power_sum(name) for name in ("n+d", "n+d+e", "n+d+nd", "n+d+nd+e")}
"""The forms that a table of (N, D, L) is asked about, side by side."""
TIED_LAWS = {name: power_sum(name) for name in (f"{free}:tied" for free in LAWS)}
"""The same with alpha = beta: fewer parameters, and the better forecast from few points far below the target
(Gadre et al. 2024)."""
COMPUTE_LAWS = {name: power_sum(name) for name in ("c", "c+e")}
"""L(C) = A C^-alpha + E of a frontier: fit them with the compute C in the place of N and any D."""

STEP_LAWS = {name: power_sum(name) for name in ("n+s", "n+s+e", "n+d+s", "n+d+s+e")}
"""With F S^-sigma of the number of training steps S: L(N, S) of Kaplan et al. (arXiv:2001.08361, eq. 1.6),
and beside the data."""

KNOWN: dict[str, Law] = LAWS | TIED_LAWS | COMPUTE_LAWS | STEP_LAWS
"""Every law by its name; `forms` adds its own."""


def law_named(name: str) -> Law:
    """The law called `name`; a `ValueError` lists the known ones."""
    if name not in KNOWN:
        raise ValueError(f"law {name!r} is not known; known laws are {', '.join(KNOWN)}")
    return KNOWN[name]


def size_symbol(law: Law) -> str:
    """What a law's size is called: C of a law of compute, N of the others."""
    return "C" if law.name in COMPUTE_LAWS else "N"
