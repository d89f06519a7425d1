"""What to run next, from the runs so far: pure functions of a table and a cost, so that a history can be
decided again.

The next run of the campaign costs `next_cost`; a policy splits it between N and D, or measures something
cheaper first, or stops.

    null       N and D both x sqrt(growth): no fit. Wastes 0.1-3 % on the frontier with alpha ~ beta, and
    100-700 % elsewhere. greedy     the textbook rule: the axis with the larger gain per cost, gains from the
    derivatives of a fitted law,
                   dL_N = (alpha A N^-alpha + gamma C (ND)^-gamma) dN/N,   dL_D likewise,   dN/N = dD/D,
               each with its share of the cross term, which is the same in both: it never decides, but belongs
                   to the size of the gain.
    jump       N*(C) of the two-term fit (Hoffmann et al. 2022).
    trigger    both, until the slope -d ln L / d ln C of the last frontier runs falls under (1 - q) alpha of A
               C^-alpha + E, fitted to the frontier; then the greedy axis. Suppressed while the profile
               interval of E is open: a flattening is not told apart from noise then.
    posterior  the split with the lowest expected ln L over draws of the law; and before that a cheap
               measurement where it saves more than it costs. A factor e^x in N at equal N D costs the part
               (alpha + beta)/2 x^2 of the compute, so that not knowing N* wastes (alpha + beta)/2 Var(ln N*),
               and a measurement that shrinks this variance by dV is worth (alpha + beta)/2 dV times that
               cost, summed over the runs that there is room for, each with the N* of its own cost. With
               `Rules.sure` above 1/2, N and D grow alike where the data cannot tell.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from sapis_lab.analysis.fit import LawFit, fit
from sapis_lab.analysis.laws import Array
from sapis_lab.analysis.posterior import Posterior, posterior
from sapis_lab.analysis.profile import profiles

Policy = Literal["null", "greedy", "jump", "trigger", "posterior"]
POLICIES: tuple[Policy, ...] = ("null", "greedy", "jump", "trigger", "posterior")
Action = Literal["seed", "model", "data", "both", "jump", "repeat", "measure", "label", "stop"]

REACH = (0.5, 8.0)
"""How far beyond the smallest and the largest N (or D) so far a run may go, as factors: a fit says little
further out."""
SPLITS = 61
"""Of a budget that are compared."""
SURE = 0.95
"""Probability beyond which a run leaves the path of steps, to N*."""
FAR = np.log(2.0)
"""|ln(N/N*)| that counts as off the frontier."""
UNCHANGED = 0.02
"""|change of ln N| below which an axis counts as kept."""
FLATTENED = 0.5
"""q of the trigger."""


@dataclass(frozen=True)
class Runs:
    """Finished runs in the order in which they were made, (n,) each."""

    n_params: Array
    n_frames: Array
    loss: Array
    cost: Array
    seed: np.ndarray
    measured: np.ndarray
    """True for measurements (`repeat`, `measure`), which are no part of the campaign's path."""

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def last(self) -> int:
        """The largest run so far, from which the next one steps; of equal ones the later."""
        path = np.where(self.measured, -np.inf, self.cost)
        return int(len(self) - 1 - np.argmax(path[::-1]))

    @property
    def n_measured_since(self) -> int:
        """Measurements since the last run of the path."""
        path = np.flatnonzero(~self.measured)
        return int(len(self) - 1 - path[-1]) if len(path) else 0

    def and_then(
        self, n_params: float, n_frames: float, loss: float, cost: float, *, seed: int, measured: bool
    ) -> Runs:
        """With one run more."""
        more = (n_params, n_frames, loss, cost, seed, measured)
        columns = (self.n_params, self.n_frames, self.loss, self.cost, self.seed, self.measured)
        return Runs(*(np.append(column, value) for column, value in zip(columns, more, strict=True)))

    def take(self, n: int) -> Runs:
        """The first n."""
        return Runs(
            *(c[:n] for c in (self.n_params, self.n_frames, self.loss, self.cost, self.seed, self.measured))
        )


