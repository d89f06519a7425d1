"""Laws that are no sum of powers: a break, other ways in which N and D limit the loss together, a ceiling.

With the terms of `laws`, T_N = A N^-alpha and T_D = B D^-beta, each form is their sum with one thing changed:

    break-d     T_D = B D^-beta (1 + D_b / D)^(beta_0 - beta): exponent beta_0 far below D_b, beta far above
                (one break of fixed sharpness of the smoothly broken power law of Caballero et al.,
                arXiv:2210.14891, as in arXiv:2602.05702); break-n likewise, with alpha_0 and N_b
    kaplan      L = (T_N^(1/beta) + T_D^(1/beta))^beta, which is [(N_c/N)^(alpha/beta) + D_c/D]^beta with
                A = N_c^alpha and B = D_c^beta (Kaplan et al., arXiv:2001.08361, eq. 1.5)
    pnorm       L = (T_N^(1/q) + T_D^(1/q))^q with q free: 1 is the sum, beta Kaplan's form, near 0 the
                larger of the two
    cross       T_D = B D^-beta (N / N_0)^-(p + kappa ln(D / D_0)), (N_0, D_0) in the middle of the points: an
                exponent of D that moves with N, as arXiv:2506.10972 observed
    ceiling     1/L = 1/(T_N + T_D) + 1/S: a loss that ends at S, that of a model that knows nothing (a
                saturation as in Alabdulmohsin et al., arXiv:2209.06640)

each with a floor, added last, and tied (alpha = beta) too. `theta` is that of `Law` with the extra parameters
behind the exponents; breaks are centred logarithms, S is a logarithm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from sapis_lab.analysis.laws import AMPLITUDE_RANGE, KNOWN, MAX_EXPONENT, Array, Centre, Law, power_sum

Mean = Literal["sum", "kaplan", "pnorm"]
MIN_MEAN, MAX_MEAN = 0.05, 20.0
"""Bounds of q, the lower one also of the exponent that stands for it in Kaplan's form."""
MAX_CROSS = 0.5
"""Largest |p| and |kappa| that are looked for."""
BESIDE = 0.3
"""A break may lie this many e-folds outside of the points: farther out there is nothing to see of it."""


