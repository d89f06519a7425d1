"""What to run next: the covariance of the laws, the order of purchases, and that they pay."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from sapis_lab.analysis.design_table import design_json, design_table, formula
from sapis_lab.analysis.fit import Points
from sapis_lab.analysis.laws import law_named
from sapis_lab.analysis.next_runs import (
    NOISE_WEIGHT,
    REACH,
    START_SHARE,
    Pool,
    believe,
    campaign,
    first_runs,
    grid_around,
    plan,
    shrunk,
    variances,
)
from sapis_lab.analysis.table import Columns
from sapis_lab.report.design_text import print_design

TARGETS = np.array([[3e7, 1e6], [1e8, 3e5]])
COLUMNS = Columns("n", "d", "loss")


def lattice(n_sizes: int = 10, n_frames: int = 10) -> Pool:
    """Runs of N from 1e4 to 1e7 and D from 1e3 to 3e5, at a price N D."""
    n, d = np.meshgrid(np.geomspace(1e4, 1e7, n_sizes), np.geomspace(1e3, 3e5, n_frames), indexing="ij")
    return Pool(n.ravel(), d.ravel(), (n * d).ravel())


def truth(n: np.ndarray, d: np.ndarray) -> np.ndarray:
    """A p-norm that falls from 0.9 to 0.2."""
    a, b = (n / 1e4) ** -0.25, (d / 1e3) ** -0.3
    return 0.5 * (a ** (1 / 0.7) + b ** (1 / 0.7)) ** 0.7 + 0.1


def simulated(pool: Pool, seed: int, *, noise: float = 0.004) -> np.ndarray:
    normal = np.random.default_rng(seed).standard_normal(len(pool))
    return truth(pool.n_params, pool.n_frames) * np.exp(noise * normal)


def points_of(pool: Pool, loss: np.ndarray, which: list[int]) -> Points:
    return Points(pool.n_params[which], pool.n_frames[which], loss[which])


@pytest.fixture(scope="module")
def known() -> tuple[Pool, Points]:
    pool = lattice()
    cheap = np.argsort(pool.price, kind="stable")[:40].tolist()
    return pool, points_of(pool, simulated(pool, 0), cheap)


def test_variance_is_that_of_the_noise_at_a_target_and_twice_it_at_the_reach():
    n, d = TARGETS[:, 0], TARGETS[:, 1]
    assert variances(n, d, TARGETS) == pytest.approx([1, 1])
    assert variances(n[:1] * np.exp(-REACH), d[:1], TARGETS[:1]) == pytest.approx([2])


def test_a_fit_under_the_prior_has_no_gradient(known):
    _, points = known
    fit = shrunk(law_named("pnorm+e"), points, TARGETS)
    from sapis_lab.analysis.next_runs import _prior

    z = fit.law.coordinates(points.n_params, points.n_frames, centre=fit.centre)
    weight = 1 / variances(points.n_params, points.n_frames, TARGETS) / fit.noise
    A, b = _prior(fit.law, float(points.log_loss.mean()))

    def objective(theta: np.ndarray) -> float:
        r = fit.law.log_loss(theta, z)[0] - points.log_loss
        return float((weight * r**2).sum() + ((A @ theta - b) ** 2).sum()) / 2

    step = 1e-4 * np.eye(len(fit.theta))
    gradient = [(objective(fit.theta + e) - objective(fit.theta - e)) / 2e-4 for e in step]
    steepest = np.abs(np.linalg.inv(fit.root @ fit.root.T)).max()
    assert np.abs(gradient).max() < 1e-3 * steepest


def test_a_parameter_that_the_prior_pins_down_costs_no_degree_of_freedom(known):
    _, points = known
    law = law_named("pnorm+e")
    few = points.take(np.arange(len(points)) < 8)
    decided = shrunk(law, points, points_as_targets(points)).dof - NOISE_WEIGHT
    undecided = shrunk(law, few, TARGETS).dof - NOISE_WEIGHT
    assert len(points) - law.n_parameters <= decided < len(points) - law.n_parameters + 2
    assert undecided > len(few) - law.n_parameters + 2


def points_as_targets(points: Points) -> np.ndarray:
    return np.stack([points.n_params, points.n_frames], axis=1)


def test_runs_of_one_size_are_too_few(known):
    _, points = known
    of_one_size = Points(np.full(len(points), 1e5), points.n_frames, points.loss)
    belief = believe(of_one_size, TARGETS)
    assert not belief.fits
    assert set(belief.left_out.values()) == {"needs at least 2 distinct N, got 1"}


def test_expected_variances_are_those_of_the_covariance_conditioned_on_all_purchases(known):
    pool, points = known
    belief = believe(points, TARGETS)
    bought = plan(belief, pool, TARGETS, most=4)
    at = [p.place for p in bought]
    F = belief.log_loss(pool.n_params, pool.n_frames)[1][at]
    G = belief.log_loss(TARGETS[:, 0], TARGETS[:, 1])[1]
    v = belief.noise * variances(pool.n_params[at], pool.n_frames[at], TARGETS)
    after = G @ G.T - G @ F.T @ np.linalg.solve(F @ F.T + np.diag(v), F @ G.T)
    assert bought[-1].sd == pytest.approx(np.sqrt(np.diag(after) + belief.noise), rel=1e-6)


def test_every_purchase_narrows_the_interval_and_none_is_made_twice(known):
    pool, points = known
    belief = believe(points, TARGETS)
    bought = plan(belief, pool, TARGETS, most=12)
    widths = np.array([belief.forecast(TARGETS)[1], *(p.sd for p in bought)])
    assert (np.diff(widths, axis=0) <= 1e-12).all() and widths[-1].sum() < widths[0].sum()
    assert len({p.place for p in bought}) == 12


def test_the_budget_is_kept(known):
    pool, points = known
    budget = float(np.median(pool.price))
    bought = plan(believe(points, TARGETS), pool, TARGETS, most=30, budget=budget)
    assert bought and bought[-1].spent <= budget * (1 + 1e-9)
    assert bought[-1].spent == pytest.approx(sum(pool.price[p.place] for p in bought))


def test_a_run_that_costs_more_is_not_preferred_to_its_twin(known):
    pool, points = known
    twice = Pool(np.tile(pool.n_params, 2), np.tile(pool.n_frames, 2), np.r_[pool.price * 1.5, pool.price])
    first = plan(believe(points, TARGETS), twice, TARGETS, most=1)[0]
    assert first.place >= len(pool)


def test_a_disagreement_of_laws_is_part_of_the_covariance(known):
    _, points = known
    belief = believe(points, TARGETS)
    w = np.array(list(belief.weights.values()))
    said, rows = zip(*(f.log_loss(*TARGETS.T) for f in belief.fits.values()), strict=True)
    within_laws = w @ np.array([(r**2).sum(axis=1) for r in rows])
    between = w @ (np.array(said) - w @ np.array(said)) ** 2
    assert len(w) == 3 and w.sum() == pytest.approx(1) and (between > 0).all()
    assert belief.forecast(TARGETS)[1] ** 2 - belief.noise == pytest.approx(within_laws + between)


def test_first_runs_differ_fit_the_budget_and_span_both_axes():
    pool = lattice()
    budget = 0.05 * pool.price.sum()
    chosen = first_runs(pool, budget=budget, generator=np.random.default_rng(0))
    assert len(set(chosen)) == len(chosen) == 9 and pool.price[chosen].sum() <= START_SHARE * budget
    assert len(set(pool.n_params[chosen])) > 3 and len(set(pool.n_frames[chosen])) > 3


def test_first_runs_are_fewer_where_the_budget_is():
    pool = Pool(np.array([1e3, 2e3, 4e3]), np.array([10.0, 20.0, 40.0]), np.array([1.0, 2.0, 4.0]))
    assert sorted(first_runs(pool, budget=3.0, generator=np.random.default_rng(0))) == [0, 1]
    assert first_runs(pool, budget=0.5, generator=np.random.default_rng(0)) == []


def test_first_runs_are_not_those_that_have_been_made():
    n, d = grid_around(np.array([1e6, 1e9, 1e6, 1e9]), np.array([1e8, 1e8, 1e11, 1e11]))
    made = np.array([1e6, 1e9, 1e6, 1e9]), np.array([1e8, 1e8, 1e11, 1e11])
    for seed in range(5):
        generator = np.random.default_rng(seed)
        chosen = first_runs(Pool(n, d, np.ones(len(n))), most=8, generator=generator, made=made)
        taken = {(round(np.log10(n[k]), 6), round(np.log10(d[k]), 6)) for k in chosen}
        assert len(taken) == 8 and not taken & {(6.0, 8.0), (9.0, 8.0), (6.0, 11.0), (9.0, 11.0)}


def test_a_campaign_is_the_same_for_the_same_seed_and_goes_on():
    pool = lattice()
    loss = simulated(pool, 1)
    budgets = [share * float(pool.price.sum()) for share in (0.02, 0.1)]

    def run() -> list[list[int]]:
        generator = np.random.default_rng(3)
        return campaign(pool, loss, TARGETS, budgets=budgets, generator=generator)

    small, large = run()
    assert [small, large] == run() and large[: len(small)] == small and len(large) > len(small)
    assert pool.price[small].sum() <= budgets[0] and pool.price[large].sum() <= budgets[1]


def test_runs_that_are_bought_by_design_forecast_better_than_random_and_cheapest_ones():
    pool, laws = lattice(), ("pnorm+e",)
    budget = 0.05 * float(pool.price.sum())
    measured = np.log(truth(TARGETS[:, 0], TARGETS[:, 1]))
    errors = np.empty((12, 3))
    for seed in range(len(errors)):
        loss, generator = simulated(pool, seed), np.random.default_rng(seed)
        (design,) = campaign(pool, loss, TARGETS, budgets=[budget], generator=generator, laws=laws)
        orders = generator.permutation(len(pool)), np.argsort(pool.price, kind="stable")
        for k, runs in enumerate((design, *(within(pool, order, budget) for order in orders))):
            forecast = believe(points_of(pool, loss, runs), TARGETS, laws).forecast(TARGETS)[0]
            errors[seed, k] = np.sqrt(np.mean((np.log(forecast) - measured) ** 2))
    mean = np.sqrt((errors**2).mean(axis=0))
    assert mean[0] < 0.9 * mean[1] and mean[0] < 0.7 * mean[2]


def within(pool: Pool, order: np.ndarray, budget: float) -> list[int]:
    """The runs in this order that fit into the budget."""
    runs: list[int] = []
    for x in order.tolist():
        if pool.price[[*runs, x]].sum() <= budget:
            runs.append(x)
    return runs


@pytest.mark.long
def test_intervals_hold_the_truth_of_simulated_runs():
    pool, inside = lattice(), []
    for seed in range(12):
        loss = simulated(pool, seed)
        (runs,) = campaign(
            pool,
            loss,
            TARGETS,
            budgets=[0.05 * float(pool.price.sum())],
            generator=np.random.default_rng(seed),
        )
        belief = believe(points_of(pool, loss, runs), TARGETS)
        value, sd = belief.forecast(TARGETS)
        error = np.log(value / truth(TARGETS[:, 0], TARGETS[:, 1]))
        inside += (np.abs(error) < belief.half_width * sd).tolist()
    assert np.mean(inside) > 0.9


def test_a_grid_goes_one_step_beyond_the_runs():
    n, d = grid_around(np.array([1e3, 1e4, 1e4]), np.array([8.0, 8.0, 16.0]))
    assert sorted(set(n.round(6))) == pytest.approx([1e2, 1e3, 1e4, 1e5])
    assert sorted(set(d.round(6))) == pytest.approx([4, 8, 16, 32])
    rng = np.random.default_rng(0)
    assert len(grid_around(rng.uniform(1e3, 1e6, 300), rng.uniform(10, 1e4, 300))[0]) == 14**2


def test_a_formula_of_the_price_is_arithmetic_and_nothing_else():
    n, d = np.array([2.0, 3.0]), np.array([5.0, 7.0])
    assert formula("6*n*d", n, d) == pytest.approx(6 * n * d)
    assert formula("(n + 2) ** 2 / D", n, d) == pytest.approx((n + 2) ** 2 / d)
    assert formula("3", n, d) == pytest.approx([3, 3])
    for text in ("__import__('os')", "n.shape", "n if d else n", "x*n", "True*n", "", "n**", "'n'"):
        with pytest.raises(ValueError, match="--price .* wanted a column of the pool or a formula"):
            formula(text, n, d)
    with pytest.raises(ValueError, match="gives -1 at n = 2, d = 5, wanted positive prices"):
        formula("2 - n*1.5", n, d)


# ------------------------------------------------------------------------------------------- tables and files


def write(path: Path, pool: Pool, loss: np.ndarray, empty: list[int] | None = None) -> Path:
    lines = ["n,d,loss,hours"]
    for k, row in enumerate(zip(pool.n_params, pool.n_frames, loss, pool.price / 1e9, strict=True)):
        n, d, value, hours = row
        lines.append(f"{n!s},{d!s},{'' if k in (empty or []) else value},{hours!s}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_rows_without_a_loss_are_the_pool(tmp_path):
    pool = lattice(6, 6)
    path = write(tmp_path / "runs.csv", pool, simulated(pool, 0), empty=[30, 33, 35])
    found = design_table(path, COLUMNS, targets=[(3e7, 1e6)], price="hours", most=9)
    assert len(found.table.points) == 33 and found.candidates.source == "rows without a loss"
    assert {int(found.candidates.rows[p.place]) for p in found.purchases} == {31, 34, 36}
    assert found.purchases[-1].spent == pytest.approx(float(pool.price[[30, 33, 35]].sum() / 1e9))
    plain = design_json(found)
    assert plain["runs"][0]["expected"][0]["high"] < plain["now"][0]["high"] and plain["budget"] is None


def test_a_law_that_misses_the_runs_is_named(tmp_path):
    pool = lattice(8, 8)
    path = write(tmp_path / "runs.csv", pool, simulated(pool, 0))
    found = design_table(path, COLUMNS, targets=[(3e7, 1e6)], laws=("n+d:tied", "pnorm+e"))
    assert list(found.misfits) == ["n+d:tied"]
    console = Console(file=io.StringIO(), width=200)
    print_design(found, console)
    said = console.file.getvalue()
    assert "The law n+d:tied misses the data: " in said and "pnorm+e misses" not in said
    assert design_json(found)["misfits"]["n+d:tied"]["p_value"] < 0.01


def test_a_pool_of_its_own_and_a_grid(tmp_path):
    pool = lattice(6, 6)
    runs = write(tmp_path / "runs.csv", pool, simulated(pool, 0))
    other = tmp_path / "pool.csv"
    other.write_text("n,d,price\n1e7,3e5,5\n2e7,3e5,7\n")
    found = design_table(runs, COLUMNS, targets=[(3e7, 1e6)], pool=other, price="price", budget=7)
    assert [p.spent for p in found.purchases] in ([5.0], [7.0])
    assert design_table(runs, COLUMNS, targets=[(3e7, 1e6)]).candidates.source == "grid"


def test_few_runs_are_answered_with_runs_to_begin_with(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("n,d,loss\n1e4,1e3,0.9\n2e4,2e3,0.8\n")
    found = design_table(path, COLUMNS, targets=[(1e6, 1e5)], most=5)
    assert found.forecast is None and len(found.first) == 5 and not found.purchases
    assert "needs 6 distinct (N, D)" in found.belief.left_out["pnorm+e:tied"]
    assert "needs 7 distinct (N, D)" in found.belief.left_out["pnorm+e"]


def test_a_pool_row_without_a_size_is_named(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("n,d,loss\n1e4,1e3,0.9\n2e4,2e3,0.8\n4e4,,\n")
    with pytest.raises(ValueError, match=r"runs.csv, column 'd', row 3: got nothing, wanted D"):
        design_table(path, COLUMNS, targets=[(1e6, 1e5)])


def test_a_table_without_any_loss_is_refused(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("n,d,loss\n1e4,1e3,\n2e4,2e3,\n")
    with pytest.raises(ValueError, match="column 'loss': no row has a loss"):
        design_table(path, COLUMNS, targets=[(1e6, 1e5)])


def test_a_table_of_equal_losses_is_refused(tmp_path):
    pool = lattice(3, 3)
    path = write(tmp_path / "runs.csv", pool, np.full(len(pool.n_params), 2.5))
    with pytest.raises(ValueError, match="all 9 losses are 2.5; a law needs losses that differ"):
        design_table(path, COLUMNS, targets=[(1e9, 1e12)])


@pytest.mark.parametrize(("width", "columns"), [(80, 1), (120, 2), (400, 4)])
def test_as_many_targets_are_shown_as_there_is_room_for(tmp_path, width, columns):
    pool = lattice(6, 6)
    path = write(tmp_path / "runs.csv", pool, simulated(pool, 0), empty=[30, 33, 35])
    targets = [(3e7, 1e6), (1e8, 1e6), (3e7, 1e7), (1e8, 1e7), (3e8, 3e7)]
    found = design_table(path, COLUMNS, targets=targets, price="hours", most=2)
    screen = Console(file=io.StringIO(), width=width)
    print_design(found, screen)
    said = screen.file.getvalue()
    at = [said.find(f"N={n:.4g}, D={d:.4g}") for n, d in targets]
    assert [place >= 0 for place in at] == [True] * columns + [False] * (5 - columns)
    assert f"{5 - columns} more targets in --json" in said and "…" not in said
    assert all(f"{found.pool.n_params[p.place]:.4g}" in said for p in found.purchases)
