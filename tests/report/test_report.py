"""The report: complete, self-contained, escaped, and honest about what failed."""

import json
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
import yaml
from synthetic_runs import runs_table

from sapis_lab.analysis import analyse, write_fit_json
from sapis_lab.config import ConfigError
from sapis_lab.quantities import quantity
from sapis_lab.report import analyse_folder, analyse_options, write_report
from sapis_lab.report.folder import read_history
from sapis_lab.report.page import budget_rule, commits, duration, flat, forecast_rows, n_planned, number

FAILED = "transformer-n1.0e4-d50-s0"
STUDY = {
    "name": "ethanol",
    "question": "Does symmetry pay <for> ethanol?",
    "train": {"steps": 2000},
    "law": {"quantity": "val_force_rmse", "laws": ["n+d", "n+d+nd"], "bootstrap": 100, "robust": "auto"},
}


def report_without_figures(runs, folder):
    """The page for a table, without the seconds that drawing takes."""
    runs.to_parquet(folder / "runs.parquet")
    write_fit_json(analyse(runs, n_bootstrap=100), folder / "fit.json")
    return write_report(folder).read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results") / "ethanol"
    folder.mkdir()
    runs_table(models=("geat-l2", "transformer"), n_params=(3e3, 1e4, 3e4), failed=(FAILED,)).to_parquet(
        folder / "runs.parquet"
    )
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    (folder / "provenance.json").write_text(
        json.dumps({"commit": "0123abc", "versions": {"numpy": "2.4"}, "dirty": False})
    )
    analyse_folder(folder)
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "report.html").read_text()


class Page(HTMLParser):
    """Collects tags with their attributes and the visible text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_the_folder_holds_fit_figures_tables_and_report(folder):
    written = {p.name for p in folder.iterdir()}
    assert {"fit.json", "figures", "tables", "report.html"} <= written
    assert {p.name for p in (folder / "tables").iterdir()} == {
        "points.tex",
        "laws.tex",
        "comparison.tex",
        "equal_error.tex",
    }
    assert not list(folder.rglob("*.tmp"))


def test_the_report_needs_no_network(page):
    for tag, attributes in Page(page).tags:
        assert tag not in ("link", "iframe", "object"), tag
        for key in ("src", "href", "srcset", "action"):
            assert attributes.get(key, "data:").startswith("data:"), (tag, key)
    assert not re.search(r"https?://|@import|url\(", page)


def test_every_figure_is_there_with_an_alternative_text(folder, page):
    images = [attributes for tag, attributes in Page(page).tags if tag == "img"]
    assert len(images) == len(list((folder / "figures").glob("*.png")))
    assert all(len(a["alt"]) > 20 for a in images)


def test_failed_points_are_listed_with_their_reason(page):
    text = Page(page).text
    assert FAILED in text
    assert "loss became NaN at step 120 <learning_rate too high>" in text
    assert "<learning_rate" not in page


def test_question_verdict_and_provenance_are_on_the_page_escaped(page):
    text = Page(page).text
    assert "Does symmetry pay <for> ethanol?" in text
    assert "<for>" not in page
    assert "that of transformer is" in text
    assert "0123abc" in text
    assert "versions.numpy" in text
    assert "every point is equally trained" in text
    assert "make study NAME=ethanol" in text


def test_nothing_of_a_name_a_question_or_a_failure_is_obeyed_by_a_browser(tmp_path):
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'\u202e\x1b[2J"
    runs = runs_table(models=("geat-l2", "transformer"), n_params=(3e3, 1e4, 3e4), failed=(FAILED,))
    runs["failure"] = runs["failure"].where(runs["failure"].isna(), evil)
    runs["model"], runs["id"] = (
        runs["model"].replace("transformer", f"t{evil}"),
        runs["id"].str.replace("transformer", f"t{evil}"),
    )
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY | {"question": evil, "name": evil}))
    (tmp_path / "provenance.json").write_text(json.dumps({evil: evil, "command": evil}))
    page = report_without_figures(runs, tmp_path)
    assert not any("onerror" in attributes for _, attributes in Page(page).tags)
    assert [tag for tag, _ in Page(page).tags].count("script") == 1  # the report's own, which sorts the table
    assert "\u202e" not in page and "\x1b" not in page
    assert Page(page).text.count("<script>alert(1)</script>") > 4


def test_every_point_is_a_row_of_the_sortable_table(page):
    assert all(
        id_ in page for id_ in runs_table(models=("geat-l2", "transformer"), n_params=(3e3, 1e4, 3e4))["id"]
    )


def test_an_unidentified_exponent_shows_no_value(folder, page):
    law = json.loads((folder / "fit.json").read_text())["models"]["geat-l2"]["laws"]["n+d+nd"]
    assert not law["identified"]["nd"]
    assert "not identified" in page
    assert f">{law['params']['gamma']:.2f} [" not in page


def test_a_figure_that_the_points_do_not_support_is_named_with_the_reason(page):
    text = " ".join(Page(page).text.split())
    assert "isoflop: training cost does not grow in proportion to D, as at a fixed number of steps" in text
    assert "No statement: training cost does not grow in proportion to D" in text


def test_the_wider_band_stands_beside_the_law_where_a_floor_is_open(folder, page):
    fits = json.loads((folder / "fit.json").read_text())
    for model in fits["models"].values():
        narrow, wide = model["forecast"]["interval"], model["forecast"]["interval_with_floor"]
        assert model["floor_open"] == (wide is not None)
        if wide:
            assert wide[0] <= narrow[0] and wide[1] >= narrow[1]
            assert f"[{1e3 * wide[0]:.3g}, {1e3 * wide[1]:.3g}]" in page
    assert any(model["floor_open"] for model in fits["models"].values())


def test_a_run_twice_as_large_is_forecast_by_the_law_and_averaged(folder, page):
    fits = json.loads((folder / "fit.json").read_text())
    assert "<h2>Forecast</h2>" in page
    for model in fits["models"].values():
        run = model["run_forecast"]
        law = run["laws"][model["selected"]]
        assert run["n"] == pytest.approx(model["forecast"]["n_params"]) and run["distance"]["nd"] >= 4
        assert run["low"] < run["value"] < run["high"]
        assert law["value"] == pytest.approx(model["forecast"]["loss"])
        for one in (run, law):
            shown = f"{1e3 * one['value']:.3g} [{1e3 * one['low']:.3g}, {1e3 * one['high']:.3g}]"
            assert f"<td>{shown}</td>" in page


def test_a_study_with_too_few_points_has_a_sentence_instead_of_a_forecast(tmp_path):
    few = runs_table(models=("geat-l2",), n_params=(3e3, 1e4), n_frames=(50, 200))
    text = " ".join(Page(report_without_figures(few, tmp_path)).text.split())
    assert "No forecast: 4 points leave no law a degree of freedom to know the noise from; a fore" in text
    one = few.head(1)
    text = " ".join(Page(report_without_figures(one, tmp_path)).text.split())
    assert "No forecast: no law could be fitted to 1 point: needs at least 2 distinct N" in text
    none = one.assign(status="failed", failure="stopped")
    text = " ".join(Page(report_without_figures(none, tmp_path)).text.split())
    assert "No forecast: no point has finished." in text


def test_a_fit_from_before_forecasts_has_a_page_all_the_same(folder):
    fits = json.loads((folder / "fit.json").read_text())
    for model in fits["models"].values():
        del model["run_forecast"]
    rows = forecast_rows(fits, quantity(fits["quantity"]))
    assert {row["why_not"] for row in rows} == {"this fit is older than forecasts"}


def test_what_equal_error_costs_is_on_the_page(folder, page):
    found = json.loads((folder / "fit.json").read_text())["equal_error"]
    train = next(e for e in found if e["cost"] == "flops_train" and e["quantity"] == "val_force_rmse")
    text = " ".join(Page(page).text.split())
    assert "What equal error costs" in text
    if train["middle"]:
        assert f"{train['middle'][1]:.2f} [{train['middle'][2]:.2f}" in text
    else:
        assert (train["why_not"] or "the smallest size or data of the lattice decides") in text


def test_one_reason_for_all_is_said_once(page):
    text = " ".join(Page(page).text.split())
    assert "all modelsNo statement: training cost does not grow" in text
    assert text.count("No statement: training cost does not grow") == 1


def test_a_study_at_fixed_epochs_says_how_to_split_a_budget(tmp_path):
    runs = runs_table(
        models=("geat-l2",),
        epochs=20,
        noise=0.02,
        n_params=(1e3, 3e3, 1e4, 3e4, 1e5),
        n_frames=(50, 100, 200, 400, 800),
    )
    page = report_without_figures(runs, tmp_path)
    best = json.loads((tmp_path / "fit.json").read_text())["models"]["geat-l2"]["optimum"]["budgets"]
    assert len(best) == 2 and best[1]["budget"] == pytest.approx(10 * best[0]["budget"])
    assert "Ten times the largest measured budget is best spent on N = " in page
    assert "(extrapolated)" in page


def test_the_page_fits_a_phone(page):
    """What makes it so: the viewport, figures that scale, and tables that scroll inside their frames."""
    tags = Page(page).tags
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in tags
    assert "figure img { display: block; width: 100%;" in page
    names = [(tag, attributes.get("class", "")) for tag, attributes in tags]
    for k, (tag, _) in enumerate(names):
        if tag == "table":
            assert names[k - 1][0] == "div" and "scroll" in names[k - 1][1]


def test_a_history_of_the_scaler_must_have_its_columns(tmp_path):
    assert read_history(tmp_path / "history.csv") is None
    (tmp_path / "history.csv").write_text("step,action\n0,seed\n")
    with pytest.raises(ValueError, match="no columns n_params, .*reason, got step, action"):
        read_history(tmp_path / "history.csv")


def test_hostile_names_and_failures_are_escaped(tmp_path):
    attack = "<script>alert(1)</script>"
    runs = runs_table(
        models=("geat-l2", "transformer"), n_params=(3e3, 1e4), n_frames=(50, 100), failed=(FAILED,)
    )
    runs.loc[runs["id"] == FAILED, "failure"] = attack
    runs["model"] = runs["model"].replace("transformer", f"x{attack}")
    runs["device"] = attack
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({"name": attack, "question": attack}))
    (tmp_path / "provenance.json").write_text(json.dumps({attack: [attack]}))
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "x.png").write_bytes(b"")
    (tmp_path / "figures" / "x.txt").write_text(f'"{attack}')
    page = report_without_figures(runs, tmp_path)
    assert attack not in page
    assert page.count("<script>") == 1


@pytest.mark.parametrize("keep", [0, 1, 3])
def test_a_report_is_written_for_a_study_that_has_hardly_begun(tmp_path, keep):
    page = report_without_figures(runs_table(models=("geat-l2",)).iloc[:keep], tmp_path)
    assert tmp_path.name in page
    assert "No provenance was recorded" in page


def test_a_report_is_written_when_every_point_failed(tmp_path):
    every = tuple(runs_table(models=("geat-l2",))["id"])
    assert "nothing to conclude" in report_without_figures(
        runs_table(models=("geat-l2",), failed=every), tmp_path
    )


def test_the_report_can_be_rewritten_from_its_files_alone(folder, page):
    write_report(folder)
    assert (folder / "report.html").read_text() == page


def test_missing_inputs_name_the_command_that_makes_them(tmp_path):
    with pytest.raises(ValueError, match="runs.parquet: no such file"):
        analyse_folder(tmp_path)
    runs_table(models=("geat-l2",)).to_parquet(tmp_path / "runs.parquet")
    with pytest.raises(ValueError, match="fit.json: no such file; run `sapis fit"):
        write_report(tmp_path)


def test_options_override_the_study_and_unknown_ones_are_refused(folder):
    assert analyse_options(folder).bootstrap == 100
    assert analyse_options(folder, quantity="test_force_mae").quantity == "test_force_mae"
    with pytest.raises(ConfigError, match="did you mean 'quantity'"):
        analyse_options(folder, quantty="test_force_mae")


def test_the_budget_rule_follows_the_training_settings():
    runs = runs_table(models=("geat-l2",))
    assert budget_rule({"steps": 2000, "epochs": None}, runs).endswith("depends on N alone.")
    assert "below D = 8 also on D" in budget_rule(
        {"steps": 2000}, runs.assign(batch_size=[4] + [8] * (len(runs) - 1))
    )
    assert "N·D" in budget_rule({"epochs": 10}, runs)
    assert budget_rule({}, runs) == ""


def test_the_planned_lattice_is_counted_from_the_study():
    lattice = {"n_params": [1e3, 1e4], "n_frames": [50, 100, 200], "seeds": [0, 1]}
    assert n_planned({"models": [{}, {}], "lattice": lattice}) == 24
    assert n_planned({"models": [{}], "lattice": lattice, "scale": {"budget": 1e9}}) is None
    assert n_planned({}) is None


def test_numbers_read_well():
    assert [number(v) for v in (0.0123456, 1234, 12345.6, 1.42e14, 0, None, float("nan"), "done")] == [
        "0.0123",
        "1234",
        "12346",
        "1.42×10¹⁴",
        "0",
        "–",
        "–",
        "done",
    ]
    assert [duration(v) for v in (30, 600, 36000)] == ["30 s", "10 min", "10 h"]


def test_nested_provenance_becomes_dotted_lines():
    assert flat({"a": {"b": 1, "c": [1, 2]}}) == [("a.b", "1"), ("a.c", "1, 2")]


def test_the_commits_of_the_points_are_listed_where_there_are_several(tmp_path):
    runs = runs_table(models=("geat-l2",))
    assert commits(runs) == commits(runs.assign(commit="0123abc", dirty=False)) == []
    mixed = runs.assign(
        commit=["0123abc"] * 10 + ["4567def"] * 5 + [None],
        dirty=pd.array([False] * 10 + [True] * 5 + [None], "boolean"),
    )
    assert commits(mixed) == [("commits of the points", "0123abc (10), 4567def with uncommitted changes (5)")]
    assert "4567def with uncommitted changes (5)" in report_without_figures(mixed, tmp_path)