@dataclass(frozen=True)
class Prices:
    """cost(N, D) = kappa N^power D + label max(D - labelled, 0)."""

    kappa: float
    """FLOPs of a parameter for each frame, all epochs together."""
    power: float = 1.0
    """Of N: small models spend more FLOPs on a parameter than large ones."""
    label: float = 0.0
    """Of making one more labelled frame, in FLOPs."""
    labelled: float = np.inf
    """Frames that are there."""

    def of(self, n_params: ArrayLike, n_frames: ArrayLike) -> Array:
        """cost(N, D), broadcast."""
        N, D = np.asarray(n_params, float), np.asarray(n_frames, float)
        training = self.kappa * N**self.power * D
        return training + self.label * np.maximum(D - self.labelled, 0.0) if self.label else training

    def frames(self, n_params: ArrayLike, cost: float) -> Array:
        """D that N leaves of `cost`."""
        each = self.kappa * np.asarray(n_params, float) ** self.power
        if not self.label:
            return cost / each
        return np.where(
            cost / each <= self.labelled,
            cost / each,
            (cost + self.label * self.labelled) / (each + self.label),
        )

    def params(self, n_frames: float, cost: float) -> float:
        """N that D leaves of `cost`; 0 where the labels alone cost more."""
        left = cost - self.label * max(n_frames - self.labelled, 0.0) if self.label else cost
        return float((max(left, 0.0) / (self.kappa * n_frames)) ** (1 / self.power))


@dataclass(frozen=True)
class Rules:
    """What holds for the whole campaign."""

    growth: float = 2.0
    """Cost of a run over that of the one before."""
    most_params: float = np.inf
    most_frames: float = np.inf
    """Frames that there are or that can be made."""
    sure: float = 0.5
    """Probability that a split must have of being better than growing both."""
    measure: bool = True
    """Cheap measurements are allowed."""
    measurements: int = 4
    """Between two runs of the path, at most."""
    cheap: float = 0.1
    """A measurement may cost this part of the next run at most."""
    overhead: float = 0.02
    """A measurement counts as costing this part of the next run at least: starting, scoring and waiting are
    not free. Few and informative measurements early are worth more than many cheap ones later."""
    tolerance: float = 0.0
    """Stop when the expected loss above its floor is less, in the unit of the loss."""
    min_gain: float = 0.0
    """Stop when the expected gain in ln L per doubling of the cost is less."""
    target: float | None = None
    """A loss; stop when it is reached, or when the floor is above it."""


@dataclass(frozen=True)
class Decision:
    """What to do next, and why."""

    action: Action
    n_params: float = np.nan
    n_frames: float = np.nan
    seed: int = 0
    cost: float = np.nan
    predicted: tuple[float, float, float] = (np.nan, np.nan, np.nan)
    """Median and 95 % interval of the loss that the run will measure."""
    reason: str = ""
    numbers: dict[str, float] = field(default_factory=dict)
    """What the reason rests on."""


def decide(
    policy: Policy, runs: Runs, prices: Prices, *, next_cost: float, horizon: float, rules: Rules = Rules()
) -> Decision:  # noqa: B008
    """The next step of a campaign.

    Args:
        next_cost: of the next run of the path.   horizon: what may still be spent, this run included; a
            measurement serves all of it.

    Raises:
        ValueError: too few runs for a law of N and D, or an unknown policy.
    """
    if policy == "null":
        return _as_move(
            runs,
            prices,
            _both(runs, prices, next_cost),
            next_cost,
            rules,
            "the null policy grows both, whatever was measured",
        )
    if policy == "greedy":
        return _greedy(runs, prices, next_cost, rules)
    if policy == "jump":
        return _jump(runs, prices, next_cost, rules)
    if policy == "trigger":
        return _trigger(runs, prices, next_cost, rules)
    if policy == "posterior":
        return _posterior(runs, prices, next_cost, horizon, rules)
    raise ValueError(f"policy {policy!r} is not known; known are {', '.join(POLICIES)}")


def posterior_of(runs: Runs) -> Posterior:
    """What the runs say about their law."""
    return posterior(runs.n_params, runs.n_frames, runs.loss)


# --------------------------------------------------------------------------------------------- fixed policies


def _both(runs: Runs, prices: Prices, cost: float) -> float:
    """N when N and D grow by one factor to `cost`."""
    N, D = runs.n_params[runs.last], runs.n_frames[runs.last]
    low, high = 0.0, np.log(cost / float(prices.of(N, D))) + 1.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (
            (middle, high)
            if float(prices.of(N * np.exp(middle), D * np.exp(middle))) < cost
            else (low, middle)
        )
    return float(N * np.exp(0.5 * (low + high)))


def _two_terms(runs: Runs) -> LawFit:
    return fit("n+d", runs.n_params, runs.n_frames, runs.loss)


def greedy_gains(found: LawFit, n_params: float, n_frames: float) -> tuple[float, float, float]:
    """Gains in L of d ln N = 1 and of d ln D = 1, and the cross term's share, which is part of both."""
    p = found.params
    cross = p.get("gamma", 0.0) * p.get("C", 0.0) * (n_params * n_frames) ** -p.get("gamma", 0.0)
    gain_n, gain_d = found.law.slopes(p, n_params, n_frames)
    return -float(gain_n), -float(gain_d), float(cross)


