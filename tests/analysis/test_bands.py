"""A band is of the curve that it is drawn around: every band and every interval holds its own estimate, on
any table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import runs_table

from sapis_lab import figures
from sapis_lab.analysis import analyse
from sapis_lab.analysis.fit import fit
from sapis_lab.analysis.laws import LAWS
from sapis_lab.analysis.optimum import Cost, optimum_band
from sapis_lab.analysis.posterior import posterior
from sapis_lab.analysis.regime import Optimum, optima, power_rule
from sapis_lab.analysis.study import fit_json
from sapis_lab.analysis.uncertainty import band, bootstrap, inflated_residuals, intervals, location

TRUTH = {"A": 20.0, "B": 2.0, "C": 3.0, "E": 0.02, "alpha": 0.7, "beta": 0.6, "gamma": 0.3}
NOISE = ("normal", "outlier", "skewed", "heavy")


def deviations(kind: str, size: float, n: int, random: np.random.Generator) -> np.ndarray:
    """Noise of ln L, (n,)."""
    if kind == "heavy":
        return size * random.standard_t(2, size=n)
    if kind == "skewed":
        return size * (random.exponential(size=n) - 1)
    noise = size * random.standard_normal(n)
    if kind == "outlier":
        noise[random.integers(n)] += random.choice([-8, 8]) * size
    return noise


def random_fit(
    seed: int,
    *,
    laws: tuple[str, ...] = ("n+d", "n+d+e", "n+d+nd"),
    kinds: tuple[str, ...] = NOISE,
    weighted: bool = True,
):
    """A law fitted to a random small table, the true law, and places to look at: the points, and twice the
    largest N and D."""
    random = np.random.default_rng(seed)
    n = random.choice([3, 4])
    grid = np.meshgrid(
        3e3 * np.geomspace(1, 10 ** random.choice([1.0, 1.5]), n),
        50 * np.geomspace(1, random.choice([8, 30]), n),
    )
    N, D, law = grid[0].ravel(), grid[1].ravel(), str(random.choice(laws))
    truth = LAWS[law if law != "n+d+nd" else "n+d"]
    noise = deviations(str(random.choice(kinds)), random.choice([0.02, 0.1, 0.3]), len(N), random)
    weight = random.uniform(0.3, 3.0, len(N)) if weighted and random.random() < 0.3 else None
    found = fit(law, N, D, truth.predict(TRUTH, N, D) * np.exp(noise), weight=weight)
    where = np.r_[N, 2 * N.max()], np.r_[D, 2 * D.max()]
    return found, truth, where


def the_outlier():
    """A table whose one outlier moves all refits off the fit when residuals are centred about their mean: 3 x
    3 points at 30 % noise."""
    random = np.random.default_rng(2)
    N, D = (a.ravel() for a in np.meshgrid(3e3 * np.geomspace(1, 10, 3), 50 * np.geomspace(1, 8, 3)))
    noise = 0.02 * random.standard_normal(9)
    noise[4] += 2.0
    return fit("n+d", N, D, LAWS["n+d"].predict(TRUTH, N, D) * np.exp(noise)), (
        np.r_[N, 2 * N.max()],
        np.r_[D, 2 * D.max()],
    )


def outside(found, where, *, resampling: str = "residuals", seed: int = 0) -> list[str]:
    """What does not hold its estimate, of all that a bootstrap gives."""
    boot = bootstrap(found, n_resamples=100, resampling=resampling, generator=np.random.default_rng(seed))
    low, high = band(found, boot, *where)
    mean = found.predict(*where)
    wrong = [] if ((low <= mean) & (mean <= high)).all() else ["band"]
    limits = intervals(boot, found.law.param_names)
    wrong += [name for name, (a, b) in limits.items() if not a <= found.params[name] <= b]
    best = optimum_band(found, boot, np.geomspace(1e6, 1e9, 4), Cost(6.0))
    for name in ("n_params", "n_frames", "loss"):
        (a, b), value = getattr(best, name), getattr(best.best, name)
        wrong += [] if ((a <= value) & (value <= b)).all() else [f"optimum {name}"]
    return wrong


def test_bands_hold_their_estimates_on_random_tables() -> None:
    assert {seed: wrong for seed in range(40) if (wrong := outside(*random_fit(seed)[::2], seed=seed))} == {}


@pytest.mark.parametrize("resampling", ["rows", "residuals"])
def test_one_outlier_moves_no_band_off_its_curve(resampling: str) -> None:
    assert outside(*the_outlier(), resampling=resampling) == []


def test_refits_of_a_robust_fit_lie_about_it_and_not_to_one_side() -> None:
    """Where residuals are centred about their mean, the outlier moves every refit by a ninth of itself."""
    found, where = the_outlier()
    boot = bootstrap(found, n_resamples=400, generator=np.random.default_rng(0))
    drawn = found.law.log_loss(boot.theta, found.law.coordinates(*where, centre=found.centre))[0]
    below = (drawn < np.log(found.predict(*where))).mean(axis=0)
    assert ((below > 0.2) & (below < 0.8)).all(), below


def test_resampled_residuals_are_centred_as_the_fit_centres() -> None:
    found, _ = the_outlier()
    assert np.isfinite(found.delta)
    assert abs(np.clip(inflated_residuals(found), -found.delta, found.delta).sum()) < 1e-9
    e = np.random.default_rng(0).standard_normal(9)
    assert location(e, np.inf) == e.mean()
    assert location(e, 1e3) == pytest.approx(e.mean(), abs=1e-12)
    assert location(np.r_[e, 50.0], 1e-6) == pytest.approx(np.median(np.r_[e, 50.0]), abs=0.5)


@pytest.mark.long
def test_bands_hold_the_true_law_about_as_often_as_they_say() -> None:
    """Symmetric noise, with and without outliers and heavy tails: 95 % bands, at the points and at twice the
    largest N and D."""
    inside, beyond = [], []
    for seed in range(400):
        kinds = ("normal", "outlier", "heavy")
        found, truth, where = random_fit(1000 + seed, laws=("n+d", "n+d+e"), kinds=kinds, weighted=False)
        boot = bootstrap(found, n_resamples=300, generator=np.random.default_rng(seed))
        low, high = band(found, boot, *where)
        true = truth.predict(TRUTH, *where)
        held = (low <= true) & (true <= high)
        inside.append(held[:-1].mean())
        beyond.append(held[-1])
    assert 0.92 < np.mean(inside) < 0.98, np.mean(inside)
    assert 0.91 < np.mean(beyond) < 0.98, np.mean(beyond)


# ---------------------------------------------------------------------------------------------- a whole study


def noisy_runs(seed: int) -> pd.DataFrame:
    """Three models at fixed epochs with one wild point each."""
    random = np.random.default_rng(seed)
    runs = runs_table(
        models=("geat-l1", "geat-l2", "transformer"),
        n_params=(3e3, 1e4, 3e4, 1e5),
        n_frames=(50, 100, 200, 400),
        epochs=20,
        noise=float(random.choice([0.02, 0.1])),
        generator=random,
    )
    for model in runs["model"].unique():
        one = random.choice(runs.index[runs["model"] == model])
        errors = [c for c in runs if c.startswith(("val_", "test_"))]
        runs.loc[one, errors] *= random.choice([0.3, 3.0])
    return runs


def told(found: dict[str, Any]) -> Iterator[tuple[str, float, list[float]]]:
    """Every estimate of fit.json that has an interval."""
    for name, model in found["models"].items():
        for law, result in model["laws"].items():
            for kind in ("intervals", "bootstrap_intervals"):
                for parameter, limits in (result.get(kind) or {}).items():
                    yield f"{name}, {law}, {kind}, {parameter}", result["params"][parameter], limits
        forecast = model["forecast"]
        for kind in ("interval", "interval_with_floor"):
            if forecast and forecast[kind]:
                yield f"{name}, forecast, {kind}", forecast["loss"], forecast[kind]
        for budget in model["optimum"].get("budgets", ()):
            for key in ("n_params", "n_frames", "loss"):
                yield f"{name}, optimum, {key}", budget[key], budget[f"{key}_interval"]
        if exponent := model["optimum"].get("compute_exponent"):
            yield f"{name}, compute exponent", exponent[0], exponent[1:]
    for ratio in found["equal_error"]:
        for value, *limits in zip(ratio["ratio"], ratio["low"], ratio["high"], strict=True):
            yield f"{ratio['model']}, {ratio['cost']}", value, limits
    for test in found["exponent_tests"]:
        yield (
            f"{test['model']} - {test['other']}, {test['exponent']}",
            test["difference"],
            [test["low"], test["high"]],
        )


def drawn(study: Any) -> Iterator[tuple[str, pd.DataFrame, str, str, str]]:
    """Every figure's numbers with the columns of an estimate and of its ends."""
    for kind in figures.kinds():
        drawing = figures.draw(kind, study)
        if not isinstance(drawing, figures.NotDrawn):
            columns = set(drawing.numbers)
            pairs = [(key, f"{key}_low", f"{key}_high") for key in columns if f"{key}_low" in columns]
            middle = next((key for key in ("loss", "ratio", "value", "difference") if key in columns), None)
            pairs += [(middle, "low", "high")] if "low" in columns and middle else []
            assert middle or "low" not in columns, f"{kind}: of what are low and high?"
            yield from ((kind, drawing.numbers, *pair) for pair in pairs)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
