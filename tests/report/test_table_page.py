"""What `sapis fit TABLE --out` writes: complete, self-contained, escaped; which folders it leaves alone."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from synthetic_tables import (
    QUICK,
    TRUE,
    fitted,
    group,
    lattice,
    noisy,
    of_compute,
    steps_asked,
    with_questions,
)
from typer.testing import CliRunner

from sapis_lab.analysis.laws import LAWS
from sapis_lab.analysis.table_fit import Questions, table_json
from sapis_lab.analysis.table_groups import fit_groups
from sapis_lab.cli import app
from sapis_lab.config import ConfigError
from sapis_lab.report.table_folder import check_out, write_groups_folder, write_table_folder
from sapis_lab.report.table_page import write_table_page

TABLE = {"fit.json", "tables", "figures", "report.html"}


class Page(HTMLParser):
    """Collects tags with their attributes, and which stay open."""

    VOID = {"meta", "img", "br"}

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def asked():
    return with_questions()


@pytest.fixture(scope="module")
def folder(asked, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fits") / "new" / "runs"
    write_table_folder(asked, folder)
    return folder


def names(folder):
    return {p.name for p in folder.iterdir()}


def self_contained(text):
    page = Page(text)
    assert page.open == []
    sources = [a.get("src") or a.get("href") for _, a in page.tags if a.get("src") or a.get("href")]
    assert all(s.startswith("data:image/png;base64,") for s in sources)
    assert "://" not in re.sub(r"data:image/png;base64,[^\"]*", "", text)
    return page


def test_the_folder_holds_numbers_tables_figures_and_the_page(asked, folder):
    assert names(folder) == TABLE | {"forecast.csv", "held_out.csv"}
    assert names(folder / "tables") == {"laws.csv", "laws.tex"}
    assert json.loads((folder / "fit.json").read_text()) == json.loads(json.dumps(table_json(asked)))


def test_the_page_is_one_file_with_every_figure_and_answer(asked, folder):
    page = self_contained((folder / "report.html").read_text())
    assert len([t for t, _ in page.tags if t == "img"]) == 4
    words = " ".join(page.text.split())
    for text in (
        "Chosen: n+d+e",
        "Laws side by side",
        "Forecasts",
        "Runs that the fit has not seen",
        "nd>4e18",
    ):
        assert text in words
    assert f"{asked.forecasts[0].value:.5g}" in words and f"{asked.held[0].loss:.5g}" in words


def test_the_tables_hold_the_numbers_of_the_fit(asked, folder):
    laws = pd.read_csv(folder / "tables" / "laws.csv").set_index("law")
    assert laws.loc["n+d+e", "alpha"] == pytest.approx(asked.fits["n+d+e"].params["alpha"])
    assert laws.loc["n+d+e", "alpha_low"] == pytest.approx(asked.laws["n+d+e"].intervals["alpha"][0])
    forecast = pd.read_csv(folder / "forecast.csv")
    assert forecast[forecast["law"] == "average"]["value"].tolist() == pytest.approx(
        [f.value for f in asked.forecasts]
    )
    held = pd.read_csv(folder / "held_out.csv")
    assert held["inside"].tolist() == [h.inside for h in asked.held]
    tex = (folder / "tables" / "laws.tex").read_text()
    assert r"\toprule" in tex and "n+d+e*" in tex


def test_a_page_of_compute_speaks_of_compute(tmp_path):
    write_table_folder(of_compute(), tmp_path / "c")
    page = self_contained((tmp_path / "c" / "report.html").read_text())
    assert "distinct C" in page.text and "distinct (N, D)" not in page.text
    assert list(pd.read_csv(tmp_path / "c" / "forecast.csv"))[:2] == ["c", "law"]


@pytest.mark.long
def test_groups_have_their_page_and_an_answer_of_another_sort_leaves_nothing(asked, tmp_path):
    folder = tmp_path / "out"
    write_table_folder(asked, folder)
    found = fit_groups(
        {"<b>one</b>": group(0.4, 0), "=two": group(0.5, 1)}, laws=["n+d"], effort=QUICK, n_simulations=9
    )
    check_out(folder)
    write_groups_folder(found, folder)
    assert names(folder) == TABLE
    assert list(json.loads((folder / "fit.json").read_text())["groups"]) == ["<b>one</b>", "=two"]
    assert {p.stem for p in (folder / "figures").iterdir()} == {"group_exponents", "not_drawn", "groups"}
    page = self_contained((folder / "report.html").read_text())
    assert "<b>one</b>" in page.text and "One exponent for all groups?" in page.text
    assert len([t for t, _ in page.tags if t == "img"]) == 1 + 2 * 4
    assert [a for t, a in page.tags if t == "details"] == [{"open": None}] * 2
    assert "figures/groups/2-two/" in page.text and "=two: n+d, 25 points" in page.text
    laws = pd.read_csv(folder / "tables" / "laws.csv")
    assert laws["group"].tolist() == ["<b>one</b>", "'=two"]
    check_out(folder)
    write_table_folder(asked, folder)
    assert not list((folder / "figures").glob("group*"))


@pytest.mark.long
def test_a_page_of_many_groups_opens_with_none_and_holds_the_figures_of_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr("sapis_lab.report.table_page.OPEN", 1)
    monkeypatch.setattr("sapis_lab.report.table_page.MOST_DRAWN", 1)
    found = fit_groups(
        {"one": group(0.4, 0), "two": group(0.5, 1)}, laws=["n+d"], effort=QUICK, n_simulations=9
    )
    told = []
    write_groups_folder(found, tmp_path / "out", told=told.append)
    assert told == ["one: figures", "two: figures"]
    page = self_contained((tmp_path / "out" / "report.html").read_text())
    assert [a for t, a in page.tags if t == "details"] == [{}, {}]
    assert len([t for t, _ in page.tags if t == "img"]) == 1 + 4
    assert (tmp_path / "out" / "figures" / "groups" / "2-two" / "table_loss.png").exists()


def test_a_page_of_steps_has_its_figures_and_the_steps_of_every_run(tmp_path):
    fits = steps_asked()
    write_table_folder(fits, tmp_path)
    page = self_contained((tmp_path / "report.html").read_text())
    assert len([t for t, _ in page.tags if t == "img"]) == 6
    words = " ".join(page.text.split())
    assert "distinct (N, D, S)" in words and "σ" in words and "NDSlawweightforecast" in words
    forecast = pd.read_csv(tmp_path / "forecast.csv")
    average = forecast[forecast["law"] == "average"]
    assert average["steps"].tolist() == [1e6, 1e5, 1e6]
    assert average["beyond"].tolist() == pytest.approx(
        [20.0 * 1e5 / 64633, 20.0 * 1e5 / 64633, 10.0], rel=0.5
    )
    held = pd.read_csv(tmp_path / "held_out.csv")
    assert held["steps"].tolist() == pytest.approx([h.forecast.steps for h in fits.held])
    laws = pd.read_csv(tmp_path / "tables" / "laws.csv").set_index("law")
    assert laws.loc["n+d+s", "sigma"] == pytest.approx(fits.fits["n+d+s"].params["sigma"])
    assert r"$\sigma$" in (tmp_path / "tables" / "laws.tex").read_text()


def test_a_run_beyond_the_points_in_one_size_alone_is_beyond_on_every_page(tmp_path):
    fits = fitted(questions=Questions(((1e12, 1e8),)))
    write_table_folder(fits, tmp_path)
    assert pd.read_csv(tmp_path / "forecast.csv")["beyond"].iloc[0] == pytest.approx(1000.0)
    assert "1e+03 × N" in Page((tmp_path / "report.html").read_text()).text


# ------------------------------------------------------------------------------- folders that are left alone


def test_an_answer_is_written_again_and_a_new_or_empty_folder_taken(folder, tmp_path):
    for place in (folder, tmp_path, tmp_path / "a" / "b"):
        check_out(place)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"notes.txt": ""}, "holds notes.txt, which"),
        ({"report.html": "<html>"}, "holds report.html, which"),
        ({"fit.json": '{"models": {}, "schema": 1, "file": "", "columns": {}}'}, "holds fit.json, which"),
        ({"fit.json": '{"schema": 1}'}, "holds fit.json, which"),
        ({"fit.json": '{"schema": 1, "file": "", "columns": {}}', "runs.csv": ""}, "holds runs.csv, which"),
        ({"a": "", "b": "", "c": "", "d": ""}, "holds a, b, c and more, which"),
    ],
)
def test_a_folder_that_holds_anything_else_is_refused(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        check_out(tmp_path)
    assert names(tmp_path) == set(files)


def test_a_damaged_answer_is_refused_by_its_name(tmp_path):
    (tmp_path / "fit.json").write_text("{")
    with pytest.raises(ConfigError, match="fit.json"):
        check_out(tmp_path)


def test_a_file_is_no_folder_for_an_answer(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="wanted a folder, got a file"):
        check_out(tmp_path / "file")
    with pytest.raises(ConfigError, match="file is no folder, nothing can lie in it"):
        check_out(tmp_path / "file" / "new")


def test_the_command_writes_the_folder_and_refuses_another_before_it_fits(tmp_path, monkeypatch):
    n_params, n_frames = lattice(4)
    loss = noisy(LAWS["n+d+e"].predict(TRUE, n_params, n_frames))
    path = tmp_path / "runs.csv"
    pd.DataFrame({"N": n_params, "D": n_frames, "loss": loss}).to_csv(path, index=False)
    words = ["fit", str(path), "--n", "N", "--d", "D", "--loss", "loss", "--law", "n+d,n+d+e"]
    words += ["--bootstrap", "0", "--calibrate", "0", "--out"]
    result = CliRunner().invoke(app, [*words, str(tmp_path / "out")], catch_exceptions=False)
    assert result.exit_code == 0 and f"report  {tmp_path / 'out' / 'report.html'}" in result.output
    assert names(tmp_path / "out") == TABLE
    monkeypatch.setattr("sapis_lab.analysis.table_fit.fit_table", lambda *a, **k: pytest.fail("fitted"))
    with pytest.raises(ConfigError, match="holds out, runs.csv, which"):
        CliRunner().invoke(app, [*words, str(tmp_path)], catch_exceptions=False)


def test_text_of_a_table_is_escaped(tmp_path):
    found = fitted()
    table = replace(found.table, path=Path("<script>alert(1)</script>.csv"))
    text = write_table_page(replace(found, table=table), tmp_path).read_text()
    assert "<script>alert" not in text and "&lt;script&gt;alert(1)" in text