def _greedy(runs: Runs, prices: Prices, cost: float, rules: Rules, why: str = "") -> Decision:
    N, D = float(runs.n_params[runs.last]), float(runs.n_frames[runs.last])
    found = fit("n+d+nd", runs.n_params, runs.n_frames, runs.loss) if len(runs) > 8 else _two_terms(runs)
    gain_n, gain_d, cross = greedy_gains(found, N, D)
    training = prices.kappa * N**prices.power * D
    per_n, per_d = (
        gain_n / (prices.power * training),
        gain_d / (training + (prices.label * D if prices.labelled <= D else 0.0)),
    )
    larger = per_n > per_d
    target = prices.params(D, cost) if larger else N
    text = (
        f"gain per cost {per_n:.3g} of a larger model, {per_d:.3g} of more data (the cross term gives "
        f"{cross:.3g} to either)"
    )
    numbers = {
        "gain_n": gain_n,
        "gain_d": gain_d,
        "gain_n_per_cost": per_n,
        "gain_d_per_cost": per_d,
        "cross": cross,
    }
    return replace(_as_move(runs, prices, target, cost, rules, why + text), numbers=numbers)


def _jump(runs: Runs, prices: Prices, cost: float, rules: Rules) -> Decision:
    found = _two_terms(runs)
    N = _splits(runs, prices, cost, rules)
    best = float(N[np.argmin(found.predict(N, prices.frames(N, cost)))])
    return _as_move(
        runs,
        prices,
        best,
        cost,
        rules,
        f"N* = {best:.3g} of the fit alpha {found.params['alpha']:.2f}, beta {found.params['beta']:.2f}",
    )


def _trigger(runs: Runs, prices: Prices, cost: float, rules: Rules) -> Decision:
    C, L = frontier(runs)
    both = _both(runs, prices, cost)
    if len(C) < 4:
        return _as_move(
            runs, prices, both, cost, rules, f"{len(C)} frontier runs do not show a floor; both grow"
        )
    found = fit("c+e", C, np.ones_like(C), L, robust="none")
    floor = profiles(found, ["E"])["E"]
    slope = -float(np.log(L[-1] / L[-2]) / np.log(C[-1] / C[-2]))
    fitted = found.params["alpha"]
    numbers = {"slope": slope, "fitted": fitted, "floor_low": floor.low, "floor_high": floor.high}
    if floor.open_low or floor.open_high:
        text = (
            f"slope {slope:.2f}, fitted {fitted:.2f}; the floor's interval is open, so the trigger is "
            f"suppressed; both grow"
        )
        return replace(_as_move(runs, prices, both, cost, rules, text), numbers=numbers)
    if slope >= (1 - FLATTENED) * fitted:
        text = f"slope {slope:.2f} is above {(1 - FLATTENED) * fitted:.2f}; both grow"
        return replace(_as_move(runs, prices, both, cost, rules, text), numbers=numbers)
    text = f"slope {slope:.2f} fell under {(1 - FLATTENED) * fitted:.2f}: "
    decision = _greedy(runs, prices, cost, rules, text)
    return replace(decision, numbers=decision.numbers | numbers)


def frontier(runs: Runs) -> tuple[Array, Array]:
    """Costs and losses of the runs that no cheaper or equal run beats, by cost."""
    order = np.lexsort((runs.loss, runs.cost))
    best = np.minimum.accumulate(np.r_[np.inf, runs.loss[order][:-1]])
    on = order[runs.loss[order] < best]
    return runs.cost[on], runs.loss[on]


# ------------------------------------------------------------------------------------------------------ moves


def _splits(runs: Runs, prices: Prices, cost: float, rules: Rules) -> Array:
    """Model sizes that a run of `cost` may have, ascending: within reach of what was measured, and of the
    data."""
    low_n, high_n = REACH[0] * runs.n_params.min(), min(REACH[1] * runs.n_params.max(), rules.most_params)
    low_d, high_d = REACH[0] * runs.n_frames.min(), min(REACH[1] * runs.n_frames.max(), rules.most_frames)
    low, high = max(low_n, prices.params(high_d, cost)), min(high_n, prices.params(low_d, cost))
    if low >= high:  # the data are used up: all goes into the model, as far as that may grow
        return np.array([min(low, rules.most_params)])
    return np.geomspace(low, high, SPLITS)