def test_every_interval_of_a_study_holds_its_estimate(seed: int) -> None:
    study = analyse(noisy_runs(seed), n_bootstrap=100)
    found = list(told(fit_json(study)))
    assert {what.split(", ")[1] for what, *_ in found} >= {
        "forecast",
        "optimum",
        "compute exponent",
        "n_frames",
        "n+d",
        "alpha",
    }
    assert [one for one in found if not one[2][0] <= one[1] <= one[2][1]] == []


@pytest.mark.long
def test_every_band_of_a_figure_holds_its_line() -> None:
    seen = set()
    for kind, numbers, middle, low, high in drawn(analyse(noisy_runs(0), n_bootstrap=100)):
        rows = numbers[numbers[[middle, low, high]].notna().all(axis=1)]
        seen |= {kind} if len(rows) else set()
        wrong = rows[
            ~((rows[low] <= rows[middle] * (1 + 1e-12)) & (rows[middle] <= rows[high] * (1 + 1e-12)))
        ]
        assert wrong.empty, f"{kind}: {middle}\n{wrong}"
    assert seen >= {
        "loss_vs_size",
        "loss_vs_data",
        "loss_vs_labels",
        "isoflop",
        "compute_frontier",
        "equal_error",
        "exponents",
    }


# ------------------------------------------------------------------------------------------ rules and beliefs


