"""The regime rule: optima and exponents are recovered from noisy trials with honest intervals, and what is
not identified is said so."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sapis_lab.analysis.regime import (
    Optimum,
    Regime,
    fit_regime,
    optima,
    power_rule,
    read_regime,
    write_regime,
)
from sapis_lab.config import ConfigError

KAPPA, LAMBDA, MU = 0.5, -0.3, -0.1


def best_rate(n_params: float, n_frames: float) -> float:
    return KAPPA * n_params**LAMBDA * n_frames**MU


def trials(
    generator: np.random.Generator,
    *,
    sizes=(1e3, 4e3, 1.6e4),
    frames=(50, 400),
    n=12,
    noise=0.02,
    rate=best_rate,
    curvature=0.3,
) -> pd.DataFrame:
    """Trials at random rates between 2e-3 and 0.2, whose ln error is a parabola about the best rate, with
    noise."""
    rows = []
    for n_params in sizes:
        for n_frames in frames:
            for x in generator.uniform(math.log(2e-3), math.log(0.2), n):
                distance = x - math.log(rate(n_params, n_frames))
                loss = (
                    0.05
                    * (n_params / 1e3) ** -0.2
                    * math.exp(curvature * distance**2 + noise * generator.standard_normal())
                )
                rows.append((n_params, round(n_params), n_frames, math.exp(x), loss))
    table = pd.DataFrame(
        rows, columns=["n_params_target", "n_params", "n_frames", "train.learning_rate", "val_force_rmse"]
    )
    return table.assign(model="geat-l2", family="geat", state="done")


def fitted(table: pd.DataFrame, seed: int = 0) -> Regime:
    regime = fit_regime(table, study="s", quantity="val_force_rmse", seed=seed)
    assert regime is not None
    return regime


def test_a_rule_is_recovered_from_noisy_trials():
    rule = fitted(trials(np.random.default_rng(1))).models["geat-l2"].rules["learning_rate"]
    for o in rule.optima:
        assert o.method == "paraboloid" and o.low < o.value < o.high
        assert rule.at(o.n_params, o.n_frames) == pytest.approx(best_rate(o.n_params, o.n_frames), rel=0.25)
    assert rule.n_exponent == pytest.approx(LAMBDA, abs=0.1) and rule.d_exponent == pytest.approx(MU, abs=0.1)


def test_noise_free_trials_give_the_rule_itself():
    rule = fitted(trials(np.random.default_rng(2), noise=0.0)).models["geat-l2"].rules["learning_rate"]
    assert (rule.n_exponent, rule.d_exponent, rule.kappa) == pytest.approx((LAMBDA, MU, KAPPA), rel=1e-4)
    assert rule.scatter < 1e-4


@pytest.mark.long
def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """30 tunings: of 90 intervals of 95 % at least 78 hold the true value (binomial: 85.5 +- 2; three of a
    tuning are not independent)."""
    held = 0
    for k in range(30):
        rule = (
            fitted(trials(np.random.default_rng(100 + k), noise=0.03), seed=k)
            .models["geat-l2"]
            .rules["learning_rate"]
        )
        for name, true in (("n_exponent", LAMBDA), ("d_exponent", MU), ("kappa", KAPPA)):
            interval = rule.intervals[name]
            assert interval is not None and interval[0] < getattr(rule, name) < interval[1]
            held += interval[0] < true < interval[1]
    assert held >= 78


def test_optima_that_scatter_about_the_rule_widen_its_intervals():
    exact = [
        Optimum(n, d, best_rate(n, d), 0, 0, 0.02, "paraboloid", 9, 0.1)
        for n in (1000, 4000, 16000)
        for d in (50, 400)
    ]
    jumps = [0.3, -0.3, -0.3, 0.3, 0.3, -0.3]
    scattered = [replace(o, value=o.value * math.exp(j)) for o, j in zip(exact, jumps, strict=True)]
    tight, wide = (power_rule(found, generator=np.random.default_rng(0)) for found in (exact, scattered))
    assert tight.scatter == 0.0 and 0.2 < wide.scatter < 0.6

    def width(rule):
        low, high = rule.intervals["n_exponent"]
        return high - low

    assert width(wide) > 5 * width(tight)


def test_an_exponent_of_what_did_not_vary_is_zero_and_not_identified():
    rule = fitted(trials(np.random.default_rng(3), frames=(50,))).models["geat-l2"].rules["learning_rate"]
    assert rule.d_exponent == 0.0 and rule.intervals["d_exponent"] is None
    assert rule.intervals["n_exponent"] is not None


def test_as_many_optima_as_coefficients_give_no_interval():
    regime = fitted(trials(np.random.default_rng(3), sizes=(1e3, 4e3), frames=(50,)))
    rule = regime.models["geat-l2"].rules["learning_rate"]
    assert rule.n_exponent != 0.0 and set(rule.intervals.values()) == {None}
    assert "not identified" in regime.text()


def test_sizes_that_move_together_are_refused():
    found = [Optimum(n, n // 10, 0.01, 0, 0, 0.1, "paraboloid", 9, 0.1) for n in (1000, 4000, 16000)]
    with pytest.raises(ValueError, match="N and D of the cells move together"):
        power_rule(found, generator=np.random.default_rng(0))


def test_the_optimum_stays_on_the_safe_side_of_a_cliff():
    """Beyond a rate of 0.03 the error jumps to ten times the best, as when training breaks down; below, it
    only falls slowly."""
    generator = np.random.default_rng(9)
    x = np.sort(generator.uniform(math.log(2e-3), math.log(0.08), 14))[:, None]
    smooth = 0.1 * np.exp(0.15 * (x[:, 0] - math.log(0.025)) ** 2 + 0.05 * generator.standard_normal(14))
    loss = np.where(x[:, 0] < math.log(0.03), smooth, 1.0)
    (found,) = optima(x, loss, n_params=100, n_frames=10)
    broken = np.exp(x[:, 0].min(where=loss == 1.0, initial=np.inf))
    assert found.method == "paraboloid" and 0.01 < found.value < 0.03 and found.high <= broken < 0.04


def test_too_few_trials_give_the_best_one_between_its_neighbours():
    x = np.log([[0.001], [0.01], [0.1]])
    (found,) = optima(x, np.array([0.3, 0.2, 0.4]), n_params=100, n_frames=10)
    assert found.method == "best trial" and "3 trials" in found.note
    assert (found.low, found.value, found.high) == pytest.approx((0.001, 0.01, 0.1))


def test_a_minimum_beyond_the_search_is_said_to_lie_at_its_edge():
    table = trials(np.random.default_rng(4), rate=lambda n, d: 5.0, noise=0.001, n=15, curvature=0.05)
    for o in fitted(table).models["geat-l2"].rules["learning_rate"].optima:
        assert "edge" in o.note and o.value > 0.1 and (o.method == "best trial" or o.high > 1.0)


def test_rate_and_batch_are_fitted_together_where_both_were_tuned():
    generator, rows = np.random.default_rng(5), []
    for n_params in (1e3, 1e4):
        for n_frames in (50, 400):
            for _ in range(25):
                u, v = generator.uniform(-1.5, 1.5, 2)
                rate, batch = best_rate(n_params, n_frames) * math.exp(u), 0.05 * n_params**0.5 * math.exp(v)
                loss = 0.1 * math.exp(
                    0.2 * u * u + 0.15 * v * v - 0.2 * u * v + 0.01 * generator.standard_normal()
                )
                rows.append((n_params, round(n_params), n_frames, rate, batch, loss))
    columns = [
        "n_params_target",
        "n_params",
        "n_frames",
        "train.learning_rate",
        "train.batch_size",
        "val_force_rmse",
    ]
    table = pd.DataFrame(rows, columns=columns).assign(model="m", family="geat", state="done")
    rules = fitted(table).models["m"].rules
    assert rules["learning_rate"].n_exponent == pytest.approx(LAMBDA, abs=0.05)
    assert rules["batch_size"].n_exponent == pytest.approx(0.5, abs=0.05)
    assert fitted(table).models["m"].batch_size(10_000, 3) == 3  # never more than D


def test_trials_that_did_not_finish_are_left_out():
    table = trials(np.random.default_rng(6))
    bad = table.head(3).assign(state="diverged", val_force_rmse=float("nan"))
    assert fitted(pd.concat([table, bad])) == fitted(table)


def test_no_rule_where_neither_rate_nor_batch_was_tuned():
    table = trials(np.random.default_rng(6)).rename(columns={"train.learning_rate": "train.ema"})
    assert fit_regime(table, study="s", quantity="val_force_rmse") is None


def test_a_regime_loads_back_as_written(tmp_path: Path):
    regime = fitted(trials(np.random.default_rng(7)))
    write_regime(regime, tmp_path, train={"steps": 300, "learning_rate": 0.01})
    assert read_regime(tmp_path) == regime
    assert json.loads((tmp_path / "regime.json").read_text())["train"] == {"steps": 300}
    assert (tmp_path / "regime.txt").read_text() == regime.text() + "\n"


def test_a_model_is_found_by_its_label_or_as_the_only_one_of_its_family():
    table = trials(np.random.default_rng(8), n=6)
    one = fitted(table)
    assert (
        one.rule_for("geat-l1", "geat") is one.models["geat-l2"]
        and one.rule_for("nequip-l2", "nequip") is None
    )
    two = fitted(pd.concat([table, table.assign(model="geat-l1")]))
    assert (
        two.rule_for("geat-l1", "geat") is two.models["geat-l1"] and two.rule_for("geat-l3", "geat") is None
    )


@pytest.mark.parametrize(
    "content, word", [(None, "sapis tune"), ("{", "not valid JSON"), ('{"format": 99}', "update")]
)
def test_a_missing_damaged_or_newer_rule_is_told(tmp_path: Path, content: str | None, word: str):
    if content is not None:
        (tmp_path / "regime.json").write_text(content)
    with pytest.raises(ConfigError, match=word):
        read_regime(tmp_path)


def test_it_imports_neither_torch_nor_optuna():
    code = (
        "import sys, sapis_lab.analysis.regime; print([m for m in ('torch', 'optuna', 'lightning') if m in "
        "sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )
