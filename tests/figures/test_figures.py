"""Every figure: five files, the numbers that were plotted, the same bytes each time, and a reason where a
study cannot support it."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from synthetic_runs import runs_table

from sapis_lab import figures
from sapis_lab.analysis import analyse
from sapis_lab.figures._style import COLUMN, FAMILY, PAGE, looks, number_label
from sapis_lab.figures.accuracy_per_cost import frontier

FAILED = "transformer-n1.0e5-d50-s0"


@pytest.fixture(scope="module")
def study():
    return analyse(runs_table(failed=(FAILED,)), n_bootstrap=100)


@pytest.fixture(scope="module")
def at_epochs():
    """A study that supports every kind of figure: a fixed number of epochs, an evaluation, and a history of
    the adaptive scaler."""
    lattice = {"n_params": (1e3, 3e3, 1e4, 3e4, 1e5), "n_frames": (50, 100, 200, 400, 800)}
    runs = runs_table(models=("geat-l1", "geat-l2"), epochs=20, noise=0.02, **lattice)
    runs["dynamics_time_to_failure"] = 1 / runs["val_force_rmse"]
    runs["dynamics_temperature"] = 300 + runs["val_force_rmse"]  # neither good nor bad
    runs["baselines_test_force_mae_of_mean"] = runs["val_force_rmse"]
    return replace(analyse(runs, n_bootstrap=100), history=history())


def history():
    """Four steps of an adaptive scaler: two of the seed lattice, two decided on."""
    steps = pd.DataFrame(
        {"step": [0, 0, 1, 2], "action": ["seed", "seed", "grow", "label"], "n_params": [1e3, 3e3, 6e3, 6e3]}
    )
    steps["n_frames"], steps["seed"], steps["flops"] = [50, 50, 50, 100], 0, [1e9, 3e9, 6e9, 1.2e10]
    steps["flops_total"], steps["measured"] = steps["flops"].cumsum(), [0.3, 0.25, 0.21, 0.17]
    steps["predicted"], steps["predicted_low"], steps["predicted_high"] = (
        [np.nan, np.nan, 0.2, 0.18],
        [np.nan] * 2 + [0.19, 0.175],
        [
            np.nan,
            np.nan,
            0.22,
            0.185,
        ],
    )
    return steps.assign(reason="because")


def plotted(figure: Figure) -> np.ndarray:
    """All y values of all lines of a figure."""
    return np.concatenate(
        [np.asarray(line.get_ydata(), float) for axes in figure.axes for line in axes.lines]
    )


@pytest.mark.parametrize("kind", figures.kinds())
def test_a_figure_writes_its_files_with_the_numbers_beside(kind, at_epochs, tmp_path):
    drawing = figures.draw(kind, at_epochs)
    drawing.figure.set_layout_engine("none")  # placing labels is half the time, and no part of this claim
    paths = figures.save(drawing, tmp_path, name=kind)
    assert {p.name for p in paths} == {f"{kind}.{s}" for s in ("pdf", "svg", "png", "csv", "txt")}
    assert all(p.stat().st_size > 0 for p in paths)
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / f"{kind}.csv"),
        drawing.numbers.reset_index(drop=True),
        check_dtype=False,
        rtol=1e-9,
    )


@pytest.mark.parametrize("kind", figures.kinds())
def test_a_figure_has_a_standard_width_axes_with_labels_and_a_caption(kind, at_epochs):
    drawing = figures.draw(kind, at_epochs)
    assert drawing.figure.get_figwidth() in (COLUMN, PAGE)
    texts = [axes.get_xlabel() for axes in drawing.figure.axes] + [drawing.figure.get_supxlabel()]
    assert any(texts)
    assert len(drawing.numbers) > 0 and "part" in drawing.numbers
    assert drawing.caption.endswith((".", ")."))
    assert "nan" not in drawing.caption


def test_fonts_are_embedded(study, tmp_path):
    pdf, svg, *_ = figures.save(figures.draw("model_comparison", study), tmp_path, name="x")
    assert b"/FontFile2" in pdf.read_bytes()
    # outlines, not names of fonts
    assert "<text" not in svg.read_text() and "font-family" not in svg.read_text()


@pytest.mark.parametrize("kind", ["model_comparison"])
def test_figures_have_the_same_bytes_every_time(kind, study, tmp_path):
    def digests(folder):
        return [
            hashlib.sha256(p.read_bytes()).hexdigest()
            for p in figures.save(figures.draw(kind, study), folder, name=kind)
        ]

    assert digests(tmp_path / "a") == digests(tmp_path / "b")


@pytest.mark.parametrize("kind", ["loss_vs_size", "loss_vs_data"])
def test_the_csv_holds_every_plotted_loss_in_display_units(kind, study):
    drawing = figures.draw(kind, study)
    assert np.allclose(np.sort(plotted(drawing.figure)), np.sort(drawing.numbers["loss"]))
    points = drawing.numbers[drawing.numbers["part"] == "point"]["loss"]
    assert np.allclose(np.sort(points), np.sort(1000 * study.done["val_force_rmse"]))


def test_the_csv_holds_every_plotted_point_of_the_cost_figure(study):
    drawing = figures.draw("accuracy_per_cost", study)
    assert set(np.round(plotted(drawing.figure), 9)) == set(np.round(drawing.numbers["loss"], 9))


def test_bands_enclose_their_curves(study):
    numbers = figures.draw("loss_vs_size", study).numbers
    law = numbers[numbers["part"] == "law"]
    assert (law["low"] <= law["high"]).all()
    assert ((law["low"] <= law["loss"] * 1.02) & (law["loss"] <= law["high"] * 1.02)).mean() > 0.95


def test_a_law_with_unidentified_terms_is_dashed_and_the_caption_says_so():
    few = runs_table(models=("geat-l2",), n_params=(3e3, 1e4), n_frames=(50, 100))
    drawing = figures.draw("loss_vs_size", analyse(few, n_bootstrap=100))
    styles = {
        line.get_linestyle()
        for axes in drawing.figure.axes
        for line in axes.lines
        if len(line.get_xdata()) > 10
    }
    assert styles == {"--"}
    assert "do not identify (geat-l2)" in drawing.caption


def test_captions_count_the_points_that_failed(study):
    assert "1 of 64 points failed" in figures.draw("loss_vs_data", study).caption


@pytest.fixture(scope="module", params=["nothing", "one point", "one model", "one axis"])
def thin_study(request):
    runs = runs_table(models=("geat-l2", "transformer"), n_params=(3e3, 1e4), n_frames=(50, 100, 200))
    chosen = {
        "nothing": runs.iloc[:0],
        "one point": runs.iloc[:1],
        "one model": runs[runs["model"] == "geat-l2"],
        "one axis": runs[runs["n_frames"] == 50],
    }[request.param]
    return analyse(chosen, n_bootstrap=100, laws=("n+d",))


@pytest.mark.parametrize("kind", figures.kinds())
def test_thin_studies_are_drawn_or_say_why_not(kind, thin_study):
    drawing = figures.draw(kind, thin_study)
    if isinstance(drawing, figures.NotDrawn):
        assert drawing.reason and not drawing.reason.endswith(".")
        return
    drawing.figure.set_layout_engine("none")
    drawing.figure.draw_without_rendering()
    assert drawing.caption


@pytest.mark.parametrize("kind", ["isoflop", "compute_frontier"])
def test_no_split_of_a_budget_is_drawn_at_fixed_steps(kind, study):
    drawing = figures.draw(kind, study)
    assert isinstance(drawing, figures.NotDrawn) and "fixed number of steps" in drawing.reason


def test_figures_that_cannot_be_drawn_leave_a_reason_and_no_old_file(study, tmp_path, monkeypatch):
    (tmp_path / "isoflop.png").write_bytes(b"old")
    monkeypatch.setattr(figures, "kinds", lambda: ("isoflop", "model_comparison"))
    names = {p.name for p in figures.draw_all(study, tmp_path)}
    assert names == {
        "not_drawn.json",
        *(f"model_comparison.{s}" for s in ("pdf", "svg", "png", "csv", "txt")),
    }
    assert not (tmp_path / "isoflop.png").exists()
    assert list(json.loads((tmp_path / "not_drawn.json").read_text())) == ["isoflop"]


def test_isoflop_lines_hold_their_budget_and_the_star_is_their_lowest_point(at_epochs):
    numbers = figures.draw("isoflop", at_epochs).numbers
    for name, model in at_epochs.models.items():
        mine = numbers[numbers["model"] == name]
        law = mine[mine["part"] == "law"]
        assert np.allclose(model.allocation.cost.of(law["n_params"], law["n_frames"]), law["budget"])
        for budget, line in law.groupby("budget"):
            best = mine[(mine["part"] == "optimum") & (mine["budget"] == budget)].iloc[0]
            assert best["loss"] <= line["loss"].min() * (1 + 1e-9)
            assert best["n_params_low"] <= best["n_params"] <= best["n_params_high"]


def test_parts_of_the_loss_add_up_and_the_map_is_hatched_only_for_a_third_term(at_epochs):
    numbers = figures.draw("limiting_term", at_epochs).numbers
    law = numbers[numbers["part"] == "law"]
    assert np.allclose(law[[c for c in law if c.startswith("part_")]].sum(axis=1), 1.0)


def test_profiles_are_zero_at_the_best_value_and_their_ends_stand_at_the_cut(at_epochs):
    numbers = figures.draw("profiles", at_epochs).numbers
    rows = numbers[
        (numbers["law"] == "n+d") & (numbers["exponent"] == "alpha") & (numbers["model"] == "geat-l2")
    ]
    result = at_epochs.models["geat-l2"].laws["n+d"]
    curve, ends = rows[rows["part"] == "profile"], rows[rows["part"] == "end"]
    assert curve.loc[curve["statistic"].idxmin(), "value"] == pytest.approx(result.fit.params["alpha"])
    assert np.allclose(ends["value"], result.intervals["alpha"])
    assert np.allclose(
        np.interp(ends["value"], curve["value"], curve["statistic"]), ends["statistic"], rtol=0.05
    )


def test_the_history_counts_what_was_foreseen(at_epochs):
    drawing = figures.draw("adaptive_history", at_epochs)
    assert "1 of 2 measurements lie in their interval" in drawing.caption
    assert "Best: 170 meV/Å at N = 6000, D = 100" in drawing.caption
    nothing = figures.draw("adaptive_history", replace(at_epochs, history=None))
    assert isinstance(nothing, figures.NotDrawn) and "has not run" in nothing.reason


def test_accuracy_per_flop_is_the_inverse_of_error_times_cost(at_epochs):
    numbers = figures.draw("accuracy_per_flop", at_epochs).numbers
    train = numbers[numbers["cost"] == "flops_train"]
    assert np.allclose(
        np.sort(train["accuracy_per_flop"]),
        np.sort(1 / (at_epochs.done["val_energy_mae"] * at_epochs.done["flops_train"])),
    )


def test_a_family_keeps_its_colour_whatever_else_is_drawn():
    runs = runs_table()
    together, alone = looks(runs), looks(runs[runs["family"] == "transformer"])
    assert together["transformer"] == alone["transformer"]
    assert len({look.marker for look in together.values()}) == len(together)
    assert len({markers[min(2, len(markers) - 1)] for _, markers, _ in FAMILY.values()}) == len(FAMILY)
    assert len({color for color, _, _ in FAMILY.values()}) == len(FAMILY)


def test_a_family_without_a_colour_of_its_own_still_gets_one():
    runs = runs_table(models=("geat-l2", "transformer"))
    runs["family"] = runs["family"].replace("transformer", "equiformer")
    assert looks(runs)["transformer"].color != looks(runs)["geat-l2"].color


def test_the_frontier_falls_and_nothing_cheaper_is_better():
    generator = np.random.default_rng(0)
    cost, loss = generator.uniform(1, 10, 40), generator.uniform(1, 10, 40)
    front = frontier(cost, loss)
    assert (np.diff(cost[front]) >= 0).all()
    assert (np.diff(loss[front]) < 0).all()
    assert all((loss[cost <= c] >= l).all() for c, l in zip(cost[front], loss[front], strict=True))


def test_an_unknown_figure_is_refused_with_the_known_ones(study):
    with pytest.raises(ValueError, match="loss_vs_size"):
        figures.draw("loss", study)


def test_numbers_on_axes_are_short():
    assert [number_label(v) for v in (50, 3000, 1e4, 3e4)] == ["50", "3000", "$10^{4}$", r"$3{\times}10^{4}$"]


def test_what_was_evaluated_is_drawn_against_the_error_of_the_law(at_epochs, study):
    drawing = figures.draw("evaluated", at_epochs)
    assert set(drawing.numbers["part"]) == {"dynamics_time_to_failure"}
    runs = at_epochs.done.set_index("id").loc[drawing.numbers["id"]]
    np.testing.assert_allclose(drawing.numbers["value"], runs["dynamics_time_to_failure"])
    np.testing.assert_allclose(drawing.numbers["error"], 1e3 * runs["val_force_rmse"])
    assert "no evaluation has measured" in figures.draw("evaluated", study).reason