def _as_move(runs: Runs, prices: Prices, n_params: float, cost: float, rules: Rules, reason: str) -> Decision:
    """A run of `cost` with about `n_params` parameters, as the limits allow."""
    possible = _splits(runs, prices, cost, rules)
    N = min(max(n_params, float(possible[0])), float(possible[-1]))
    D = min(float(prices.frames(N, cost)), rules.most_frames)
    was_n, was_d = float(runs.n_params[runs.last]), float(runs.n_frames[runs.last])
    dn, dd = np.log(N / was_n), np.log(D / was_d)
    action: Action = "both"
    if dn < -UNCHANGED or dd < -UNCHANGED:
        action = "jump"
    elif abs(dn) <= UNCHANGED:
        action = "data"
    elif abs(dd) <= UNCHANGED:
        action = "model"
    if prices.labelled * (1 + 1e-9) < D:
        action, reason = "label", f"{reason}; {D - prices.labelled:.0f} more frames must be labelled"
    if 0.999 * rules.most_frames <= D:
        reason += f"; all {rules.most_frames:.0f} frames are in use"
    elif abs(np.log(N / n_params)) > UNCHANGED:
        reason += f"; held to N = {N:.3g}, within {REACH[1]:g} times of what was run"
    return Decision(action, N, D, _seed(runs, N, D), float(prices.of(N, D)), reason=reason)


def _seed(runs: Runs, n_params: float, n_frames: float) -> int:
    """The first seed that was not run at (N, D)."""
    same = (np.abs(np.log(runs.n_params / n_params)) < 1e-9) & (
        np.abs(np.log(runs.n_frames / n_frames)) < 1e-9
    )
    used = set(runs.seed[same].tolist())
    return next(s for s in range(len(used) + 1) if s not in used)


# -------------------------------------------------------------------------------------------------- posterior


def _posterior(runs: Runs, prices: Prices, cost: float, horizon: float, rules: Rules) -> Decision:
    belief = posterior_of(runs)
    N = _splits(runs, prices, cost, rules)
    D = np.minimum(prices.frames(N, cost), rules.most_frames)
    losses = belief.log_loss(N, D)
    best, both = (
        int(np.argmin(losses.mean(axis=0))),
        _as_move(runs, prices, _both(runs, prices, cost), cost, rules, ""),
    )
    log_best = log_optimum(belief, runs, prices, cost)
    off = np.log(both.n_params) - np.clip(log_best, np.log(N[0]), np.log(N[-1]))
    at_both = belief.log_loss(both.n_params, both.n_frames)[:, 0]
    better = float(np.mean(losses[:, best] < at_both))
    p_off = float(max(np.mean(off > FAR), np.mean(off < -FAR)))
    spread = float(log_best.std())
    now = float(runs.n_params[runs.last]), float(runs.n_frames[runs.last])
    gain = belief.gain(now, N[best], D[best])[:, 0]
    numbers = {
        "n_star": float(np.exp(log_best.mean())),
        "sd_log_n_star": spread,
        "p_better_than_both": better,
        "p_off_frontier": p_off,
        "gain": float(gain.mean()),
        "gain_per_cost": float(gain.mean() / prices.of(N[best], D[best])),
        "gain_low": float(min(np.quantile(gain, 0.025), gain.mean())),
        "gain_high": float(max(np.quantile(gain, 0.975), gain.mean())),
    }
    numbers |= {f"gain_{name}": value for name, value in _axis_gains(belief, runs, prices, cost).items()}
    stop = _stopping(belief, runs, numbers, rules)
    if stop:
        return Decision("stop", reason=stop, numbers=numbers)
    if rules.measure and runs.n_measured_since < rules.measurements and len(N) > 1:
        decision = _measurement(belief, runs, prices, log_best, cost, horizon, rules, numbers)
        if decision is not None:
            return decision
    star = f"N* = {np.exp(log_best.mean()):.3g}, known to a factor {np.exp(spread):.2f}"
    if len(N) == 1:
        chosen, why = (
            N[0],
            f"{star}, but all {rules.most_frames:.0f} frames are in use: the rest goes into the model",
        )
    elif p_off > SURE:
        chosen, why = N[best], f"off the frontier with probability {p_off:.2f}: {star}"
    elif better >= rules.sure:
        chosen, why = N[best], f"{star}; better than growing both with probability {better:.2f}"
    else:
        chosen, why = (
            both.n_params,
            f"{star}; another split than growing both is better with probability {better:.2f} only, so both "
            f"grow",
        )
    why += f"; expected gain {numbers['gain']:.3f} in ln L"
    decision = _as_move(runs, prices, float(chosen), cost, rules, why)
    return replace(decision, predicted=belief.predict(decision.n_params, decision.n_frames), numbers=numbers)


