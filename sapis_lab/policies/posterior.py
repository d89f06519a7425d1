"""The split with the lowest expected ln L over draws of the law; and before that a cheap measurement where it
saves more than it costs.

A factor e^x in N at equal N D costs the part (alpha + beta)/2 x^2 of the compute, so that not knowing N*
wastes (alpha + beta)/2 Var(ln N*), and a measurement that shrinks this variance by dV is worth
(alpha + beta)/2 dV times that cost, summed over the runs that there is room for, each with the N* of its own
cost. With `Rules.sure` above 1/2, N and D grow alike where the data cannot tell.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from sapis_lab.analysis.laws import Array
from sapis_lab.analysis.posterior import Posterior
from sapis_lab.policies._base import Decision, PolicyConfig, Prices, Rules, Runs
from sapis_lab.policies._belief import log_optimum, posterior_of
from sapis_lab.policies._moves import free_seed, grown_alike, move, splits

SURE = 0.95
"""Probability beyond which a run leaves the path of steps, to N*."""
FAR = np.log(2.0)
"""|ln(N/N*)| that counts as off the frontier."""


class PosteriorConfig(PolicyConfig):
    """The best split over all laws that the runs allow, and cheap measurements that pay."""

    kind: Literal["posterior"] = "posterior"

    def decide(
        self, runs: Runs, prices: Prices, *, next_cost: float, horizon: float, rules: Rules
    ) -> Decision:
        belief = posterior_of(runs)
        N = splits(runs, prices, next_cost, rules)
        D = np.minimum(prices.frames(N, next_cost), rules.most_frames)
        losses = belief.log_loss(N, D)
        best, both = (
            int(np.argmin(losses.mean(axis=0))),
            move(runs, prices, grown_alike(runs, prices, next_cost), next_cost, rules, ""),
        )
        log_best = log_optimum(belief, runs, prices, next_cost)
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
        numbers |= {
            f"gain_{name}": value for name, value in _axis_gains(belief, runs, prices, next_cost).items()
        }
        stop = _stopping(belief, runs, numbers, rules)
        if stop:
            return Decision("stop", reason=stop, numbers=numbers)
        if rules.measure and runs.n_measured_since < rules.measurements and len(N) > 1:
            decision = _measurement(belief, runs, prices, log_best, next_cost, horizon, rules, numbers)
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
                f"{star}; another split than growing both is better with probability {better:.2f} only, so "
                f"both grow",
            )
        why += f"; expected gain {numbers['gain']:.3f} in ln L"
        decision = move(runs, prices, float(chosen), next_cost, rules, why)
        return replace(
            decision, predicted=belief.predict(decision.n_params, decision.n_frames), numbers=numbers
        )


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
    seed = free_seed(runs, n[k], d[k])
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
