"""Every figure: four files, the numbers that were plotted, the same bytes each time, and no crash on thin studies."""

import hashlib

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


def plotted(figure: Figure) -> np.ndarray:
    """All y values of all lines of a figure."""
    return np.concatenate([np.asarray(line.get_ydata(), float) for axes in figure.axes for line in axes.lines])


@pytest.mark.parametrize("kind", figures.kinds())
def test_a_figure_writes_its_files_with_the_numbers_beside(kind, study, tmp_path):
    drawing = figures.draw(kind, study)
    drawing.figure.set_layout_engine("none")  # placing labels is half the time, and no part of this claim
    paths = figures.save(drawing, tmp_path, name=kind)
    assert {p.name for p in paths} == {f"{kind}.{s}" for s in ("pdf", "png", "csv", "txt")}
    assert all(p.stat().st_size > 0 for p in paths)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / f"{kind}.csv"), drawing.numbers, check_dtype=False, rtol=1e-12)


@pytest.mark.parametrize("kind", figures.kinds())
def test_a_figure_has_a_standard_width_axes_with_labels_and_a_caption(kind, study):
    drawing = figures.draw(kind, study)
    assert drawing.figure.get_figwidth() in (COLUMN, PAGE)
    texts = [axes.get_xlabel() for axes in drawing.figure.axes] + [drawing.figure.get_supxlabel()]
    assert any(texts)
    assert len(drawing.numbers) > 0
    assert drawing.caption.endswith((".", ")."))


@pytest.mark.parametrize("kind", ["model_comparison"])
def test_figures_have_the_same_bytes_every_time(kind, study, tmp_path):
    def digests(folder):
        return [hashlib.sha256(p.read_bytes()).hexdigest() for p in figures.save(figures.draw(kind, study), folder, name=kind)]

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
    styles = {line.get_linestyle() for axes in drawing.figure.axes for line in axes.lines if len(line.get_xdata()) > 10}
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
    drawing.figure.set_layout_engine("none")
    drawing.figure.draw_without_rendering()
    assert drawing.caption


def test_a_family_keeps_its_colour_whatever_else_is_drawn():
    runs = runs_table()
    together, alone = looks(runs), looks(runs[runs["family"] == "transformer"])
    assert together["transformer"] == alone["transformer"]
    assert len({look.marker for look in together.values()}) == len(together)
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
