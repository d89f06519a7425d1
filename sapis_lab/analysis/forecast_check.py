"""What forecasts are worth, by simulation and on published tables.

Data sets are simulated from twelve known truths on a 5 x 5 lattice of 2.5 decades; every law that
`sapis fit TABLE` knows is fitted to each, and two runs are forecast with ten and a hundred times the compute
N D of the largest one, on the diagonal beyond the corner. Three ways are compared:

    former   the sum of powers that least squares and AICc choose out of four, the simplest within 2
    chosen   the simplest law within 2 of the best AICc of the fits, out of all
    average  all laws by their Akaike weights

For each: the law, the error of the forecast against the truth, how often the 95 % interval holds the loss of
a new run, and how wide it is. Eleven truths are among the laws; the twelfth, an exponent of D that moves with
N and another of N that moves too, is not. The thirteenth repeats one truth with two of the runs diverged.

Published tables are cut by compute: the runs up to a tenth and a hundredth of the largest N D forecast all
others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sapis_lab.analysis.fit import LawFit, Points, fit_points
from sapis_lab.analysis.forecast import Predictive, average, forecast, predictive
from sapis_lab.analysis.forms import FORMS
from sapis_lab.analysis.laws import LAWS, TIED_LAWS, Array, law_named
from sapis_lab.analysis.refit import Refits, Setting, refit
from sapis_lab.analysis.selection import SLACK, aicc, akaike_weights, deviances, select

CENTRE = (1e5, 1e3)
"""N and D in the middle of the lattice."""
SIDE, DECADES, NOISE = 5, 2.5, 0.02
FACTORS = (10.0, 100.0)
"""Compute N D of the forecast runs over that of the largest one."""
WORTH = 1e-3
"""Weight below which a law has no part in the average."""
WAYS = ("former", "chosen", "average")
EVERY = tuple(LAWS | TIED_LAWS | FORMS)

Loss = Callable[[Array, Array], Array]


@dataclass(frozen=True)
class World:
    """One truth: ln L as a function of N and D over their middles."""

    name: str
    loss: Loss
    law: str | None
    """Its name among the laws; None where it is none of them."""
    n_diverged: int = 0
    """Runs of each data set that end ten times too high."""


def _broken(d: Array, at: float, first: float, then: float) -> Array:
    """A power of exponent `then` with another one below a break, 1 in the middle."""
    return d**-then * ((1 + at / d) / (1 + at)) ** (first - then)


def _norm(a: Array, b: Array, q: float) -> Array:
    return np.asarray((a ** (1 / q) + b ** (1 / q)) ** q)


def _moving(n: Array, d: Array) -> Array:
    x, y = np.log(n), np.log(d)
    return np.asarray(
        np.exp(-0.15 * x - 0.012 * x**2 - 0.7) + np.exp(-0.7 - 0.05 * x - (0.35 - 0.03 * x) * y)
    )


WORLDS = (
    World("sum, even exponents", lambda n, d: 0.5 * n**-0.5 + 0.5 * d**-0.4, "n+d"),
    World("sum, uneven exponents", lambda n, d: 0.4 * n**-0.3 + 0.6 * d**-0.7, "n+d"),
    World("floor of 10 %", lambda n, d: 0.5 * n**-0.5 + 0.4 * d**-0.4 + 0.1, "n+d+e"),
    World("floor of 60 %", lambda n, d: 0.25 * n**-0.35 + 0.15 * d**-0.35 + 0.6, "n+d+e"),
    World("interaction", lambda n, d: 0.4 * n**-0.6 + 0.4 * d**-0.5 + 0.2 * (n * d) ** -0.25, "n+d+nd"),
    World(
        "interaction, floor",
        lambda n, d: 0.35 * n**-0.6 + 0.35 * d**-0.5 + 0.2 * (n * d) ** -0.3 + 0.1,
        "n+d+nd+e",
    ),
    World("Kaplan, floor", lambda n, d: 0.1 + 0.9 * _norm(0.6 * n**-0.4, 0.6 * d**-0.3, 0.3), "kaplan+e"),
    World(
        "Kaplan, break in D",
        lambda n, d: _norm(0.6 * n**-0.3, 0.6 * _broken(d, 3.0, 0.15, 0.37), 0.37),
        "kaplan:break-d",
    ),
    World(
        "sum, break in D, floor",
        lambda n, d: 0.4 * n**-0.5 + 0.5 * _broken(d, 2.0, 0.2, 0.5) + 0.1,
        "n+d+e:break-d",
    ),
    World("p-norm, floor", lambda n, d: 0.4 + _norm(0.4 * n**-0.25, 0.4 * d**-0.25, 0.5), "pnorm+e"),
    World(
        "ceiling, floor",
        lambda n, d: 0.05 + 1 / (1 / (0.6 * n**-0.6 + 0.5 * d**-0.5) + 1 / 4),
        "n+d+e:ceiling",
    ),
    World("none of the laws", _moving, None),
    World("floor of 10 %, 2 runs diverged", lambda n, d: 0.5 * n**-0.5 + 0.4 * d**-0.4 + 0.1, "n+d+e", 2),
)


@dataclass(frozen=True)
class Score:
    """One way of forecasting at one distance."""

    factor: float
    error: float
    """Root mean square of ln(forecast / truth)."""
    bias: float
    coverage: float
    """Share of intervals that hold a new run."""
    width: float
    """Median of ln(high / low)."""


@dataclass(frozen=True)
class Judged:
    """One world."""

    world: World
    n_sets: int
    laws: dict[str, dict[str, float]]
    """By way of choosing, `former` or `chosen`: how often which law."""
    scores: dict[str, tuple[Score, ...]]
    """By way, and of the law of the truth as `truth`."""
    seconds: float
    """CPU time."""
    same_law: float | None = None
    """With diverged runs: share of data sets that choose the law they choose without them."""
    moved: dict[str, float] = field(default_factory=dict)
    """With diverged runs: share of data sets whose exponent under the law of the truth moves by less than its
    standard error."""


def lattice() -> tuple[Array, Array]:
    """N and D of the points, (n,) each."""
    along = 10 ** (np.linspace(-0.5, 0.5, SIDE) * DECADES)
    n, d = np.meshgrid(along, along, indexing="ij")
    return CENTRE[0] * n.ravel(), CENTRE[1] * d.ravel()


def _log_loss(world: World, N: Array, D: Array) -> Array:
    return np.log(world.loss(N / CENTRE[0], D / CENTRE[1]))


@dataclass(frozen=True)
class _Fitted:
    """One law on all data sets of a world."""

    setting: Setting
    fits: Refits
    centre_fit: LawFit
    aicc: Array
    """(B,)"""
    least_squares_aicc: Array
    """(B,) of the least-squares fit; of sums of powers only, else infinite."""
    least_squares: Refits | None


def judge(world: World, *, n_sets: int, seed: int = 0, laws: Sequence[str] = EVERY) -> Judged:
    """Simulate, fit, forecast and count."""
    begin = time.process_time()
    generator = np.random.default_rng([seed, *world.name.encode()])
    N, D = lattice()
    truth = _log_loss(world, N, D)
    clean = truth + NOISE * generator.standard_normal((n_sets, len(N)))
    y = clean.copy()
    for row in y if world.n_diverged else ():
        row[generator.choice(len(N), world.n_diverged, replace=False)] += np.log(10.0)
    targets = [(N.max() * np.sqrt(f), D.max() * np.sqrt(f)) for f in FACTORS]
    exact = [_log_loss(world, np.array([n]), np.array([d]))[0] for n, d in targets]
    new = [t + NOISE * generator.standard_normal(n_sets) for t in exact]
    pilot = truth + NOISE * generator.standard_normal(len(N))
    fitted = {name: _fit(name, N, D, pilot, y) for name in laws}
    score = np.stack([f.aicc for f in fitted.values()])
    weight = np.exp(-0.5 * (score - score.min(axis=0)))
    weight /= weight.sum(axis=0)
    chosen = _chosen(fitted, "aicc")
    former = _chosen({name: f for name, f in fitted.items() if name in LAWS}, "least_squares_aicc")
    found: dict[str, list[Score]] = {way: [] for way in WAYS}
    if world.law:
        found["truth"] = []
    for (n, d), exactly, measured, factor in zip(targets, exact, new, FACTORS, strict=True):
        at = {
            name: _predictives(f, n, d, (weight[k] >= WORTH) | (chosen == name) | (name == world.law))
            for k, (name, f) in enumerate(fitted.items())
        }
        of_former = {
            name: _predictives(f, n, d, former == name, least_squares=True)
            for name, f in fitted.items()
            if name in LAWS
        }

        picked = {
            "former": _picked(of_former, former, n_sets),
            "chosen": _picked(at, chosen, n_sets),
            "average": _averaged(at, weight, n_sets),
        }
        if world.law:
            picked["truth"] = _picked(at, np.full(n_sets, world.law, dtype=object), n_sets)
        for way, (best, low, high) in picked.items():
            error, inside = best - exactly, (measured >= low) & (measured <= high)
            found[way].append(
                Score(
                    factor,
                    float(np.sqrt(np.mean(error**2))),
                    float(error.mean()),
                    float(inside.mean()),
                    float(np.median(high - low)),
                )
            )
    same, moved = _compared(world, fitted, chosen, N, D, pilot, clean, laws)
    return Judged(
        world,
        n_sets,
        {"former": _shares(former), "chosen": _shares(chosen)},
        {way: tuple(values) for way, values in found.items()},
        time.process_time() - begin,
        same,
        moved,
    )


def _fit(name: str, N: Array, D: Array, pilot: Array, y: Array) -> _Fitted:
    """A law fitted to every data set as `fit` does, from starts of a fit to one of them."""
    law = law_named(name)
    one = fit_points(law, Points(N, D, np.exp(pilot)), robust="auto")
    setting = Setting.of(one)
    fits = refit(setting, y)
    n, k = y.shape[1], law.n_parameters + 1
    penalty = 2 * k + 2 * k * (k + 1) / (n - k - 1)
    residuals = law.log_loss(fits.theta, setting.z)[0] - y
    score = deviances(residuals, robust="auto") + penalty
    plain, plain_score = None, np.full(len(y), np.inf)
    if name in LAWS:
        plain = refit(Setting(law, setting.z, None, "none", setting.starts), y)
        plain_score = n * np.log(2 * plain.objective / n) + penalty
    return _Fitted(setting, fits, one, score, plain_score, plain)


def _chosen(fitted: Mapping[str, _Fitted], which: str) -> np.ndarray:
    """The simplest law within `SLACK` of the smallest criterion, (B,) of names."""
    score = np.stack([getattr(f, which) for f in fitted.values()])
    size = np.array([f.setting.law.n_parameters for f in fitted.values()], dtype=float)[:, None]
    rank = np.where(score <= score.min(axis=0) + SLACK, size + 1e-3 * (score - score.min(axis=0)), np.inf)
    return np.array(list(fitted), dtype=object)[rank.argmin(axis=0)]


def _predictives(
    f: _Fitted, n: float, d: float, wanted: np.ndarray, *, least_squares: bool = False
) -> tuple[np.ndarray, Predictive] | None:
    """The data sets that are wanted, and their predictive distributions."""
    rows = np.flatnonzero(wanted)
    fits = f.least_squares if least_squares else f.fits
    if not rows.size or fits is None:
        return None
    part = Refits(
        fits.log_loss[rows],
        fits.weight,
        fits.theta[rows],
        fits.modes[rows],
        fits.objective[rows],
        fits.converged[rows],
        fits.at_bound[rows],
        fits.delta[rows],
        fits.dispersion[rows],
    )
    law = f.setting.law
    target = law.coordinates(np.array([n]), np.array([d]), centre=f.centre_fit.centre)[0]
    dof = fits.log_loss.shape[1] - law.n_parameters
    return rows, predictive(f.setting, part, target=target, dof=dof)


_Found = Mapping[str, "tuple[np.ndarray, Predictive] | None"]


def _picked(found: _Found, names: np.ndarray, B: int) -> tuple[Array, Array, Array]:
    """Forecast and interval of one law for each data set."""
    best, low, high = np.full(B, np.nan), np.full(B, np.nan), np.full(B, np.nan)
    for name, pair in found.items():
        if pair is None:
            continue
        rows, p = pair
        ends = p.interval()
        mine = names[rows] == name
        best[rows[mine]], low[rows[mine]], high[rows[mine]] = p.best[mine], ends[0][mine], ends[1][mine]
    return best, low, high


def _averaged(found: _Found, weight: Array, B: int) -> tuple[Array, Array, Array]:
    """Forecast and interval of the average of laws for each data set."""
    best, low, high = np.empty(B), np.empty(B), np.empty(B)
    for b in range(B):
        laws, weights = {}, {}
        for k, (name, pair) in enumerate(found.items()):
            if pair is None or weight[k, b] < WORTH:
                continue
            rows, p = pair
            at = np.flatnonzero(rows == b)
            laws[name] = Predictive(p.value[at], p.root[at], p.dof, p.best[at])
            weights[name] = float(weight[k, b])
        m, lo, hi = average(laws, weights)
        best[b], low[b], high[b] = m[0], lo[0], hi[0]
    return best, low, high


def _shares(names: np.ndarray) -> dict[str, float]:
    """How often each law is the chosen one, most often first."""
    found, counts = np.unique(names.astype(str), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {str(found[i]): float(counts[i] / len(names)) for i in order}


def _compared(
    world: World,
    fitted: Mapping[str, _Fitted],
    chosen: np.ndarray,
    N: Array,
    D: Array,
    pilot: Array,
    clean: Array,
    laws: Sequence[str],
) -> tuple[float | None, dict[str, float]]:
    """What diverged runs change: the law chosen, and exponents under the law of the truth."""
    if not world.n_diverged or world.law is None:
        return None, {}
    without = {name: _fit(name, N, D, pilot, clean) for name in laws}
    same = float(np.mean(_chosen(without, "aicc") == chosen))
    law, own = law_named(world.law), fitted[world.law]
    J = law.jacobian(own.centre_fit.theta, own.setting.z)
    error = NOISE * np.sqrt(np.diag(np.linalg.inv(J.T @ J)))
    moved = {}
    for name in law.exponent_names:
        k = law.param_names.index(name)
        change = np.abs(own.fits.theta[:, k] - without[world.law].fits.theta[:, k])
        moved[name] = float(np.mean(change < error[k]))
    return same, moved


# ------------------------------------------------------------------------------------------ published tables


@dataclass(frozen=True)
class Replayed:
    """Runs of a table that are forecast from its smaller ones."""

    table: str
    reach: float
    """Largest compute over the largest that was fitted."""
    n_fitted: int
    n_forecast: int
    laws: dict[str, str]
    """By way of choosing."""
    error: dict[str, float]
    """By way, rms of ln(forecast / measured)."""
    bias: dict[str, float]
    coverage: dict[str, float]
    """By way, share of runs inside their intervals."""


def replay(table: str, points: Points, *, reach: float) -> Replayed | None:
    """Fit the runs of up to 1/reach of the largest compute and forecast the others; None where those are too
    few for a law with a floor."""
    compute = points.n_params * points.n_frames
    small = compute <= compute.max() / reach
    inside, out = points.take(small), points.take(~small)
    if inside.n_cells < 9 or not len(out):
        return None
    fits = {}
    for name in EVERY:
        try:
            fits[name] = fit_points(law_named(name), inside)
        except ValueError:
            continue
    plain = {name: fit_points(law_named(name), inside, robust="none") for name in LAWS if name in fits}
    former, chosen = select(plain)[0] or "", select(fits)[0] or ""
    weights = akaike_weights({name: aicc(f) for name, f in fits.items()})
    weights = {name: w for name, w in weights.items() if w >= WORTH and fits[name].degrees_of_freedom > 0}
    error: dict[str, list[float]] = {way: [] for way in WAYS}
    held: dict[str, list[bool]] = {way: [] for way in WAYS}
    for n, d, loss in zip(out.n_params, out.n_frames, out.loss, strict=True):
        for way, of, w in (
            ("former", plain, {former: 1.0}),
            ("chosen", fits, {chosen: 1.0}),
            ("average", fits, weights),
        ):
            f = forecast(of, w, n, d)
            error[way].append(float(np.log(f.value / loss)))
            held[way].append(f.low <= loss <= f.high)
    return Replayed(
        table,
        reach,
        len(inside),
        len(out),
        {"former": former, "chosen": chosen},
        {way: float(np.sqrt(np.mean(np.square(e)))) for way, e in error.items()},
        {way: float(np.mean(e)) for way, e in error.items()},
        {way: float(np.mean(h)) for way, h in held.items()},
    )