def log_optimum(belief: Posterior, runs: Runs, prices: Prices, cost: float) -> Array:
    """ln N* of each draw at `cost`, (R,), wherever it lies within e^4 of the middle of what was run."""
    middle = np.log(np.sqrt(runs.n_params.min() * runs.n_params.max()))
    x = np.linspace(middle - 6.0, middle + 8.0, 113)
    loss = belief.log_loss(np.exp(x), prices.frames(np.exp(x), cost))
    k = np.clip(loss.argmin(axis=1), 1, len(x) - 2)
    rows = np.arange(len(loss))
    left, here, right = loss[rows, k - 1], loss[rows, k], loss[rows, k + 1]
    curve = np.maximum(left - 2 * here + right, 1e-300)
    return x[k] + np.clip(0.5 * (left - right) / curve, -1, 1) * (x[1] - x[0])


def _axis_gains(belief: Posterior, runs: Runs, prices: Prices, cost: float) -> dict[str, float]:
    """Expected gain in ln L of spending `cost` on the model alone and on the data alone."""
    N, D = float(runs.n_params[runs.last]), float(runs.n_frames[runs.last])
    places = np.array([[prices.params(D, cost), D], [N, float(prices.frames(N, cost))]])
    model, data = belief.gain((N, D), places[:, 0], places[:, 1]).mean(axis=0)
    return {"model": float(model), "data": float(data)}


def _measurement(
    belief: Posterior,
    runs: Runs,
    prices: Prices,
    log_best: Array,
    cost: float,
    horizon: float,
    rules: Rules,
    numbers: dict[str, float],
) -> Decision | None:
    """The measurement that saves most per cost, if any saves more than it costs."""
    n, d = (a.ravel() for a in np.meshgrid(np.unique(runs.n_params), np.unique(runs.n_frames), indexing="ij"))
    price = prices.of(n, d)
    n, d, price = (a[price <= rules.cheap * cost] for a in (n, d, price))
    if not len(n):
        return None
    saved = np.zeros(len(n))
    for budget in _coming(cost, horizon, rules.growth):
        log_star = log_best if budget == cost else log_optimum(belief, runs, prices, budget)
        saved += 0.5 * belief.exponent_sum * belief.information(log_star, n, d) * min(budget, horizon)
    k = int(np.argmax(saved / np.maximum(price, rules.overhead * cost)))
    if saved[k] <= max(price[k], rules.overhead * cost):
        return None
    seed = _seed(runs, n[k], d[k])
    there = bool(((runs.n_params == n[k]) & (runs.n_frames == d[k])).any())
    reason = (
        f"N* is known to a factor {np.exp(numbers['sd_log_n_star']):.2f}; one more run here costs "
        f"{price[k]:.2g} and saves an expected "
        f"{saved[k]:.2g} of the {horizon:.2g} still to be spent"
    )
    return Decision(
        "repeat" if there else "measure",
        float(n[k]),
        float(d[k]),
        seed,
        float(price[k]),
        belief.predict(n[k], d[k]),
        reason,
        numbers | {"saved": float(saved[k])},
    )


def _coming(cost: float, horizon: float, growth: float) -> list[float]:
    """Costs of this run and of those that the horizon has room for after it: N* of each is another quantity,
    and a measurement that tells one of them need not tell the others."""
    costs = [cost]
    while sum(costs) + growth * costs[-1] <= horizon * (1 + 1e-9):
        costs.append(growth * costs[-1])
    return costs


def _stopping(belief: Posterior, runs: Runs, numbers: dict[str, float], rules: Rules) -> str:
    """Why to stop, or nothing."""
    floor = belief.column("E")
    if rules.target is not None:
        if runs.loss.min() <= rules.target:
            return f"the target {rules.target:.4g} is reached"
        low = float(np.quantile(floor, 0.025))
        if low > rules.target:
            return (
                f"the target {rules.target:.4g} cannot be reached: the floor is above {low:.4g} with "
                f"probability 0.975"
            )
    above = float(
        np.mean(np.exp(belief.log_loss(runs.n_params[runs.last], runs.n_frames[runs.last])[:, 0]) - floor)
    )
    if above < rules.tolerance:
        return f"the expected loss above the floor, {above:.3g}, is below the tolerance {rules.tolerance:.3g}"
    per_doubling = numbers["gain"] / np.log2(max(rules.growth, 1 + 1e-9))
    if per_doubling < rules.min_gain:
        return (
            f"one doubling of the cost gains {per_doubling:.3g} in ln L, less than the {rules.min_gain:.3g} "
            f"that is wanted"
        )
    return ""
