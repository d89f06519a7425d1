"""Profile-likelihood intervals: how far a parameter may move before the best fit that it allows becomes too
bad.

For each value v of one parameter all others are fitted again; the interval is the hull of the values with
T(v) <= cut, T being the statistic of `refit`. The cut is the 95 % point of F(1, n - p): the usual chi-square
of one degree of freedom takes the noise as known and covers 88-92 % for a three-term law on 5 x 5 points.
With `n_simulations` the cut is instead taken from data simulated at the constrained optimum where the
interval ends (a test inverted by the parametric bootstrap, Carpenter 1999): it knows about second valleys,
which make T larger, and about exponents and amplitudes that cannot be negative, which make it smaller. `sapis
selftest coverage` measures what either covers.

With groups the points of a run err together. T is then divided by the ratio of the cluster-robust to the
plain variance of the parameter (Chandler & Bate 2007) and judged with one degree of freedom less than there
are groups.

An interval that ends on the edge of the search (an exponent of 0 or `MAX_EXPONENT`, an amplitude of 0 or
without limit) is open there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from sapis_lab.analysis.fit import LawFit
from sapis_lab.analysis.laws import AMPLITUDE_RANGE, MAX_EXPONENT, Array
from sapis_lab.analysis.refit import (
    FEW_STEPS,
    Refits,
    Setting,
    constrained,
    dispersion,
    noise_scale,
    refit,
    statistic,
)
from sapis_lab.analysis.solve import MAX_STEPS

STEPS = np.array([0.5, 1.1, 1.7, 2.2, 2.8, 4.0, 7.0, 15.0])
"""Where a profile is looked at first, in standard errors of the parameter."""
ABSOLUTE = np.r_[0.0, np.geomspace(0.05, 2.0, 5), MAX_EXPONENT]
"""Exponents that are looked at besides: a second valley may lie many standard errors away."""
MOST_MODES = 3
MANY = 80
"""Degrees of freedom from which on the F distribution needs no simulation to correct it."""
TAIL = (0.85, 0.985)
"""Levels of the simulated statistic that a critical value is estimated from."""
REFINEMENTS = 8
CLOSE = 1e-3
"""How near sqrt(T) must come to that of the cut, 2: an end is found to a two-thousandth of the half-width."""


@dataclass(frozen=True)
class Profile:
    """The profile of one parameter, values ascending, m of them."""

    name: str
    value: Array
    """(m,) an exponent, or an amplitude in the unit of the loss."""
    statistic: Array
    """(m,) T, to be compared with `cuts`."""
    theta: Array
    """(m, p) constrained optima, in the centred coordinates of the fit."""
    cuts: tuple[float, float]
    """Critical values of T at the lower and at the upper end."""
    low: float
    high: float
    open_low: bool
    """No value was rejected below: the interval ends at the edge of the search, or of what is possible."""
    open_high: bool

    @property
    def interval(self) -> tuple[float, float]:
        return self.low, self.high


@dataclass(frozen=True)
class _Track:
    """One parameter in coordinates in which it is an entry of theta: an exponent or a floor, or a log
    amplitude at N = D = 1."""

    name: str
    position: int
    z: Array
    shift: Array
    """(p, p): theta of the track = theta of the fit @ shift."""
    lower: float
    upper: float
    logarithm: bool
    """The entry is a logarithm, and moves over the whole range."""
    offset: float = 0.0
    """Of the logarithm of the natural value over the entry."""

    @classmethod
    def of(cls, fit: LawFit, name: str) -> _Track:
        law, position = fit.law, fit.law.param_names.index(name)
        shift, z = np.eye(law.n_parameters), fit.z
        if position >= law.n_terms:
            low, high = (float(limit[position]) for limit in law.bounds(fit.points.log_loss, z))
            known = name in law.logarithms
            return cls(name, position, z, shift, low, high, known, law.offset(name, fit.centre))
        slot, centre = law.slots[position], law.centres(fit.centre)[position]
        typical = float(fit.points.log_loss.mean())
        lower, upper = typical - AMPLITUDE_RANGE, typical + AMPLITUDE_RANGE
        if slot is not None:
            shift[slot, position] = centre
            z = z.copy()
            z[:, position] += centre
            upper += MAX_EXPONENT * max(centre, 0.0)
        return cls(name, position, z, shift, lower, upper, True)

    @property
    def back(self) -> Array:
        """(p, p): theta of the fit = theta of the track @ back."""
        return np.asarray(np.linalg.inv(self.shift), dtype=float)

    @property
    def own_coordinates(self) -> bool:
        """Its coordinates are not those of the fit."""
        return bool((self.shift != np.eye(len(self.shift))).any())


def profiles(
    fit: LawFit,
    names: Sequence[str] | None = None,
    *,
    level: float = 0.95,
    cut: float | None = None,
    n_simulations: int = 0,
    generator: np.random.Generator | None = None,
) -> dict[str, Profile]:
    """The profile and the interval of each parameter (all when no names are given).

    Args:
        cut: the critical value of T, instead of the quantile of F.
        n_simulations: data sets behind each critical value; 0 for the F distribution.   generator: needed
            with simulations.

    Raises:
        ValueError: the fit has no degree of freedom (or no two groups), so that nothing is known of the
        noise.
    """
    dof = degrees_of_freedom(fit)
    if dof < 1:
        what = "points" if fit.points.group is None else "groups"
        raise ValueError(
            f"{len(fit.points)} points leave no degree of freedom ({what}) to law {fit.law.name}; intervals "
            f"need more of them"
        )
    if n_simulations and generator is None:
        raise ValueError("simulated critical values need a generator")
    cut = float(stats.f.ppf(level, 1, dof)) if cut is None else cut
    tracks = [_Track.of(fit, name) for name in (names or fit.law.profiled_names)]
    # all that share the coordinates of the fit go through the solver together
    together = [t for t in tracks if not t.own_coordinates]
    found: dict[str, Profile] = {}
    if together:
        line = _Line(fit, together)
        cuts = np.full(2 * len(together), cut)
        if n_simulations and generator is not None and fit.degrees_of_freedom < MANY:
            cuts = _simulated(
                fit, together, line.ends(cuts), cut, level=level, n_sets=n_simulations, generator=generator
            )
        found |= line.profiles(together, cuts)
    for track in tracks:
        if track.own_coordinates:
            # an amplitude moves with its exponent, and is judged as that is
            slot = fit.law.slots[track.position]
            exponent = found.get(fit.law.param_names[slot]) if slot is not None else None
            found |= _Line(fit, [track]).profiles(
                [track], np.array(exponent.cuts if exponent else (cut, cut))
            )
    return {track.name: found[track.name] for track in tracks}


def _simulated(
    fit: LawFit,
    tracks: list[_Track],
    ends: list[_End],
    cut: float,
    *,
    level: float,
    n_sets: int,
    generator: np.random.Generator,
) -> Array:
    """Critical values at the ends of tracks in the coordinates of the fit, (2 x tracks,); `cut` where an
    interval is open."""
    setting, sigma = Setting.scouted(fit), np.full(2, noise_scale(fit))
    cuts = np.full(2 * len(tracks), cut)
    for i, track in enumerate(tracks):
        low, high = ends[2 * i], ends[2 * i + 1]
        if low.open or high.open:
            continue  # an interval that is open is no measurement, whatever its other end
        theta = np.stack([low.theta, high.theta])
        cuts[2 * i : 2 * i + 2] = simulated_cuts(
            setting,
            theta,
            position=track.position,
            sigma=sigma,
            level=level,
            n_sets=n_sets,
            generator=generator,
        )
    return cuts


def degrees_of_freedom(fit: LawFit) -> int:
    """Of the noise: n - p, or the number of groups less one."""
    if fit.points.group is None:
        return fit.degrees_of_freedom
    return min(fit.degrees_of_freedom, len(np.unique(fit.points.group)) - 1)


def own_refit(fit: LawFit) -> Refits:
    """The fit itself as a batch of one."""
    modes = np.stack([m.theta for m in fit.modes])[None]
    r = (-fit.residuals * np.sqrt(fit.points.weights))[None]
    delta = np.array([fit.delta])
    return Refits(
        fit.points.log_loss[None],
        fit.points.weight,
        fit.theta[None],
        modes,
        np.array([fit.objective]),
        np.array([fit.converged]),
        np.array([False]),
        delta,
        dispersion(r, delta, n_parameters=fit.law.n_parameters),
    )


@dataclass(frozen=True)
class _End:
    value: float
    theta: Array
    open: bool


class _Line:
    """Constrained fits along tracks that share their coordinates, m of them together."""

    def __init__(self, fit: LawFit, tracks: list[_Track]) -> None:
        self.here, first = own_refit(fit), tracks[0]
        self.setting = Setting(
            fit.law, first.z, fit.points.weight, fit.robust, np.empty((0, fit.law.n_parameters))
        )
        modes = self.here.modes[0, :MOST_MODES] @ first.shift
        inflation = variance_inflation(fit, first.shift)
        self.inflation = np.array([inflation[t.position] for t in tracks])
        self.position = np.array([t.position for t in tracks])
        values = [_first_values(fit, t, float((fit.theta @ t.shift)[t.position])) for t in tracks]
        self.track = np.repeat(np.arange(len(tracks)), [len(v) for v in values])
        self.value = np.concatenate(values)
        self.theta, self.T = self.at(
            self.track,
            self.value,
            np.broadcast_to(modes, (len(self.value), *modes.shape)),
            max_steps=FEW_STEPS,
        )
        # A valley is followed from value to value.
        left, right = self._neighbours()
        theta, T = self.at(
            self.track,
            self.value,
            np.stack([self.theta[left], self.theta[right]], axis=1),
            max_steps=FEW_STEPS,
        )
        self.theta, self.T = np.where((T < self.T)[:, None], theta, self.theta), np.minimum(T, self.T)

    def at(
        self, track: np.ndarray, value: Array, starts: Array, *, max_steps: int = MAX_STEPS
    ) -> tuple[Array, Array]:
        """Optima (m, p) and T (m,) with the parameters of these tracks at these values, from starts (m, S,
        p)."""
        m = len(value)
        repeated = {
            k: v if k == "weight" else np.repeat(v, m, axis=0)
            for k, v in vars(self.here).items()
            if k != "modes"
        }
        batch = Refits(modes=np.empty((m, 0, starts.shape[2])), **repeated)
        found = constrained(
            self.setting,
            batch,
            position=self.position[track],
            value=value,
            starts=starts,
            max_steps=max_steps,
        )
        return found.theta, statistic(batch, found.objective) / self.inflation[track]

    def profiles(self, tracks: list[_Track], cuts: Array) -> dict[str, Profile]:
        """The profiles, by the names of the tracks, with these critical values, (2 x tracks,)."""
        ends, found = self.ends(cuts), {}
        for i, track in enumerate(tracks):
            low, high = ends[2 * i], ends[2 * i + 1]
            rows = self.track == i
            value, limits = self.value[rows], (low.value, high.value)
            if track.logarithm:
                value = np.exp(value + track.offset)
                limits = (
                    0.0 if low.open else float(np.exp(low.value + track.offset)),
                    np.inf if high.open else float(np.exp(high.value + track.offset)),
                )
            found[track.name] = Profile(
                track.name,
                value,
                self.T[rows],
                self.theta[rows] @ track.back,
                (float(cuts[2 * i]), float(cuts[2 * i + 1])),
                *limits,
                low.open,
                high.open,
            )
        return found

    def ends(self, cuts: Array) -> list[_End]:
        """The lower and the upper end of every track, where T last reaches its cut, (2 x tracks,)."""
        inner, outer = self._brackets(cuts)
        closed = np.flatnonzero(inner != outer)
        track = np.arange(len(cuts)) // 2
        a, b, t_a, t_b = self.value[inner], self.value[outer], self.T[inner], self.T[outer]
        th_a, th_b = self.theta[inner], self.theta[outer]
        left = closed
        for k in range(REFINEMENTS):
            if not left.size:
                break
            # sqrt(T) is nearly straight; every third step halves, should it not be
            root = np.sqrt(cuts[left])
            part = np.clip(
                (root - np.sqrt(t_a[left])) / np.maximum(np.sqrt(t_b[left]) - np.sqrt(t_a[left]), 1e-12),
                0.02,
                0.98,
            )
            part = np.full(len(left), 0.5) if k % 3 == 2 else part
            middle = a[left] + part * (b[left] - a[left])
            mixed = (1 - part)[:, None] * th_a[left] + part[:, None] * th_b[left]
            theta, T = self.at(
                track[left], middle, np.stack([th_a[left], th_b[left], mixed], axis=1), max_steps=FEW_STEPS
            )
            inside = cuts[left] >= T
            a[left[inside]], t_a[left[inside]], th_a[left[inside]] = middle[inside], T[inside], theta[inside]
            out = left[~inside]
            b[out], t_b[out], th_b[out] = middle[~inside], T[~inside], theta[~inside]
            near = np.abs(np.sqrt(T) - root) < CLOSE
            b[left[near]], a[left[near]] = middle[near], middle[near]
            th_a[left[near]] = theta[near]
            left = left[~near]
        part = np.clip(
            (np.sqrt(cuts) - np.sqrt(t_a)) / np.maximum(np.sqrt(t_b) - np.sqrt(t_a), 1e-12), 0.0, 1.0
        )
        value = a + part * (b - a)
        return [
            _End(float(v), th, bool(i == o)) for v, th, i, o in zip(value, th_a, inner, outer, strict=True)
        ]

    def _brackets(self, cuts: Array) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the outermost value inside the cut and of the next one outside, (2 x tracks,); equal
        where there is none."""
        inner, outer = np.empty(len(cuts), dtype=int), np.empty(len(cuts), dtype=int)
        for e, cut in enumerate(cuts):
            rows = np.flatnonzero(self.track == e // 2)
            inside = rows[self.T[rows] <= cut]
            inside = inside if inside.size else rows[[self.T[rows].argmin()]]
            side = -1 if e % 2 == 0 else 1
            inner[e] = inside[0] if side < 0 else inside[-1]
            outer[e] = np.clip(inner[e] + side, rows[0], rows[-1])
        return inner, outer

    def _neighbours(self) -> tuple[np.ndarray, np.ndarray]:
        """The value before and the value after each, on its own track."""
        m = np.arange(len(self.value))
        left, right = np.maximum(m - 1, 0), np.minimum(m + 1, len(m) - 1)
        return np.where(self.track[left] == self.track, left, m), np.where(
            self.track[right] == self.track, right, m
        )


def _first_values(fit: LawFit, track: _Track, best: float) -> Array:
    """Values to look at first, ascending: around the optimum in standard errors, at the other modes, and over
    the whole range."""
    J = fit.jacobian @ track.back.T * np.sqrt(fit.points.weights)[:, None]
    scale = np.maximum(np.linalg.norm(J, axis=0), 1e-12)
    inverse = (
        np.linalg.pinv((J / scale).T @ (J / scale), rcond=1e-13)[track.position, track.position]
        / scale[track.position] ** 2
    )
    error = noise_scale(fit) * np.sqrt(max(inverse, 0.0))
    width = np.clip(error, 1e-9, 0.25 * (track.upper - track.lower))
    others = [float((m.theta @ track.shift)[track.position]) for m in fit.modes]
    values = np.r_[best, best - width * STEPS, best + width * STEPS, others]
    values = np.r_[
        values, np.linspace(track.lower, track.upper, 7) if track.logarithm or track.lower < 0 else ABSOLUTE
    ]
    values = np.unique(np.clip(values, track.lower, track.upper))
    return values[np.r_[True, np.diff(values) > 1e-3 * width]]


def simulated_cuts(
    setting: Setting,
    theta: Array,
    *,
    position: int,
    sigma: Array,
    level: float,
    n_sets: int,
    generator: np.random.Generator,
) -> Array:
    """Critical values of T, (M,): its `level` quantile at the true value of a parameter, in data simulated
    from each of M laws.

    Args:
        theta: (M, p) constrained optima.   position: of the parameter in theta.   sigma: (M,) noise of ln L.
    """
    M, n = len(theta), len(setting.z)
    truth = np.repeat(theta, n_sets, axis=0)
    noise = np.repeat(sigma, n_sets)[:, None] * generator.standard_normal((M * n_sets, n))
    log_loss = setting.law.log_loss(truth, setting.z)[0] + (
        noise if setting.spread is None else noise * setting.spread
    )
    free = refit(setting, log_loss, starts=truth[:, None], max_steps=FEW_STEPS)
    held = constrained(
        setting, free, position=position, value=truth[:, position], starts=truth[:, None], max_steps=FEW_STEPS
    )
    dof = n - setting.law.n_parameters
    return critical_values(statistic(free, held.objective).reshape(M, n_sets), level=level, dof=dof)


def critical_values(T: Array, *, level: float, dof: int) -> Array:
    """The `level` quantile of each row of simulated statistics, (M,): that of F(1, dof) times the mean ratio
    of their upper tails.

    A quantile of 200 numbers alone is known to 12 %, the ratio over a tail to 8 %.
    """
    n_sets = T.shape[1]
    order = np.arange(1, n_sets + 1) / (n_sets + 1)
    tail = (order >= TAIL[0]) & (order <= TAIL[1])
    ratio = np.sort(T, axis=1)[:, tail] / stats.f.ppf(order[tail], 1, dof)
    return stats.f.ppf(level, 1, dof) * ratio.mean(axis=1)


def variance_inflation(fit: LawFit, shift: Array) -> Array:
    """Cluster-robust over plain variance of each parameter, (p,) in the coordinates of a track; ones without
    groups."""
    p = fit.law.n_parameters
    if fit.points.group is None:
        return np.ones(p)
    W = fit.points.weights
    J = (fit.jacobian @ np.linalg.inv(shift).T) * np.sqrt(W)[:, None]
    r = fit.residuals * np.sqrt(W)
    psi = np.clip(r, -fit.delta, fit.delta)
    inside = np.mean(np.abs(r) <= fit.delta)
    scale = np.maximum(np.linalg.norm(J, axis=0), 1e-12)
    bread = np.linalg.pinv((J / scale).T @ (J / scale)) / np.outer(scale, scale)
    score = np.stack(
        [
            (J[fit.points.group == g] * psi[fit.points.group == g, None]).sum(axis=0)
            for g in np.unique(fit.points.group)
        ]
    )
    G, n = len(score), len(r)
    meat = score.T @ score * G / (G - 1) * (n - 1) / max(n - p, 1)
    clustered = np.diag(bread @ meat @ bread) / inside**2
    lam = dispersion(r[None], np.array([fit.delta]), n_parameters=p)[0]
    plain = np.diag(bread) * lam / inside
    return np.maximum(clustered / np.maximum(plain, 1e-300), 1e-6)