@pytest.mark.parametrize("seed", range(20))
def test_a_predicted_run_lies_in_its_interval(seed: int) -> None:
    found = random_fit(seed, weighted=False)[0].points
    middle, low, high = posterior(found.n_params, found.n_frames, found.loss).predict(
        2 * found.n_params.max(), 2 * found.n_frames.max()
    )
    assert low <= middle <= high


@pytest.mark.parametrize("seed", range(20))
def test_a_best_rate_and_its_rule_lie_in_their_intervals(seed: int) -> None:
    random = np.random.default_rng(seed)
    x = random.uniform(-3.0, 0.5, (12, 1))
    loss = np.exp(0.3 * (x[:, 0] + random.uniform(-2, 0)) ** 2 + deviations(NOISE[seed % 4], 0.1, 12, random))
    best = optima(x, loss, n_params=1000, n_frames=100)[0]
    assert best.low <= best.value <= best.high
    rest = {"n_trials": 9, "loss": 1.0, "method": "paraboloid"}
    cells = []
    for n in (1e3, 1e4, 1e5):
        for d in (50, 500):
            value = float(0.02 * (n / 1e4) ** -0.2 * np.exp(deviations(NOISE[seed % 4], 0.3, 1, random)[0]))
            cells.append(
                Optimum(
                    value=value,
                    low=value / 1.2,
                    high=value * 1.2,
                    sigma=0.1,
                    n_params=int(n),
                    n_frames=d,
                    **rest,
                )
            )
    rule = power_rule(cells, generator=random)
    for name, limits in rule.intervals.items():
        assert limits is not None and limits[0] <= getattr(rule, name) <= limits[1], name
