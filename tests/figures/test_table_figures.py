"""Figures of tables: the same five files as of a study, the numbers that are drawn, and the frontier."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from synthetic_tables import (
    QUICK,
    TRUE,
    fitted,
    group,
    lattice,
    noisy,
    of_compute,
    of_steps,
    scattered,
    steps_asked,
    table,
    with_questions,
)

from sapis_lab import figures
from sapis_lab.analysis.fit import fit
from sapis_lab.analysis.laws import LAWS, law_named
from sapis_lab.analysis.table import Columns
from sapis_lab.analysis.table_fit import fit_points_of
from sapis_lab.analysis.table_frontier import best_split, frontier_band, table_frontier
from sapis_lab.analysis.table_groups import fit_groups
from sapis_lab.figures import STEP_FIGURES, TABLE_FIGURES, Drawing, NotDrawn, group_folders
from sapis_lab.figures._style import COLUMN, PAGE
from sapis_lab.figures._tables import groups as groups_figure
from sapis_lab.figures._tables.common import MOST_LEVELS, levels, plain_text

SOURCES = {"lattice": with_questions, "scattered": lambda: fitted(scattered()), "compute": of_compute}


@pytest.fixture(scope="module", params=SOURCES)
def fits(request):
    return SOURCES[request.param]()


@pytest.fixture(scope="module")
def asked():
    return with_questions()


@pytest.mark.parametrize("name", TABLE_FIGURES)
def test_a_figure_of_a_table_has_a_standard_width_labels_and_a_caption(name, fits):
    drawing = TABLE_FIGURES[name](fits)
    assert isinstance(drawing, Drawing) and isinstance(drawing.figure, Figure)
    assert drawing.figure.get_figwidth() in (COLUMN, PAGE)
    assert all(axes.get_xlabel() for axes in drawing.figure.axes)
    assert drawing.figure.axes[0].get_ylabel() or name == "table_laws"
    assert drawing.caption.endswith(".") and "nan" not in drawing.caption
    assert set(drawing.numbers["part"]) and drawing.numbers["part"].notna().all()


def test_every_figure_of_a_table_is_written_with_its_numbers(asked, tmp_path):
    figures.draw_table(asked, tmp_path)
    names = {f"{n}.{s}" for n in TABLE_FIGURES for s in ("pdf", "svg", "png", "csv", "txt")}
    assert {p.name for p in tmp_path.iterdir()} == names | {"not_drawn.json"}
    numbers = pd.read_csv(tmp_path / "table_residuals.csv")
    points = numbers[numbers["part"] == "point"]
    assert len(points) == len(asked.table.points)
    law = asked.fits[asked.selected]
    assert points["residual_percent"].to_numpy() == pytest.approx(100 * law.residuals, rel=1e-8)


def test_a_figure_that_is_not_drawn_leaves_no_old_files(tmp_path, monkeypatch):
    n_params, n_frames = lattice()
    flat = table(n_params, n_frames, noisy(5.0 * n_frames**-0.2))
    fits = fit_points_of(flat, laws=["n+d"], effort=QUICK)
    assert isinstance(TABLE_FIGURES["table_frontier"](fits), NotDrawn)
    for name in [name for name in TABLE_FIGURES if name != "table_frontier"]:
        monkeypatch.delitem(TABLE_FIGURES, name)
    (tmp_path / "table_frontier.png").write_bytes(b"old")
    assert figures.draw_table(fits, tmp_path) == [tmp_path / "not_drawn.json"]
    assert "no split of a cost N D is best" in (tmp_path / "not_drawn.json").read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["not_drawn.json"]


# ---------------------------------------------------------------------------------------------- the frontier


def test_the_best_split_is_that_of_the_formula():
    n_params, n_frames = lattice()
    found = fit("n+d", n_params, n_frames, LAWS["n+d"].predict(TRUE, n_params, n_frames))
    cost = np.geomspace(1e15, 1e21, 13)
    best, loss, inside = best_split(found, cost)
    a, b = TRUE["alpha"], TRUE["beta"]
    # A a N^-a = B b D^-b on N D = cost (Hoffmann et al. 2022, eq. 4)
    wanted = (a * TRUE["A"] / (b * TRUE["B"])) ** (1 / (a + b)) * cost ** (b / (a + b))
    assert inside.all()
    assert best == pytest.approx(wanted, rel=1e-3)
    assert loss == pytest.approx(LAWS["n+d"].predict(TRUE, wanted, cost / wanted), rel=1e-6)


@pytest.mark.parametrize("name", ["kaplan+e", "n+d+e:break-d", "n+d+e:ceiling", "n+d+nd+e"])
def test_no_other_split_is_better_whatever_the_form(name):
    n_params, n_frames = lattice()
    found = fit(name, n_params, n_frames, noisy(LAWS["n+d+e"].predict(TRUE, n_params, n_frames)))
    cost = np.array([1e17, 1e19])
    best, loss, inside = best_split(found, cost)
    assert law_named(name).name == name and inside.all()
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert (found.predict(best * factor, cost / (best * factor)) > loss).all()


def test_a_frontier_reaches_a_hundred_times_the_points_or_the_farthest_target(asked):
    cost = asked.table.points.n_params * asked.table.points.n_frames
    assert table_frontier(fitted()).cost[-1] == pytest.approx(1e20 * 100)
    found = table_frontier(asked)
    assert found.largest == pytest.approx(cost.max())
    assert found.cost[-1] == pytest.approx(max(100 * cost.max(), 7e9 * 4e11))
    assert found.cost == pytest.approx(found.n_params * found.n_frames)


def test_the_band_of_runs_holds_the_law_and_widens_beyond_the_points(asked):
    found = table_frontier(asked)
    band = frontier_band(asked, found)
    assert len(band.cost) == 12
    assert (band.low < band.value).all() and (band.value < band.high).all()
    width = np.log(band.high / band.low)
    assert width[-1] > 1.5 * width[len(width) // 2]


def test_a_law_of_compute_is_its_own_frontier():
    fits = of_compute()
    found = table_frontier(fits)
    assert found.n_params.tolist() == found.cost.tolist()
    assert found.loss == pytest.approx(fits.fits[fits.selected].predict(found.cost, 1.0))


# ---------------------------------------------------------------------------------------------- what is drawn


def test_few_sizes_are_levels_and_many_are_binned_by_a_power_of_two():
    few, width = levels(np.array([1.0, 3.0, 1.0]))
    assert ([level.size for level in few], width) == ([1.0, 3.0], 1.0)
    values = np.geomspace(1e3, 1e6, 200)
    many, width = levels(values)
    assert len(many) <= MOST_LEVELS and width in (2.0, 4.0, 8.0)
    assert sum(level.rows.sum() for level in many) == 200
    for level in many:
        inside = values[level.rows]
        assert inside.min() <= level.size <= inside.max() < inside.min() * width * 1.01


def test_the_edges_of_a_misfit_are_marked_and_named():
    n_params, n_frames = lattice(6)
    loss = noisy(LAWS["n+d+e"].predict(TRUE, n_params, n_frames))
    fits = fit_points_of(table(n_params, n_frames, loss), laws=["n+d"], effort=QUICK)
    drawing = TABLE_FIGURES["table_residuals"](fits)
    assert fits.misfit.found and fits.misfit.edges
    marked = drawing.numbers[~drawing.numbers["part"].isin(["point"])]
    assert set(marked["part"]) == {
        f"{'largest' if e.largest else 'smallest'} {e.variable}" for e in fits.misfit.edges
    }
    law = fits.fits["n+d"]
    at_end = law.points.n_frames == law.points.n_frames.max()
    mean = marked.loc[marked["part"] == "largest D", "residual_percent"].iloc[0]
    assert mean == pytest.approx(100 * law.residuals[at_end].mean(), rel=0.3)
    assert "misses the points" in drawing.caption and fits.misfit.edges[0].text in drawing.caption


def test_runs_left_out_and_forecasts_are_drawn_with_their_intervals(asked):
    numbers = TABLE_FIGURES["table_frontier"](asked).numbers
    held = numbers[numbers["part"] == "left out"]
    assert held["measured"].tolist() == [h.loss for h in asked.held]
    assert held["low"].tolist() == [h.forecast.low for h in asked.held]
    asked_for = numbers[numbers["part"] == "forecast"]
    assert asked_for["high"].tolist() == [f.high for f in asked.forecasts]


def test_laws_stand_by_their_criterion_with_the_forecast_of_the_first_target(asked):
    numbers = TABLE_FIGURES["table_laws"](asked).numbers
    assert numbers["delta_aicc"].iloc[0] == 0 and numbers["delta_aicc"].is_monotonic_increasing
    assert numbers["weight"].sum() == pytest.approx(1)
    row = numbers[numbers["law"] == asked.selected].iloc[0]
    assert row["forecast"] == asked.forecasts[0].laws[asked.selected].value


def test_a_table_too_small_for_a_criterion_has_no_figure_of_laws():
    n_params, n_frames = (a[:6] for a in lattice(3))
    fits = fit_points_of(
        table(n_params, n_frames, LAWS["n+d"].predict(TRUE, n_params, n_frames)), laws=["n+d"], effort=QUICK
    )
    assert isinstance(TABLE_FIGURES["table_laws"](fits), NotDrawn)


def test_a_dollar_in_the_name_of_a_column_begins_no_formula():
    n_params, n_frames = lattice()
    loss = noisy(LAWS["n+d+e"].predict(TRUE, n_params, n_frames))
    found = table(n_params, n_frames, loss, columns=Columns("N $a", "D_$^{", "l$oss"))
    fits = fit_points_of(found, laws=["n+d+e"], effort=QUICK)
    for draw in TABLE_FIGURES.values():
        draw(fits).figure.draw_without_rendering()
    assert plain_text("a\n$b") == r"a \$b"


# ------------------------------------------------------------------------------------------ training steps


@pytest.fixture(scope="module")
def steps():
    return steps_asked()


@pytest.fixture(scope="module", params=[(1e5, 1e5, 1e5), (1e4, 1e5, 1e6)])
def unasked(request):
    return of_steps(ends=request.param)


@pytest.mark.parametrize("name", STEP_FIGURES)
def test_a_figure_of_a_table_of_steps_has_a_standard_width_labels_and_a_caption(name, unasked):
    drawing = STEP_FIGURES[name](unasked)
    assert drawing.figure.get_figwidth() in (COLUMN, PAGE)
    assert all(axes.get_xlabel() for axes in drawing.figure.axes)
    assert drawing.caption.endswith(".") and "nan" not in drawing.caption
    assert drawing.numbers["part"].notna().all()
    drawing.figure.draw_without_rendering()


def test_every_figure_of_a_table_of_steps_is_written_and_none_of_another_sort_stays(steps, tmp_path):
    figures.draw_table(fitted(), tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    figures.draw_table(steps, tmp_path)
    names = {f"{n}.{s}" for n in STEP_FIGURES for s in ("pdf", "svg", "png", "csv", "txt")}
    assert {p.name for p in tmp_path.iterdir()} == names | {"not_drawn.json", "notes.txt"}
    residuals = pd.read_csv(tmp_path / "table_residuals.csv")
    assert residuals["steps"].dropna().tolist() == pytest.approx(steps.table.points.steps.tolist())


def test_the_loss_against_steps_has_the_law_of_every_n_and_d_and_the_runs_left_out(steps):
    numbers = STEP_FIGURES["table_steps"](steps).numbers
    law, points = steps.fits[steps.selected], steps.table.points
    assert (numbers["part"] == "point").sum() == len(points)
    curves = numbers[numbers["part"] == "law"]
    assert len(curves.groupby(["n_params", "n_frames"])) == len(
        set(zip(points.n_params, points.n_frames, strict=True))
    )
    wanted = law.predict(*(curves[k].to_numpy() for k in ("n_params", "n_frames", "steps")))
    assert curves["loss"].to_numpy() == pytest.approx(wanted)
    assert curves["steps"].max() == pytest.approx(points.steps.max())
    held = numbers[numbers["part"] == "left out"]
    assert held["loss"].tolist() == [h.loss for h in steps.held]
    assert held["panel"].tolist() == pytest.approx([h.forecast.n_frames for h in steps.held])


def test_the_loss_against_n_and_d_is_that_at_the_last_steps(steps):
    drawing = STEP_FIGURES["table_loss"](steps)
    points, law = steps.table.points, steps.fits[steps.selected]
    last = points.steps == points.steps.max()
    shown = drawing.numbers[(drawing.numbers["part"] == "point") & (drawing.numbers["panel"] == "n_params")]
    assert sorted(shown["loss"]) == pytest.approx(sorted(points.loss[last]))
    curve = drawing.numbers[(drawing.numbers["part"] == "law") & (drawing.numbers["panel"] == "n_frames")]
    wanted = law.predict(curve["level"].to_numpy(), curve["x"].to_numpy(), np.full(len(curve), 1e5))
    assert curve["loss"].to_numpy() == pytest.approx(wanted)
    assert "at the last steps, S = 1e+05" in drawing.caption
    held = drawing.numbers[(drawing.numbers["part"] == "left out") & (drawing.numbers["panel"] == "n_params")]
    assert sorted(held["loss"]) == sorted(
        h.loss for h in steps.held if h.forecast.steps == pytest.approx(1e5)
    )


def test_where_trainings_end_at_different_steps_the_law_is_that_of_each_point():
    fits = of_steps(ends=(1e4, 1e5, 1e6))
    drawing = STEP_FIGURES["table_loss"](fits)
    points, law = fits.table.points, fits.fits[fits.selected]
    pairs = pd.DataFrame({"n": points.n_params, "d": points.n_frames, "s": points.steps, "law": law.fitted})
    last = pairs[pairs["s"] == pairs.groupby(["n", "d"])["s"].transform("max")]
    assert last["s"].nunique() == 3 and len(last) == 12
    shown = drawing.numbers[(drawing.numbers["part"] == "law") & (drawing.numbers["panel"] == "n_frames")]
    assert sorted(shown["loss"]) == pytest.approx(sorted(last["law"]))
    assert "S from 1e+04 to 1e+06" in drawing.caption


def test_the_band_of_longer_trainings_ends_in_the_forecasts_asked_for(steps):
    drawing = STEP_FIGURES["table_longer"](steps)
    numbers = drawing.numbers
    band = numbers[(numbers["part"] == "forecast of runs") & (numbers["n_params"] == 1e6)]
    first = steps.forecasts[0]
    assert band["steps"].iloc[-1] == pytest.approx(1e6)
    assert (band["low"].iloc[-1], band["loss"].iloc[-1], band["high"].iloc[-1]) == pytest.approx(
        (first.low, first.value, first.high)
    )
    assert (band["low"] < band["loss"]).all() and (band["loss"] < band["high"]).all()
    diamonds = numbers[numbers["part"] == "forecast"]
    assert sorted(diamonds["high"]) == sorted(f.high for f in steps.forecasts)
    assert len(drawing.figure.axes) == 2
    assert "No run of the table has N = 1e+06, D = 1e+04" in drawing.caption


def test_without_a_target_the_band_is_of_the_largest_n_d_and_ten_times_the_steps():
    numbers = STEP_FIGURES["table_longer"](of_steps()).numbers
    band = numbers[numbers["part"] == "forecast of runs"]
    assert band["steps"].iloc[-1] == pytest.approx(1e6)
    assert set(band["n_params"]) == {3e5} and band["n_frames"].iloc[0] == pytest.approx(5e3)


def test_parity_holds_every_point_and_the_runs_left_out_with_their_intervals(steps):
    numbers = STEP_FIGURES["table_parity"](steps).numbers
    law, points = steps.fits[steps.selected], steps.table.points
    shown = numbers[numbers["part"] == "point"]
    assert sorted(shown["measured"]) == pytest.approx(sorted(points.loss))
    assert sorted(shown["law"]) == pytest.approx(sorted(law.fitted))
    held = numbers[numbers["part"] == "left out"]
    assert held["measured"].tolist() == [h.loss for h in steps.held]
    assert held["low"].tolist() == [h.forecast.low for h in steps.held]


def test_a_bend_along_the_steps_is_a_misfit_with_its_place():
    assert not of_steps().misfit.found
    bent = of_steps(bend=0.05)
    assert bent.misfit.found
    assert bent.misfit.edges[0].variable == "S"
    assert "at the largest S" in STEP_FIGURES["table_residuals"](bent).caption


# ---------------------------------------------------------------------------------------------------- groups


@pytest.mark.parametrize("against", [None, "lmax"])
def test_exponents_of_groups_are_drawn_with_their_intervals(against):
    columns = Columns("N", "D", "loss", by="model", against=against)
    tables = {
        f"m{k}": group(0.3 + 0.1 * k, k, columns=columns, against=None if against is None else float(k))
        for k in range(3)
    }
    found = fit_groups(tables, laws=["n+d"], effort=QUICK, n_simulations=9)
    drawing = groups_figure.draw(found)
    numbers = drawing.numbers[drawing.numbers["part"] == "exponent"]
    assert numbers["value"].tolist() == [e.value for e in found.exponents]
    assert [a.get_xlabel() for a in drawing.figure.axes] == (
        ["exponent α", "exponent β"] if against is None else ["lmax", "lmax"]
    )
    assert ("line" in set(drawing.numbers["part"])) == (against is not None)


STRANGE = ["../etc", "a/b: <x>", "CON", ".", "", "étoile $x$", "x" * 300, "日本"]


def test_every_group_has_its_own_figures_in_a_folder_of_a_plain_name(tmp_path):
    columns = Columns("N", "D", "loss", by="m$odel")
    tables = {name: group(0.45, k, columns=columns) for k, name in enumerate(STRANGE[:2])}
    two = fit_groups(tables, laws=["n+d"], effort=QUICK, n_simulations=9)
    many = group_folders(replace(two, groups=dict.fromkeys(STRANGE, two.groups["../etc"])))
    assert list(many) == STRANGE and len(set(many.values())) == len(STRANGE)
    assert list(many.values())[:6] == [
        *("groups/1-etc", "groups/2-a-b-x", "groups/3-CON", "groups/4", "groups/5", "groups/6-etoile-x")
    ]
    assert all(len(place) < 60 for place in many.values())
    old = tmp_path / "groups" / "7-old"
    old.mkdir(parents=True)
    (old / "table_loss.png").write_bytes(b"old")
    (tmp_path / "groups" / "mine").mkdir()
    (tmp_path / "groups" / "mine" / "notes.txt").write_text("")
    figures.draw_groups(two, tmp_path)
    assert {p.name for p in (tmp_path / "groups").iterdir()} == {"1-etc", "2-a-b-x", "mine"}
    for name, place in group_folders(two).items():
        assert {p.stem for p in (tmp_path / place).glob("*.png")} == set(TABLE_FIGURES)
        numbers = pd.read_csv(tmp_path / place / "table_residuals.csv")
        measured = numbers.loc[numbers["part"] == "point", "measured"].to_numpy()
        assert measured == pytest.approx(two.groups[name].table.points.loss, rel=1e-8)
        assert (tmp_path / place / "table_loss.txt").read_text().startswith(f"m$odel {name}: The loss")
