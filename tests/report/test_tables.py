"""LaTeX tables: valid where LaTeX is there to say so, balanced everywhere, and no number that the points do
not support."""

import json
import re
import shutil
import subprocess

import pytest
from synthetic_runs import runs_table

from sapis_lab.analysis import analyse, write_fit_json
from sapis_lab.quantities import quantity
from sapis_lab.report.page import number, run_rows
from sapis_lab.report.tables import latex, write_tables

WIDE = {"n_params": (1e3, 3e3, 1e4, 3e4, 1e5), "n_frames": (50, 100, 200, 400, 800)}


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    runs = runs_table(
        models=("geat-l2", "transformer"),
        epochs=20,
        noise=0.02,
        failed=("transformer-n1.0e4-d50-s0",),
        **WIDE,
    )
    write_fit_json(analyse(runs, n_bootstrap=100), folder / "fit.json")
    fits = json.loads((folder / "fit.json").read_text())
    return fits, {p.stem: p for p in write_tables(fits, runs, folder / "tables")}


def test_every_table_is_there_with_as_many_cells_in_every_row(tables):
    _, paths = tables
    assert set(paths) == {"points", "laws", "comparison", "equal_error", "optimum"}
    for path in paths.values():
        text = path.read_text()
        n_columns = len(re.search(r"begin{(?:tabular|longtable)}{(\w+)}", text)[1])
        rows = [line for line in text.splitlines() if line.endswith(r"\\")]
        for row in rows:
            wide = re.findall(r"multicolumn{(\d+)}", row)
            assert row.replace(r"\&", "").count("&") + 1 + sum(int(w) - 1 for w in wide) == n_columns, row
        assert text.count("{") == text.count("}") and text.count("$") % 2 == 0


def test_any_name_is_printed_as_it_is_and_ends_no_line():
    assert latex("a\n\nb") == "a b"
    assert latex("\\input{/etc/passwd}%$&#") == r"\textbackslash{}input\{/etc/passwd\}\%\$\&\#"
    assert latex("\x1b[2J\u202e") == r"\textbackslash{}x1b[2J\textbackslash{}u202e"


def test_points_that_failed_are_no_rows(tables):
    points = tables[1]["points"].read_text()
    assert points.count("geat-l2 &") == 25 and points.count("transformer &") == 24


def test_the_test_error_over_the_training_error_stands_beside_them_where_points_have_both(tables, tmp_path):
    fits, paths = tables
    assert "training error" not in paths["points"].read_text()
    runs = runs_table(models=("geat-l2", "transformer"), **WIDE)
    runs["train_force_rmse"] = runs["test_force_rmse"] / 1.25
    runs.loc[runs.index[3:], "train_force_rmse"] = float("nan")  # from before they were recorded
    write_tables(fits, runs, tmp_path)
    rows = [line for line in (tmp_path / "points.tex").read_text().splitlines() if line.endswith(r"\\")]
    assert rows[0].endswith(r"& test/training error \\")
    ends = [row.removesuffix(r" \\").rpartition("& ")[2] for row in rows[1:]]
    assert ends[:4] == ["1.25"] * 3 + [latex(number(float("nan")))]
    assert "training error" in run_rows(runs, quantity("val_force_rmse"))["heads"][-1]
    assert run_rows(runs, quantity("val_force_rmse"))["rows"][0]["cells"][-1][0] == "1.25"


def test_a_parameter_that_is_not_identified_is_no_number(tables):
    fits, paths = tables
    rows = [r for r in paths["laws"].read_text().splitlines() if "n+d+nd" in r]
    for row, model in zip(rows, fits["models"].values(), strict=True):
        if not model["laws"]["n+d+nd"]["identified"]["nd"]:
            assert "not identified: [0, " in row
    assert any("not identified" in row for row in rows)


def test_the_chosen_law_is_marked(tables):
    fits, paths = tables
    text = paths["laws"].read_text()
    assert all(f"{name} & {model['selected']}* &" in text for name, model in fits["models"].items())


def test_tables_that_cannot_be_filled_are_removed(tables, tmp_path):
    (tmp_path / "optimum.tex").write_text("old")
    runs = runs_table(models=("geat-l2",), n_params=(3e3, 1e4), n_frames=(50, 100))
    write_fit_json(analyse(runs, n_bootstrap=100), tmp_path / "fit.json")
    names = {p.stem for p in write_tables(json.loads((tmp_path / "fit.json").read_text()), runs, tmp_path)}
    assert names == {"points", "laws"} and not (tmp_path / "optimum.tex").exists()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1.42×10¹⁴", r"$1.42\times10^{14}$"),
        ("2×10⁻³ [0, ≥ 6]", r"$2\times10^{-3}$ [0, $\geq$ 6]"),
        ("a_b & 5 % {x} #1 $", r"a\_b \& 5 \% \{x\} \#1 \$"),
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("meV/Å", r"meV/\AA{}"),
    ],
)
def test_texts_become_latex_that_prints_them(text, wanted):
    assert latex(text) == wanted


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX on this machine")
def test_the_tables_compile(tables, tmp_path):
    inputs = "\n".join(rf"\input{{{path}}}\par" for path in tables[1].values())
    page = (
        r"\documentclass{article}\usepackage{booktabs,longtable}\begin{document}" + inputs + r"\end{document}"
    )
    (tmp_path / "page.tex").write_text(page)
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"],
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
