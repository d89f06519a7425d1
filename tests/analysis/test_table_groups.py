"""Groups of a table: the common law, one exponent for all or not, trends, and what is left out."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from synthetic_tables import QUICK, fitted, group, table
from typer.testing import CliRunner

from sapis_lab.analysis.common_exponent import _Group, _least, common_exponent_test
from sapis_lab.analysis.exponents import common_law, equality_statistic
from sapis_lab.analysis.fit import fit_points
from sapis_lab.analysis.laws import LAWS
from sapis_lab.analysis.profile import own_refit, profiles
from sapis_lab.analysis.refit import Setting, refit, simulated
from sapis_lab.analysis.table import Columns
from sapis_lab.analysis.table_groups import GroupExponent, fit_groups, groups_json, trend
from sapis_lab.cli import app
from sapis_lab.config import ConfigError

AGAINST = Columns("N", "D", "loss", by="model", against="lmax")


def fits(*alphas, noise=0.03, law="n+d"):
    points = {f"g{k}": group(alpha, k, noise=noise).points for k, alpha in enumerate(alphas)}
    return {name: fit_points(LAWS[law], p) for name, p in points.items()}


def generator(seed=0):
    return np.random.default_rng(seed)


# ------------------------------------------------------------------------------------- one exponent for all


def test_a_common_exponent_that_is_there_is_rejected_in_a_twentieth_of_data_sets():
    n_sets, each = 400, list(fits(0.45, 0.45, 0.45).values())
    critical = common_exponent_test(
        dict(zip("abc", each, strict=True)), "alpha", n_simulations=399, generator=generator()
    ).critical
    groups, truth = [], each[0].theta
    for k, fit in enumerate(each):
        data = simulated(fit, truth, sigma=0.03, n_sets=n_sets, generator=generator(100 + k))
        setting = Setting.scouted(fit)
        starts = np.broadcast_to(truth, (n_sets, 1, 4))
        groups.append(_Group(setting, refit(setting, data, starts=starts), 1.0))
    rejected = (_least(groups, position=2)[1] > critical).mean()
    assert 0.02 < rejected < 0.09


@pytest.mark.long
def test_p_values_of_a_common_exponent_are_spread_evenly():
    p = [
        common_exponent_test(
            {k: fit_points(LAWS["n+d"], group(0.45, 50 + 2 * s + j).points) for j, k in enumerate("ab")},
            "alpha",
            n_simulations=39,
            generator=generator(s),
        ).p_value
        for s in range(24)
    ]
    assert 0.35 < np.mean(p) < 0.65
    assert np.mean(np.array(p) <= 0.05) <= 0.2


def test_a_clear_difference_is_found_in_the_exponent_that_has_it_alone():
    each = fits(0.45, 0.45, 0.45, 0.7)
    alpha, beta = (
        common_exponent_test(each, e, n_simulations=99, generator=generator()) for e in ("alpha", "beta")
    )
    assert alpha.p_value == pytest.approx(0.01) and alpha.statistic > alpha.critical
    assert beta.p_value > 0.05 and beta.statistic < beta.critical
    assert 0.45 < alpha.value < 0.7


@pytest.mark.parametrize("law", ["n+d", "n+d+e"])
def test_the_common_exponent_is_the_one_with_the_least_sum_of_profiles(law):
    each = fits(0.4, 0.55, 0.6, law=law)
    groups = [_Group(Setting.of(fit), own_refit(fit), 1.0) for fit in each.values()]
    position = LAWS[law].param_names.index("alpha")
    value, least = _least(groups, position)
    slow = np.linspace(0.38, 0.64, 261)[None]
    total = sum(g.constrained(position, slow)[0][0] for g in groups)
    assert least[0] <= total.min() * (1 + 1e-6)
    assert least[0] == pytest.approx(total.min(), rel=2e-3)
    assert value[0] == pytest.approx(slow[0, total.argmin()], abs=3e-3)


def test_with_two_groups_the_statistic_is_that_of_their_pair():
    each = fits(0.45, 0.6)
    groups = [_Group(Setting.of(fit), own_refit(fit), 1.0) for fit in each.values()]
    curves = tuple(profiles(fit, ["alpha"])["alpha"] for fit in each.values())
    best = tuple(fit.params["alpha"] for fit in each.values())
    assert _least(groups, 2)[1][0] == pytest.approx(equality_statistic(curves, best, (21, 21)), rel=0.02)


def test_a_group_is_no_witness_against_itself():
    one = fits(0.45)["g0"]
    same = common_exponent_test({"a": one, "b": one}, "beta", n_simulations=19, generator=generator())
    assert same.statistic == pytest.approx(0, abs=1e-6)
    assert same.p_value == 1.0
    assert same.value == pytest.approx(one.params["beta"], abs=1e-6)


def test_a_common_exponent_needs_two_groups_of_one_law():
    a, b = fits(0.45)["g0"], fits(0.45, law="n+d+e")["g0"]
    with pytest.raises(ValueError, match="at least 2 groups, got 1"):
        common_exponent_test({"a": a}, "alpha", generator=generator())
    with pytest.raises(ValueError, match="one law, got n\\+d, n\\+d\\+e"):
        common_exponent_test({"a": a, "b": b}, "alpha", generator=generator())


# --------------------------------------------------------------------------------------------------- trends


def exponent(value, error, against, *, closed=True, name="g"):
    ends = value - 2 * error, value + 2 * error
    return GroupExponent(
        name, "alpha", value, *ends, True, closed, error if closed else np.inf, 10**6, against
    )


def test_a_line_through_exponents_is_the_weighted_one():
    x, y, s = np.array([0, 1, 2, 4.0]), np.array([0.2, 0.31, 0.38, 0.6]), np.array([0.02, 0.01, 0.03, 0.02])
    found = trend([exponent(*row) for row in zip(y, s, x, strict=True)])
    slope, intercept = np.polyfit(x, y, 1, w=1 / s)
    assert (found.slope, found.intercept) == pytest.approx((slope, intercept))
    middle = np.average(x, weights=s**-2)
    error = 1 / np.sqrt((s**-2 * (x - middle) ** 2).sum())
    assert found.scatter < 1
    assert (found.low, found.high) == pytest.approx((slope - 1.96 * error, slope + 1.96 * error), rel=1e-4)


def test_scatter_about_the_line_widens_the_interval_of_its_slope():
    near = trend([exponent(v, 0.1, k) for k, v in enumerate((0.2, 0.5, 0.3, 0.6))])
    far = trend([exponent(v, 0.01, k) for k, v in enumerate((0.2, 0.5, 0.3, 0.6))])
    assert far.slope == pytest.approx(near.slope)
    assert far.scatter == pytest.approx(10 * near.scatter) and far.scatter > 1
    assert far.high - far.low > 0.1 * (near.high - near.low) * 5
    assert far.p_value > 0.01


def test_groups_that_differ_by_chance_have_no_trend_but_one_time_in_twenty():
    """Exponents that have nothing to do with the numbers of their groups, known better than they differ."""
    rng = np.random.default_rng(0)
    found = [
        trend([exponent(0.4 + 0.1 * rng.standard_normal(), 0.01, k) for k in range(4)]) for _ in range(400)
    ]
    assert 0.02 < np.mean([line.p_value < 0.05 for line in found]) < 0.08
    assert 0.92 < np.mean([line.low < 0 < line.high for line in found]) < 0.98


def test_an_open_exponent_has_no_part_in_a_line():
    rows = [exponent(0.1 * k, 0.02, k) for k in range(3)]
    assert trend([*rows, exponent(5.0, 0.1, 9, closed=False)]).groups == ("g", "g", "g")
    assert "got 2" in trend([*rows[:2], exponent(5.0, 0.1, 9, closed=False)])
    assert "got 1" in trend([exponent(0.1 * k, 0.02, 1) for k in range(4)])


# --------------------------------------------------------------------------------------------- whole tables


@pytest.fixture(scope="module")
def found():
    alphas = {"flat": 0.25, "geat-l1": 0.35, "geat-l2": 0.45, "geat-l3": 0.55}
    tables = {
        name: group(alpha, k, against=float(k), columns=AGAINST)
        for k, (name, alpha) in enumerate(alphas.items())
    }
    tables["tiny"] = table([1e3, 2e3], [50, 100], [0.3, 0.2], columns=AGAINST, against=9.0)
    return fit_groups(tables, laws=["n+d", "n+d+e"], effort=QUICK, n_simulations=99)


def test_groups_are_compared_under_the_law_that_describes_all(found):
    assert found.common == "n+d"
    assert [(e.group, e.exponent) for e in found.exponents][:3] == [
        ("flat", "alpha"),
        ("flat", "beta"),
        ("geat-l1", "alpha"),
    ]
    assert all(e.low < e.value < e.high and e.closed and e.identified for e in found.exponents)
    assert len(found.pairwise) == 12


def test_exponents_that_grow_are_found_by_every_test(found):
    alpha, beta = found.common_exponent
    assert alpha.p_value < 0.05 < beta.p_value
    line = next(t for t in found.trends if t.exponent == "alpha")
    assert line.low < 0.1 < line.high and line.p_value < 0.01
    pairs = {(t.model, t.other): t.p_holm for t in found.pairwise if t.exponent == "alpha"}
    assert pairs["flat", "geat-l3"] < 0.05


def test_a_group_with_too_few_rows_is_left_out_with_its_reason(found):
    assert list(found.left_out) == ["tiny"]
    assert "needs as many distinct (N, D), got 2" in found.left_out["tiny"]
    assert "tiny" not in found.groups


def test_a_group_of_which_the_noise_is_not_known_is_left_out():
    six = group(0.45, 3)
    six = replace(six, points=six.points.take(np.arange(25) % 4 == 0).take(np.arange(6)))
    one_run = group(0.45, 4)
    one_run = replace(one_run, points=replace(one_run.points, group=np.full(25, "a")))
    tables = {"a": group(0.45, 0), "b": group(0.45, 1), "six": six, "one run": one_run}
    found = fit_groups(tables, laws=["n+d"], effort=QUICK, n_simulations=9)
    assert found.left_out == {
        "six": "6 points are too few to know the noise about any law",
        "one run": "25 points of 1 runs are too few to know the noise about any law",
    }


def test_groups_as_json_have_every_part(found):
    data = json.loads(json.dumps(groups_json(found), allow_nan=False))
    assert {"groups", "common_law", "exponents", "pairwise", "common_exponent", "trend"} <= set(data)
    assert data["groups"]["flat"]["laws"]["n+d"]["params"]["alpha"] == pytest.approx(
        found.common_result("flat").fit.params["alpha"]
    )
    assert data["groups"]["geat-l2"]["against"] == 2.0
    assert [t["against"] for t in data["trend"]] == ["lmax", "lmax"]


def test_fewer_than_two_groups_are_refused():
    tables = {"one": group(0.45, 0), "tiny": table([1e3, 2e3], [50, 100], [0.3, 0.2])}
    with pytest.raises(ValueError, match="1 of 2 groups can be fitted, wanted at least 2 to compare; tiny: "):
        fit_groups(tables, laws=["n+d"], effort=QUICK)


def test_without_a_column_of_numbers_there_is_no_line():
    found = fit_groups(
        {"a": group(0.45, 0), "b": group(0.45, 1)}, laws=["n+d"], effort=QUICK, n_simulations=9
    )
    assert (found.trends, found.no_trend) == ((), {})


def test_a_law_without_profiles_can_be_common_where_only_fits_are_needed():
    laws = {"a": fitted().laws, "b": fitted(seed=1).laws}
    bare = {"a": laws["a"], "b": {n: type(r)(n, r.fit) for n, r in laws["b"].items()}}
    assert common_law(bare) is None
    assert common_law(bare, needed="fit") == common_law(laws) == "n+d+e"


# ---------------------------------------------------------------------------------------------- the command


WORDS = ["--n", "N", "--d", "D", "--loss", "loss", "--law", "n+d", "--bootstrap", "0", "--calibrate", "0"]


def written(folder, names=("a", "b", "c")):
    parts = []
    for k, name in enumerate(names):
        p = group(0.3 + 0.1 * k, k).points
        parts.append(
            pd.DataFrame({"model": name, "lmax": k, "N": p.n_params, "D": p.n_frames, "loss": p.loss})
        )
    parts.append(pd.DataFrame({"model": "few", "lmax": 7, "N": [1e3], "D": [50.0], "loss": [0.5]}))
    pd.concat(parts).to_csv(folder / "runs.csv", index=False)
    return folder / "runs.csv"


def run(*words):
    return CliRunner().invoke(app, ["fit", *map(str, words)], catch_exceptions=False)


def test_the_command_compares_groups(tmp_path):
    path, numbers = written(tmp_path), tmp_path / "fit.json"
    result = run(path, *WORDS, "--by", "model", "--against", "lmax", "--json", numbers)
    assert result.exit_code == 0, result.output
    assert "3 of 4 groups by model" in result.output
    assert "few is left out: no law can be fitted" in result.output
    assert "α against lmax: +0." in result.output
    assert "α differs between the 3 groups" in result.output
    data = json.loads(numbers.read_text())
    assert list(data["groups"]) == ["a", "b", "c"] and list(data["left_out"]) == ["few"]


@pytest.mark.long
def test_the_command_writes_a_folder_of_groups(tmp_path):
    path, numbers, out = written(tmp_path), tmp_path / "fit.json", tmp_path / "out"
    run(path, *WORDS, "--by", "model", "--against", "lmax", "--json", numbers, "--out", out)
    assert json.loads((out / "fit.json").read_text()) == json.loads(numbers.read_text())
    assert (out / "figures" / "groups" / "1-a" / "table_loss.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--against", "lmax"], "needs the groups, --by COLUMN"),
        (["--resample", "clusters"], "needs the runs that belong together, --group COLUMN"),
        (["--by", "model", "--hold-out", "n>1e4"], "--hold-out with --by"),
        (["--by", "nothing"], "nothing"),
        (["--by", "model", "--against", "N"], "wanted one number for each value of column 'model'"),
    ],
)
def test_options_of_groups_that_cannot_be_are_refused(tmp_path, words, message):
    with pytest.raises(ConfigError, match=message):
        run(written(tmp_path), *WORDS, *words)


def test_groups_are_no_option_of_a_study():
    with pytest.raises(ConfigError, match="--by, --out: of a table, got the study 'quickstart'"):
        run("quickstart", "--by", "model", "--out", "somewhere")