@dataclass(frozen=True)
class BentLaw(Law):
    """A law with extra parameters; see the module for the forms."""

    mean: Mean = "sum"
    """How T_N and T_D combine."""
    broken: Literal["", "n", "d"] = ""
    """The term that breaks."""
    cross: bool = False
    ceiling: bool = False

    @property
    def bent(self) -> bool:
        return True

    @cached_property
    def extra_names(self) -> tuple[str, ...]:
        broken = {"": (), "n": ("alpha_0", "N_b"), "d": ("beta_0", "D_b")}[self.broken]
        return (
            *broken,
            *(("q",) if self.mean == "pnorm" else ()),
            *(("p", "kappa") if self.cross else ()),
            *(("S",) if self.ceiling else ()),
        )

    @property
    def profiled_names(self) -> tuple[str, ...]:
        floors = tuple(t.amplitude for t in self.terms if t.exponent is None)
        return (*self.exponent_names, *self.extra_names, *floors)

    def bounds(self, log_loss: Array, z: Array) -> tuple[Array, Array]:
        lower, upper = super().bounds(log_loss, z)
        if self.mean == "kaplan":
            lower[self.slots[self._term("d")]] = MIN_MEAN
        typical = float(np.mean(log_loss))
        along = z[:, self._term(self.broken)] if self.broken else np.zeros(1)
        place = (along.min() - BESIDE, along.max() + BESIDE)
        limits = {
            "alpha_0": (0.0, MAX_EXPONENT),
            "beta_0": (0.0, MAX_EXPONENT),
            "N_b": place,
            "D_b": place,
            "q": (MIN_MEAN, MAX_MEAN),
            "p": (-MAX_CROSS, MAX_CROSS),
            "kappa": (-MAX_CROSS, MAX_CROSS),
            "S": (typical, typical + AMPLITUDE_RANGE),
        }
        ends = np.array([limits[name] for name in self.extra_names], dtype=float).reshape(-1, 2)
        return np.r_[lower, ends[:, 0]], np.r_[upper, ends[:, 1]]

    # -------------------------------------------------------------------------------------------- the loss

    def log_loss(self, theta: Array, z: Array) -> tuple[Array, Array]:
        """ln L, (..., n), and d ln L / d ln T_k of each term, (..., n, K): its share, where terms add up."""
        made = _Made(self, np.asarray(theta, dtype=float), z)
        return made.log_loss, np.stack(np.broadcast_arrays(*made.weight), axis=-1)

    def jacobian(self, theta: Array, z: Array) -> Array:
        return np.stack(np.broadcast_arrays(*self.columns(theta, z)[1]), axis=-1)

    def columns(self, theta: Array, z: Array) -> tuple[Array, list[Array]]:
        """ln L, (..., n), and its derivative by each parameter, p arrays (..., n)."""
        made = _Made(self, theta, z)
        return made.log_loss, made.derivatives()

    # --------------------------------------------------------------------------------------- natural numbers

    def natural(self, theta: Array, *, centre: Centre) -> Array:
        """As of `Law`; A and B are those of the asymptote far above a break, N_b and D_b sizes, S a loss."""
        values = np.array(theta, dtype=float)
        values[..., : self.n_terms] += self.exponents(values) * self.centres(centre)
        if self.broken:
            k, first, place = self._break
            bend = values[..., first] - self.exponents(values)[..., k]
            values[..., k] -= bend * np.logaddexp(0.0, values[..., place])
            values[..., place] = np.exp(values[..., place] + self.centres(centre)[k])
        for k in self._logarithms:
            values[..., k] = np.exp(np.clip(values[..., k], -700.0, 700.0))
        return values

    def centred(self, params: Mapping[str, float], *, centre: Centre) -> Array:
        theta = np.array([params[name] for name in self.param_names], dtype=float)
        theta[self._logarithms] = np.log(theta[self._logarithms])
        theta[: self.n_terms] -= self.exponents(theta) * self.centres(centre)
        if self.broken:
            k, first, place = self._break
            theta[place] = np.log(theta[place]) - self.centres(centre)[k]
            theta[k] += (theta[first] - self.exponents(theta)[k]) * np.logaddexp(0.0, theta[place])
        return theta

    @property
    def logarithms(self) -> tuple[str, ...]:
        return (*super().logarithms, *(name for name in ("N_b", "D_b", "S") if name in self.extra_names))

    def offset(self, name: str, centre: Centre) -> float:
        return {"N_b": centre.log_n, "D_b": centre.log_d}.get(name, 0.0)

    def constants(self, centre: Centre) -> dict[str, float]:
        return {"N_0": float(np.exp(centre.log_n)), "D_0": float(np.exp(centre.log_d))} if self.cross else {}

    def predict(
        self,
        params: Mapping[str, float],
        n_params: ArrayLike,
        n_frames: ArrayLike,
        steps: ArrayLike | None = None,
    ) -> Array:
        return self._at(params, n_params, n_frames)[0]

    def term_values(
        self,
        params: Mapping[str, float],
        n_params: ArrayLike,
        n_frames: ArrayLike,
        steps: ArrayLike | None = None,
    ) -> Array:
        """The part of the loss that each term answers for, d ln L / d ln T_k times L: below a ceiling they do
        not add up to L."""
        loss, made = self._at(params, n_params, n_frames)
        return (
            np.stack([np.broadcast_to(w, made.log_loss.shape) for w in made.weight], axis=-1).reshape(
                *loss.shape, self.n_terms
            )
            * loss[..., None]
        )

    def slopes(
        self, params: Mapping[str, float], n_params: ArrayLike, n_frames: ArrayLike
    ) -> tuple[Array, Array]:
        loss, made = self._at(params, n_params, n_frames)
        along_n, along_d = made.slopes()
        return loss * along_n.reshape(loss.shape), loss * along_d.reshape(loss.shape)

    def _at(
        self, params: Mapping[str, float], n_params: ArrayLike, n_frames: ArrayLike
    ) -> tuple[Array, _Made]:
        """L, and what it was made of with the axes of N and D as one; N and D broadcast."""
        N, D = np.broadcast_arrays(np.asarray(n_params, float), np.asarray(n_frames, float))
        centre = Centre(float(np.log(params.get("N_0", 1.0))), float(np.log(params.get("D_0", 1.0))))
        made = _Made(
            self,
            self.centred(params, centre=centre),
            self.coordinates(N.ravel(), D.ravel(), centre=centre),
        )
        return np.exp(made.log_loss).reshape(N.shape), made

    # ------------------------------------------------------------------------------------- places in theta

    def _term(self, name: str) -> int:
        return next(k for k, t in enumerate(self.terms) if t.name == name)

    def exponent_of(self, term: str) -> str:
        """The name of a term's exponent."""
        return self.terms[self._term(term)].exponent or ""

    @property
    def _break(self) -> tuple[int, int, int]:
        """Of the broken term: its amplitude, its first exponent and its break."""
        first, place = ("alpha_0", "N_b") if self.broken == "n" else ("beta_0", "D_b")
        return self._term(self.broken), self.param_names.index(first), self.param_names.index(place)

    @property
    def _logarithms(self) -> list[int]:
        """Parameters whose natural values are exponentials, besides the break."""
        return [*range(self.n_terms), *([self.param_names.index("S")] if self.ceiling else [])]


