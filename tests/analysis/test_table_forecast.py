"""`sapis fit TABLE` with forecasts, rows held out, unequal noise, very many rows: what is said and done."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from synthetic_tables import QUICK, noisy, of_steps
from synthetic_tables import table as points_of
from typer.testing import CliRunner

from sapis_lab.analysis.fit import Points
from sapis_lab.analysis.laws import LAWS, SYMBOLS, law_named
from sapis_lab.analysis.table_fit import Questions, fit_points_of, gathered, left_out
from sapis_lab.cli import app
from sapis_lab.config import ConfigError
from sapis_lab.report.laws_text import beyond_text, formula, remarks_of, warnings_of

TRUTH = {"A": 20.0, "B": 2.0, "E": 0.05, "alpha": 0.5, "beta": 0.4}
N, D = (a.ravel() for a in np.meshgrid(np.geomspace(3e3, 3e5, 6), np.geomspace(50, 5e3, 6)))


@pytest.fixture
def table(tmp_path):
    loss = LAWS["n+d+e"].predict(TRUTH, N, D) * np.exp(0.02 * np.random.default_rng(0).standard_normal(36))
    path = tmp_path / "runs.csv"
    pd.DataFrame({"N": N, "D": D, "loss": loss}).to_csv(path, index=False)
    return path


def run(path, *words):
    columns = ["--n", "N", "--d", "D", "--loss", "loss", "--bootstrap", "50", "--calibrate", "0"]
    return CliRunner().invoke(app, ["fit", str(path), *columns, *map(str, words)])


def test_a_forecast_is_of_the_average_with_its_laws_weights_and_distance(table, tmp_path):
    out = tmp_path / "out.json"
    result = run(table, "--predict", "n=3e6,d=5e4", "--predict", "n=1e5,d=1e3", "--json", out)
    assert result.exit_code == 0, result.output
    far, near = json.loads(out.read_text())["forecast"]
    assert (far["n"], far["d"], far["law"]) == (3e6, 5e4, "average")
    assert far["low"] < far["value"] < far["high"]
    assert far["low"] < LAWS["n+d+e"].predict(TRUTH, 3e6, 5e4) < far["high"]
    assert sum(law["weight"] for law in far["laws"].values()) == pytest.approx(1.0)
    assert {"n+d+e"} <= set(far["laws"])
    assert far["distance"] == pytest.approx({"n": 10.0, "d": 10.0, "nd": 100.0}, rel=1e-6)
    assert near["distance"] == {"n": 1.0, "d": 1.0, "nd": 1.0}
    assert near["high"] / near["low"] < far["high"] / far["low"]
    assert "N 3e+06, D 5e+04" in result.output and "100 x N D" in result.output


def test_targets_come_from_a_table_too(table, tmp_path):
    wanted = tmp_path / "targets.csv"
    pd.DataFrame({"N": [1e6, 2e6], "D": [1e4, 2e4]}).to_csv(wanted, index=False)
    out = tmp_path / "out.json"
    assert run(table, "--predict", wanted, "--law", "n+d,n+d+e", "--json", out).exit_code == 0
    assert [(f["n"], f["d"]) for f in json.loads(out.read_text())["forecast"]] == [(1e6, 1e4), (2e6, 2e4)]


def test_rows_held_out_are_forecast_by_the_others(table, tmp_path):
    out = tmp_path / "out.json"
    result = run(table, "--hold-out", "n>1e5", "--hold-out", "d>=5e3", "--law", "n+d,n+d+e", "--json", out)
    assert result.exit_code == 0, result.output
    data = json.loads(out.read_text())
    held = data["held_out"]["points"]
    assert data["n_points"] == 36 - len(held) == 20
    measured = pd.read_csv(table)
    for point in held:
        row = measured[np.isclose(measured.N, point["n"]) & np.isclose(measured.D, point["d"])]
        assert point["loss"] == pytest.approx(row.loss.item())
        assert point["error"] == pytest.approx(np.log(point["value"] / point["loss"]))
        assert point["inside"] == (point["low"] <= point["loss"] <= point["high"])
    assert np.mean([point["inside"] for point in held]) > 0.8
    assert "16 runs" in result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--hold-out", "size>3"], "--hold-out 'size>3': wanted a condition on n, d, nd, c or loss"),
        (["--hold-out", "n>many"], "--hold-out 'n>many': wanted a condition"),
        (["--hold-out", "n>1e9"], "no row is like that; n goes from 3000 to 300000"),
        (["--hold-out", "n>0"], "every row is left out"),
        (["--predict", "n=1e6"], "--predict 'n=1e6': got n"),
        (["--predict", "nowhere.csv"], "nowhere.csv: no such file"),
        (["--noise", "loud"], "--noise 'loud': wanted auto or equal"),
        (["--predict", "n=1e6,n=1e7,d=3"], "--predict 'n=1e6,n=1e7,d=3': n stands twice"),
        (["--robust", "huber"], "--robust 'huber': wanted auto, none or a positive threshold"),
        (["--robust", "0"], "--robust '0': wanted auto, none or a positive threshold"),
        (["--quantity", "mae"], "--quantity 'mae' is of a study; .*runs.csv is a table"),
        (["--d", "N"], "column 'N': got it for N and for D, wanted a column for each"),
    ],
)
def test_bad_questions_end_with_one_message(table, words, message):
    with pytest.raises(ConfigError, match=message):
        raise run(table, *words).exception


def test_conditions_add_up():
    points = Points(N, D, N)
    assert left_out(points, ["n>1e5"]).sum() == 12
    assert (left_out(points, ["n>1e5", "d<60"]) == ((N > 1e5) | (D < 60))).all()
    assert not left_out(points, []).any()


def test_noise_that_falls_with_n_is_told_and_weighs_the_points(tmp_path):
    generator = np.random.default_rng(5)
    n, d = np.tile(N, 2), np.tile(D, 2)
    sigma = 0.15 * (n / n.min()) ** -0.5
    loss = LAWS["n+d+e"].predict(TRUTH, n, d) * np.exp(sigma * generator.standard_normal(len(n)))
    path = tmp_path / "runs.csv"
    pd.DataFrame({"N": n, "D": d, "loss": loss}).to_csv(path, index=False)
    result = run(path, "--law", "n+d,n+d+e")
    assert "The noise changes with N" in result.output and "weighted by it" in result.output
    assert "noise that changes with N" in " ".join(result.output.split())
    equal = run(path, "--law", "n+d,n+d+e", "--noise", "equal")
    assert "points count alike all the same" in equal.output


def test_a_law_that_misses_says_so_above_the_numbers(tmp_path):
    loss = 20.0 * N**-0.5 + 2.0 * D**-0.4 * (1 + 500.0 / D) ** -0.35
    loss = loss * np.exp(0.005 * np.random.default_rng(1).standard_normal(36))
    path = tmp_path / "runs.csv"
    pd.DataFrame({"N": N, "D": D, "loss": loss}).to_csv(path, index=False)
    result = run(path, "--law", "n+d")
    said = result.output.splitlines()[1]
    assert said.startswith("The law n+d misses the data: ") and "the noise at the" in said
    assert "misses the data" not in run(path, "--law", "n+d:break-d").output


def test_a_formula_has_no_numbers_that_are_not_identified():
    params = TRUTH | {"C": 1.0, "gamma": 0.3}
    text = formula(LAWS["n+d+nd+e"], params, {"nd": False, "e": True, "n": True, "d": True})
    assert text == "L = 20 N^-0.5000 + 2 D^-0.4000 + C (N D)^-γ + 0.05"


def test_very_many_rows_give_the_law_of_all_of_them():
    generator = np.random.default_rng(0)
    n, d = 10 ** generator.uniform(7, 10, 20_000), 10 ** generator.uniform(9, 12, 20_000)
    loss = (1.7 + 400 * n**-0.34 + 410 * d**-0.28) * np.exp(0.01 * generator.standard_normal(20_000))
    loss[::500] *= 5.0
    few = gathered(Points(n, d, loss))
    assert len(few) <= 225
    exact = 1.7 + 400 * few.n_params**-0.34 + 410 * few.n_frames**-0.28
    error = np.log(few.loss / exact)
    assert np.abs(error).max() < 0.01
    assert abs(error.mean()) < 3e-4
    assert few.weights.mean() == pytest.approx(1.0)


@pytest.fixture
def table_of_steps(tmp_path):
    n, s, d = (
        a.ravel()
        for a in np.meshgrid(np.geomspace(3e3, 3e5, 4), np.geomspace(1e3, 1e5, 4), np.geomspace(50, 5e3, 3))
    )
    params = {"A": 20.0, "B": 2.0, "F": 30.0, "alpha": 0.5, "beta": 0.4, "sigma": 0.6}
    loss = law_named("n+d+s").predict(params, n, d, s)
    loss = loss * np.exp(0.01 * np.random.default_rng(0).standard_normal(len(n)))
    path = tmp_path / "runs.csv"
    pd.DataFrame({"N": n, "D": d, "S": s, "loss": loss}).to_csv(path, index=False)
    return path


def test_a_law_of_steps_is_found_and_forecasts_longer_trainings(table_of_steps, tmp_path):
    out = tmp_path / "out.json"
    words = ["--steps", "S", "--predict", "n=1e5,d=1e3,steps=1e6", "--hold-out", "steps>5e4", "--json", out]
    result = run(table_of_steps, *words)
    assert result.exit_code == 0, result.output
    data = json.loads(out.read_text())
    assert data["selected"] == "n+d+s"
    low, high = data["laws"]["n+d+s"]["intervals"]["sigma"]
    assert low < 0.6 < high and high - low < 0.2
    truth = 20.0 * 1e5**-0.5 + 2.0 * 1e3**-0.4 + 30.0 * 1e6**-0.6
    longer = data["forecast"][0]
    assert longer["low"] < truth < longer["high"] and longer["steps"] == 1e6
    assert longer["distance"]["steps"] > 10
    assert len(data["held_out"]["points"]) == 12
    assert np.mean([h["inside"] for h in data["held_out"]["points"]]) > 0.7
    assert "σ" in result.output and "S^-" in result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--law", "n+d+s"], "law 'n\\+d\\+s' is of steps, and no column of them is named"),
        (["--hold-out", "steps>3"], "no column of steps is named"),
        (["--steps", "S", "--predict", "n=1,d=2"], "wanted such as n=7e9,d=4e12,steps=1e6"),
        (
            ["--steps", "S", "--predict", "n=1,d=2,steps=1e300"],
            "steps is 1e300, wanted a number between 1e-100",
        ),
        (["--steps", "T"], "no column 'T' for the steps"),
        (["--steps", "S", "--epochs", "S"], "--steps with --epochs: got both"),
    ],
)
def test_bad_questions_about_steps_end_with_one_message(table_of_steps, words, message):
    with pytest.raises(ConfigError, match=message):
        raise run(table_of_steps, *words).exception


def test_one_number_of_steps_left_by_a_hold_out_is_said_in_a_sentence():
    left = of_steps(laws=("n+d", "n+d+s"), questions=Questions((), ("steps>1001",)))
    assert left.selected == "n+d"
    assert next(iter(warnings_of(left))).startswith(
        "--hold-out steps>1001 leaves one number of training steps, S = 1000: no law of steps can be fitted"
    )
    assert not any("number of training steps" in line for line in warnings_of(of_steps()))


def test_a_forecast_of_other_steps_than_the_only_ones_is_refused():
    """No law knows what more steps would bring."""
    few = Questions(((1e5, 1e5, 1e6),), ("steps>1001",))
    with pytest.raises(ValueError, match="all points have S = 1000 training steps.*wanted steps=1000"):
        of_steps(laws=("n+d",), questions=few)
    same = Questions(((1e5, 1e5, 1000.0),), ("steps>1001",))
    assert of_steps(laws=("n+d",), questions=same).forecasts[0].steps == 1000


def test_a_target_beyond_the_points_in_one_size_alone_is_not_inside():
    assert beyond_text({"n": 1.0, "d": 1.0, "nd": 1.0}, compute=False) == "inside"
    assert beyond_text({"n": 10.0, "d": 10.0, "nd": 100.0}, compute=False) == "100 x N D"
    assert beyond_text({"n": 1000.0, "d": 1.0, "nd": 1.0}, compute=False) == "1e+03 x N"
    assert beyond_text({"n": 1.0, "d": 1.0, "nd": 1.0, "steps": 50.0}, compute=False) == "50 x S"
    assert beyond_text({"n": 3.0, "d": 1.0, "nd": 3.0}, compute=True) == "3 x C"


def test_epochs_that_say_nothing_of_repeats_have_no_number(table, tmp_path):
    runs = pd.read_csv(table)
    runs["epochs"] = 1.0 + 1e-3 * (np.arange(len(runs)) % 2)
    path = tmp_path / "once.csv"
    runs.to_csv(path, index=False)
    result = run(path, "--epochs", "epochs", "--law", "n+d", "--bootstrap", "0")
    assert result.exit_code == 0, result.output
    assert "R* = ? [" in result.output and "not identified" in result.output


def test_the_legend_names_groups_beside_weights(table, tmp_path):
    runs = pd.read_csv(table)
    path = tmp_path / "weighted.csv"
    runs.assign(w=1.0 + np.arange(len(runs)) % 3, run=np.arange(len(runs)) % 12).to_csv(path, index=False)
    result = run(path, "--weight", "w", "--group", "run", "--law", "n+d", "--bootstrap", "0")
    assert result.exit_code == 0, result.output
    assert "err together in a group, by the column of weights" in " ".join(result.output.split())


def test_equal_losses_are_refused(tmp_path):
    path = tmp_path / "runs.csv"
    pd.DataFrame({"N": N, "D": D, "loss": 0.5}).to_csv(path, index=False)
    with pytest.raises(ConfigError, match="column 'loss': all 36 losses are 0.5; a law needs losses that"):
        raise run(path).exception


@pytest.mark.parametrize("factor", [1e250, 1e-300])
def test_losses_that_no_law_can_hold_are_refused_by_their_row(table, factor):
    runs = pd.read_csv(table)
    runs.assign(loss=runs["loss"].where(runs.index != 4, runs["loss"] * factor)).to_csv(table, index=False)
    with pytest.raises(ConfigError, match="column 'loss', row 5: got .*, wanted a number between 1e-100 and"):
        raise run(table).exception


@pytest.mark.parametrize("factor", [1e97, 1e-97])
def test_losses_of_any_unit_have_the_exponents_of_the_same_law(table, factor):
    runs = pd.read_csv(table)
    plain, scaled = (
        fit_points_of(points_of(N, D, loss), laws=["n+d+e"], effort=QUICK)
        for loss in (runs["loss"].to_numpy(), runs["loss"].to_numpy() * factor)
    )
    for name in ("alpha", "beta"):
        assert scaled.fits["n+d+e"].params[name] == pytest.approx(plain.fits["n+d+e"].params[name], rel=1e-6)
    assert scaled.fits["n+d+e"].params["E"] == pytest.approx(
        factor * plain.fits["n+d+e"].params["E"], rel=1e-5
    )


def test_losses_that_differ_by_rounding_alone_are_refused(table):
    runs = pd.read_csv(table)
    runs.assign(loss=2.0 + 1e-9 * np.arange(36) / 36).to_csv(table, index=False)
    with pytest.raises(
        ConfigError, match="column 'loss': all 36 losses are 2 within 5e-10 of it, which round"
    ):
        raise run(table).exception


def test_remarks_about_laws_are_one_line_a_kind():
    loss = noisy(LAWS["n+d+e"].predict(TRUTH, N, D), noise=0.02)
    effort = replace(QUICK, all_tests=True)
    fits = fit_points_of(points_of(N, D, loss), laws=list(LAWS), effort=effort)
    lines = list(remarks_of(fits))
    kinds = [line.partition(":")[0] for line in lines]
    assert len(kinds) == len(set(kinds)) and "Not identified" in kinds
    unknown = next(line for line in lines if line.startswith("Not identified"))
    terms = {
        name: {t.name: t.exponent or t.amplitude for t in r.fit.law.terms} for name, r in fits.laws.items()
    }
    wanted = {
        f"{SYMBOLS.get(terms[name][v.term], terms[name][v.term])} of {name}"
        for name, result in fits.laws.items()
        for v in result.verdicts
        if not v.identified
    }
    assert set(re.findall(r"\w of [+a-z]+", unknown)) == wanted
    assert unknown.count("interval wider than 0.5)") <= 1
    ratios = next(line for line in lines if line.startswith("Likelihood ratio of the floor"))
    assert f"n+d+e against n+d {fits.laws['n+d+e'].floor.statistic:.1f}" in ratios
    assert sum("\n" in line for line in lines) == 0


def test_laws_that_were_not_fitted_are_one_line_with_the_reason():
    left = of_steps(laws=("n+d", "n+d+s", "n+s"), questions=Questions((), ("steps>1001",)))
    assert "Not fitted: n+d+s, n+s: needs at least 2 distinct S, got 1." in list(remarks_of(left))