class _Made:
    """The loss of a bent law at theta (..., p) and z (n, K), with what its derivatives need."""

    def __init__(self, law: BentLaw, theta: Array, z: Array) -> None:
        self.law, self.theta, self.z = law, theta, z
        self.powers = [k for k, t in enumerate(law.terms) if t.exponent]
        u = [self._log_term(k) for k in range(law.n_terms)]
        q = self._value("q") if law.mean == "pnorm" else 1.0
        if law.mean == "kaplan":
            q = self._exponent(law._term("d"))
        scaled = [u[k] / q for k in self.powers]
        top = np.maximum.reduce(scaled)
        parts = [np.exp(v - top) for v in scaled]
        total = np.add.reduce(parts)
        m = top + np.log(total)
        self.weight: list[Array] = [np.zeros(1)] * law.n_terms
        for k, part in zip(self.powers, parts, strict=True):
            self.weight[k] = part / total
        # d (q lse(u/q)) / dq, the entropy of the weights
        self.entropy = m - np.add.reduce(
            [self.weight[k] * v for k, v in zip(self.powers, scaled, strict=True)]
        )
        m = q * m
        below: Array | float = 1.0  # d ln L / d ln(what the power terms make together)
        self.saturated: Array | float = 0.0
        if law.ceiling:
            above = m - self._value("S")
            self.saturated = _logistic(above)
            below = 1.0 - self.saturated
            m = m - np.logaddexp(0.0, above)
        floor = next((k for k, t in enumerate(law.terms) if t.exponent is None), None)
        if floor is not None:
            together = np.logaddexp(m, u[floor])
            self.weight[floor] = np.exp(u[floor] - together)
            rest = np.exp(m - together)
            below, self.saturated, m = below * rest, self.saturated * rest, together
        self.log_loss = m
        self.entropy = self.entropy * below
        for k in self.powers:
            self.weight[k] = self.weight[k] * below

    def _log_term(self, k: int) -> Array:
        """ln T_k, (..., n)."""
        law, t, z = self.law, self.law.terms[k], self.z[:, k]
        term = self.theta[..., k, None] - self._exponent(k) * z
        if t.name == law.broken:
            _, first, place = law._break
            b = self.theta[..., place, None]
            # what the break adds, 0 in the middle of the points
            self.fold = np.logaddexp(0.0, b - z) - np.logaddexp(0.0, b)
            self.bend = self.theta[..., first, None] - self._exponent(k)
            term = term + self.bend * self.fold
        if law.cross and t.name == "d":
            term = term - self.z[:, law._term("n")] * (self._value("p") + self._value("kappa") * z)
        return term

    def derivatives(self) -> list[Array]:
        """d ln L / d theta_i, p arrays (..., n)."""
        law, z, names = self.law, self.z, self.law.param_names
        columns: list[Array] = [np.zeros(1)] * law.n_parameters
        for k, slot in enumerate(law.slots):
            columns[k] = self.weight[k]
            if slot is not None:
                along = z[:, k] + self.fold if law.terms[k].name == law.broken else z[:, k]
                columns[slot] = columns[slot] - self.weight[k] * along
        if law.broken:
            k, first, place = law._break
            b = self.theta[..., place, None]
            columns[first] = self.weight[k] * self.fold
            columns[place] = self.weight[k] * self.bend * (_logistic(b - z[:, k]) - _logistic(b))
        if law.mean == "kaplan":
            slot = law.slots[law._term("d")] or 0
            columns[slot] = columns[slot] + self.entropy
        elif law.mean == "pnorm":
            columns[names.index("q")] = self.entropy
        if law.cross:
            x, y, w = z[:, law._term("n")], z[:, law._term("d")], self.weight[law._term("d")]
            columns[names.index("p")], columns[names.index("kappa")] = -w * x, -w * (x * y)
        if law.ceiling:
            columns[names.index("S")] = np.asarray(self.saturated)
        return columns

    def slopes(self) -> tuple[Array, Array]:
        """d ln L / d ln N and d ln L / d ln D, (n,) each."""
        law, along = self.law, np.zeros((2, len(self.z)))
        for k in self.powers:
            t, z = law.terms[k], self.z[:, k]
            slope = -self._exponent(k) + np.zeros(len(z))
            if t.name == law.broken:
                slope = slope - self.bend * _logistic(self.theta[law._break[2]] - z)
            along += self.weight[k] * slope * np.array([[t.power_n], [t.power_d]])
            if law.cross and t.name == "d":
                kappa = self._value("kappa")
                moved = np.stack([self._value("p") + kappa * z, kappa * self.z[:, law._term("n")]])
                along -= self.weight[k] * moved
        return along[0], along[1]

    def _value(self, name: str) -> Array:
        return self.theta[..., self.law.param_names.index(name), None]

    def _exponent(self, k: int) -> Array:
        slot = self.law.slots[k]
        return np.zeros((*self.theta.shape[:-1], 1)) if slot is None else self.theta[..., slot, None]


def _logistic(x: Array) -> Array:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def bent_starts(law: BentLaw, plain: Array, *, z: Array, log_loss: Array) -> Array:
    """Starts of a bent law, (n_starts, p): those of the sum of the same terms, (m, K + J), each with a few
    values of the extra parameters."""
    names, n_plain = law.param_names, plain.shape[1]
    choices: list[dict[str, float]] = [{}]
    if law.broken:
        k, _, place = law._break
        where = np.quantile(np.unique(z[:, k]), (0.2, 0.5, 0.8))
        choices = [{names[place]: float(b), "ratio": ratio} for b in where for ratio in (0.4, 2.0)]
    if law.mean == "pnorm":
        choices = [c | {"q": q} for c in choices for q in (0.25, 0.5, 1.0, 2.0)]
    if law.cross:
        choices = [c | {"p": 0.0, "kappa": kappa} for c in choices for kappa in (-0.02, 0.02)]
    if law.ceiling:
        top = float(log_loss.max())
        choices = [c | {"S": top + margin} for c in choices for margin in (0.05, 0.7)]
    starts = np.zeros((len(plain), len(choices), law.n_parameters))
    starts[..., :n_plain] = plain[:, None]
    for c, choice in enumerate(choices):
        for name, value in choice.items():
            if name == "ratio":
                k, first, _ = law._break
                slot = law.slots[k]
                starts[:, c, first] = value * plain[:, slot]
            else:
                starts[:, c, names.index(name)] = value
    return starts.reshape(-1, law.n_parameters)


def _form(base: str, *, mean: Mean = "sum", tag: str = "") -> BentLaw:
    name = base if mean == "sum" else base.replace("n+d", mean, 1)
    return BentLaw(
        f"{name}:{tag}" if tag else name,
        power_sum(base).terms,
        mean=mean,
        broken={"break-n": "n", "break-d": "d"}.get(tag, ""),  # type: ignore[arg-type]
        cross=tag == "cross",
        ceiling=tag == "ceiling",
    )


_MADE: tuple[tuple[Mean, str], ...] = (
    ("sum", "break-d"),
    ("sum", "break-n"),
    ("kaplan", ""),
    ("kaplan", "break-d"),
    ("kaplan", "break-n"),
    ("pnorm", ""),
    ("pnorm", "break-d"),
    ("sum", "cross"),
    ("sum", "ceiling"),
)
FORMS = {
    form.name: form
    for mean, tag in _MADE
    for base in ("n+d", "n+d+e", "n+d:tied", "n+d+e:tied")
    for form in (_form(base, mean=mean, tag=tag),)
}
"""Every bent law by its name: `n+d+e:break-d`, `kaplan+e`, `pnorm:tied`, `n+d:ceiling` and so on."""
KNOWN.update(FORMS)
