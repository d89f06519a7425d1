"""Any table: three formats give the same points, every fault is named, and `sapis fit` writes what its
readers need."""

import json
import os

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from sapis_lab.analysis.forms import FORMS
from sapis_lab.analysis.laws import LAWS, TIED_LAWS, law_named
from sapis_lab.analysis.table import Columns, read_points
from sapis_lab.analysis.table_fit import together
from sapis_lab.cli import app
from sapis_lab.config import ConfigError

TRUTH = {"A": 250.0, "B": 12.0, "C": 300.0, "E": 0.05, "alpha": 0.8, "beta": 0.75, "gamma": 0.6}
COLUMNS = Columns("size", "frames", "rmse")


@pytest.fixture(scope="module")
def frame():
    n, d = (a.ravel() for a in np.meshgrid(3e3 * np.geomspace(1, 300, 4), 50 * np.geomspace(1, 300, 4)))
    loss = LAWS["n+d+e"].predict(TRUTH, n, d) * np.exp(
        0.02 * np.random.default_rng(0).standard_normal(len(n))
    )
    return pd.DataFrame(
        {"size": n, "frames": d, "rmse": loss, "note": "x", "run": np.arange(len(n)) // 2, "w": 2.0}
    )


def written(frame, folder, suffix):
    path = folder / f"runs{suffix}"
    if suffix in (".csv", ".tsv", ".semicolons.csv"):
        frame.to_csv(path, index=False, sep={".tsv": "\t", ".semicolons.csv": ";"}.get(suffix, ","))
    elif suffix == ".json":
        path.write_text(frame.to_json(orient="records", double_precision=15))
    elif suffix == ".parquet":
        frame.to_parquet(path)
    else:
        path.write_text(frame.to_json(orient="records", lines=True, double_precision=15))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".semicolons.csv", ".tsv", ".parquet", ".jsonl", ".json"])
def test_every_format_holds_the_same_points(frame, tmp_path, suffix):
    points = read_points(written(frame, tmp_path, suffix), COLUMNS).points
    for name, values in (("size", points.n_params), ("frames", points.n_frames), ("rmse", points.loss)):
        assert np.allclose(values, frame[name], rtol=1e-13)


@pytest.mark.parametrize(
    ("change", "columns", "message"),
    [
        (
            lambda f: f,
            Columns("sizes", "frames", "rmse"),
            "no column 'sizes' for N.*did you mean 'size'",
        ),
        (
            lambda f: f,
            Columns("size", "note", "rmse"),
            "column 'note', row 1: got 'x', wanted a positive number",
        ),
        (
            lambda f: f.assign(rmse=f["rmse"].where(f.index != 4)),
            COLUMNS,
            "column 'rmse', row 5: got nothing, wanted a positive number",
        ),
        (
            lambda f: f.assign(rmse=f["rmse"].where(f.index != 4, -0.5)),
            COLUMNS,
            "column 'rmse', row 5: got .*-0.5.*, wanted a positive",
        ),
        (
            lambda f: f.assign(size=f["size"].where(f.index != 0, np.inf)),
            COLUMNS,
            "column 'size', row 1: got .*inf",
        ),
        (lambda f: f.iloc[:0], COLUMNS, "the table has no rows"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_fault_is_named_with_file_column_and_row(frame, tmp_path, suffix, change, columns, message):
    path = written(change(frame), tmp_path, suffix)
    with pytest.raises(ValueError, match=message) as error:
        read_points(path, columns)
    assert str(path) in str(error.value)


def test_files_that_are_no_tables_are_named(tmp_path):
    for name, text, message in (
        ("a.txt", "x", "wanted one of .csv"),
        ("a.csv", "", "the file is empty"),
        ("a.jsonl", '{"size": 1}\n{"size": ', "line 2: not JSON"),
        ("b.jsonl", '{"size": 1}\n7\n', "line 2: got int, wanted a JSON object"),
        ("c.json", "[1, 2]\n", "entry 1: got int, wanted a JSON object"),
        ("a.parquet", "text", "not a table in parquet"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=message):
            read_points(tmp_path / name, COLUMNS)
    with pytest.raises(ValueError, match="no such file"):
        read_points(tmp_path / "none.csv", COLUMNS)


@pytest.mark.parametrize("name", ["runs.csv", "runs.parquet", "runs.jsonl", "runs"])
def test_a_pipe_or_a_folder_in_place_of_a_table_is_one_clear_line(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(ConfigError, match="wanted a file, got a pipe"):  # and does not wait for a writer
        read_points(tmp_path / name, COLUMNS)
    (tmp_path / "folder" / name).mkdir(parents=True)
    with pytest.raises(ConfigError, match="wanted a file, got a folder"):
        read_points(tmp_path / "folder" / name, COLUMNS)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", b"size,frames,rmse\n1,2,\xff\n", "row 1: got 'ÿ', wanted a positive number"),
        ("a.jsonl", b'{"size": 1, "note": "\xff"}\n', "not a table in JSON lines: 'utf-8' codec"),
        ("a.json", b"[" * 200_000, "nested too deeply"),
        ("a.jsonl", b'{"size": ' + b"9" * 5000 + b"}\n", "line 1: not JSON"),
        ("a.jsonl", b'{"size": ' + b"9" * 400 + b', "frames": 1, "rmse": 1}\n', "column 'size', row 1"),
    ],
)
def test_damaged_tables_are_one_clear_line_that_names_the_file(tmp_path, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message) as error:
        read_points(path, COLUMNS)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_a_row_that_was_written_twice_counts_once(frame, tmp_path, suffix):
    once, twice = (
        frame.assign(note=None),
        pd.concat([frame, frame.iloc[[3, 7]], frame.iloc[[3]]]).assign(note=None),
    )
    (tmp_path / "once").mkdir()
    wanted = read_points(written(once, tmp_path / "once", suffix), COLUMNS).points
    found = read_points(written(twice, tmp_path, suffix), COLUMNS)
    assert found.n_copies == 3
    for name in ("n_params", "n_frames", "loss"):
        assert np.array_equal(getattr(found.points, name), getattr(wanted, name))


def test_seeds_stay_even_where_their_losses_agree(frame, tmp_path):
    seeds = pd.concat([frame.assign(seed=s) for s in (0, 1)])
    found = read_points(written(seeds, tmp_path, ".csv"), COLUMNS)
    assert (found.n_copies, len(found.points), found.points.n_cells) == (0, 32, 16)


def test_a_loss_that_differs_in_its_last_digit_is_another_run(frame, tmp_path):
    near = frame.assign(rmse=np.nextafter(frame["rmse"].to_numpy(), 1.0))
    assert read_points(written(pd.concat([frame, near]), tmp_path, ".parquet"), COLUMNS).n_copies == 0


def test_a_copy_is_known_whatever_its_running_number_and_its_way_to_write_a_number(tmp_path):
    (tmp_path / "a.csv").write_text(",size,frames,rmse\n0,1e4,50,0.5\n1,10000,50.0,0.50\n2,10000,50,0.6\n")
    found = read_points(tmp_path / "a.csv", COLUMNS)
    assert found.n_copies == 1 and found.points.loss.tolist() == [0.5, 0.6]


def test_copies_are_told_and_change_no_number_of_the_fit(frame, tmp_path):
    options = [
        "--n",
        "size",
        "--d",
        "frames",
        "--loss",
        "rmse",
        "--law",
        "n+d",
        "--bootstrap",
        "100",
        "--calibrate",
        "0",
    ]
    laws = []
    for name, table in (("once", frame), ("twice", pd.concat([frame, frame]))):
        (tmp_path / name).mkdir()
        result = run(written(table, tmp_path / name, ".csv"), *options, "--json", tmp_path / f"{name}.json")
        assert result.exit_code == 0, result.output
        assert ("16 rows equal earlier ones in every column" in result.output) == (name == "twice")
        found = json.loads((tmp_path / f"{name}.json").read_text())
        laws.append(found["laws"])
        assert (found["n_points"], found["n_copies"]) == (16, 16 if name == "twice" else 0)
    assert laws[0] == laws[1]


def run(*words):
    return CliRunner().invoke(app, ["fit", *map(str, words)])


def test_sapis_fit_writes_the_keys_that_readers_look_for(frame, tmp_path):
    path, out = written(frame, tmp_path, ".csv"), tmp_path / "out.json"
    columns = [path, "--n", "size", "--d", "frames", "--loss", "rmse"]
    result = run(*columns, "--law", "all", "--bootstrap", "100", "--calibrate", "0", "--json", out)
    assert result.exit_code == 0, result.output
    data = json.loads(out.read_text())
    assert data["n_points"] == 16
    assert set(data["laws"]) == {*LAWS, *TIED_LAWS, *FORMS}
    assert data["selected"] in data["laws"]
    assert not data["identifiability"]["n+d+nd+e"]["gamma"]["identified"]
    assert data["identifiability"]["n+d+nd+e"]["gamma"]["text"].startswith("γ not identified: [")
    for name, law in data["laws"].items():
        form = law_named(name)
        assert set(form.param_names) <= set(law["params"])
        for key in ("objective", "converged", "modes", "aicc"):
            assert law[key] is not None
        if name in LAWS:
            assert set(law["intervals"]) == set(form.param_names)
            assert law["loo"] is not None and law["bootstrap_intervals"] is not None
        predicted = form.predict(law["params"], frame["size"], frame["frames"])
        size = np.abs(np.log(predicted / frame["rmse"]))
        inside = np.minimum(size, law["robust_delta"])
        assert law["objective"] == pytest.approx((inside * (size - 0.5 * inside)).sum(), rel=1e-6)
    assert "?" in result.output and "not identified" in result.output


def test_a_fit_with_simulated_intervals_repeats_to_the_byte(frame, tmp_path):
    path = written(frame, tmp_path, ".csv")
    columns = [
        path,
        "--n",
        "size",
        "--d",
        "frames",
        "--loss",
        "rmse",
        "--law",
        "n+d,n+d+e",
        "--bootstrap",
        "100",
        "--calibrate",
        "39",
    ]
    for name in ("a.json", "b.json"):
        result = run(*columns, "--json", tmp_path / name)
        assert result.exit_code == 0, result.output
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_weights_groups_and_a_threshold_are_taken_from_the_options(frame, tmp_path):
    path, out = written(frame, tmp_path, ".csv"), tmp_path / "out.json"
    plain = [
        "--n",
        "size",
        "--d",
        "frames",
        "--loss",
        "rmse",
        "--law",
        "n+d,n+d+e:tied",
        "--bootstrap",
        "100",
        "--calibrate",
        "0",
    ]
    result = run(path, *plain, "--weight", "w", "--group", "run", "--robust", "0.01", "--json", out)
    assert result.exit_code == 0, result.output
    data = json.loads(out.read_text())
    assert list(data["laws"]) == ["n+d", "n+d+e:tied"]
    assert data["laws"]["n+d"]["robust_delta"] == 0.01
    assert data["laws"]["n+d"]["resampling"] == "clusters"
    assert "beta" not in data["laws"]["n+d+e:tied"]["params"]


def test_a_frontier_gives_a_law_of_compute(tmp_path):
    C = np.geomspace(1e15, 1e21, 12)
    noise = np.exp(0.005 * np.random.default_rng(0).standard_normal(12))
    pd.DataFrame({"flops": C, "loss": (40.0 * C**-0.12 + 0.05) * noise}).to_csv(
        tmp_path / "c.csv", index=False
    )
    out = tmp_path / "c.json"
    result = run(
        tmp_path / "c.csv", "--compute", "flops", "--loss", "loss", "--bootstrap", "100", "--json", out
    )
    assert result.exit_code == 0, result.output
    law = json.loads(out.read_text())["laws"]["c+e"]
    assert law["intervals"]["alpha"][0] < 0.12 < law["intervals"]["alpha"][1]


def test_a_column_of_epochs_gives_the_worth_of_repeats(tmp_path):
    from sapis_lab.analysis.repeats import effective_frames

    n, u, e = (a.ravel() for a in np.meshgrid([3e3, 3e4, 3e5], [50.0, 500.0, 5000.0], [1.0, 8.0, 64.0]))
    loss = LAWS["n+d"].predict(TRUTH, n, effective_frames(u, e, 6.0)) * np.exp(
        0.01 * np.random.default_rng(0).standard_normal(len(n))
    )
    pd.DataFrame({"n": n, "d": u, "e": e, "loss": loss}).to_csv(tmp_path / "r.csv", index=False)
    out = tmp_path / "r.json"
    words = [
        "--n",
        "n",
        "--d",
        "d",
        "--loss",
        "loss",
        "--epochs",
        "e",
        "--law",
        "n+d",
        "--bootstrap",
        "100",
        "--calibrate",
        "0",
    ]
    result = run(tmp_path / "r.csv", *words, "--json", out)
    assert result.exit_code == 0, result.output
    low, high = json.loads(out.read_text())["repeated"]["intervals"]["R_star"]
    assert low < 6.0 < high


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--n", "size", "--d", "frames"], "missing --loss"),
        (["--n", "size", "--d", "frames", "--loss", "rmse", "--law", "n+q"], r"law 'n\+q' is not known"),
        (["--n", "size", "--d", "frames", "--loss", "rmse", "--law", "c"], "is no law of N and D"),
        (["--n", "size", "--d", "frames", "--loss", "rmse", "--robust", "huber"], "--robust 'huber'"),
        (["--n", "size", "--d", "frames", "--loss", "rmse", "--resample", "pairs"], "--resample 'pairs'"),
        (
            ["--n", "size", "--d", "frames", "--loss", "rmse", "--json", "nowhere/x.json"],
            "there is no folder",
        ),
        (
            ["--n", "size", "--d", "frames", "--loss", "rmse", "--json", "/"],
            "--json /: wanted a file, got a folder",
        ),
        (["--n", "size", "--d", "frames", "--compute", "w", "--loss", "rmse"], "--compute stands instead"),
        (
            ["--n", "size", "--d", "w", "--loss", "rmse"],
            r"runs.csv: no law can be fitted: n\+d, n\+d\+e, n\+d\+nd, n\+d\+nd\+e and 40 more: needs at "
            "least 2 distinct D, got 1; more rows are needed, with other values in column 'w'$",
        ),
        (["--n", "size", "--d", "w", "--loss", "rmse", "--best-over", ", "], "--best-over: wanted names of"),
    ],
)
def test_bad_options_end_with_one_message(frame, tmp_path, words, message):
    path = written(frame, tmp_path, ".csv")
    with pytest.raises(ConfigError, match=message):
        CliRunner().invoke(app, ["fit", str(path), *words], catch_exceptions=False)


def test_options_of_a_table_are_refused_for_a_study():
    words = ["fit", "quickstart", "--drop-missing", "--sheet", "runs"]
    with pytest.raises(
        ConfigError, match="^--drop-missing, --sheet: of a table, got the study 'quickstart'$"
    ):
        CliRunner().invoke(app, words, catch_exceptions=False)


def test_a_line_that_holds_for_several_laws_is_one_line():
    lines = [("n+d", "minimum found"), ("n+d+e", "no interval"), ("n+d+nd", "minimum found")]
    assert together(lines) == ["n+d, n+d+nd: minimum found", "n+d+e: no interval"]


def test_a_table_of_compute_is_told_in_c(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("flops,loss\n1e15,1.1\n1e16,0.9\n1e17,0.62\n")
    options = ["--compute", "flops", "--loss", "loss", "--bootstrap", "0", "--calibrate", "0"]
    result = run(path, *options)
    assert result.exit_code == 0, result.output
    assert "3 distinct C for 2 parameters" in result.output and "largest C (1 point)" in result.output
    assert "n_params" not in result.output
    path.write_text("flops,loss\n1e15,1.1\n1e15,0.9\n")
    with pytest.raises(
        ConfigError, match=r"c, c\+e: needs at least 2 distinct C, got 1; .* in column 'flops'$"
    ):
        CliRunner().invoke(app, ["fit", str(path), *options], catch_exceptions=False)


def test_epochs_without_repeats_name_their_column(frame, tmp_path):
    path = written(frame.assign(e=1), tmp_path, ".csv")
    words = ["--n", "size", "--d", "frames", "--loss", "rmse", "--epochs", "e", "--law", "n+d"]
    with pytest.raises(ConfigError, match="runs.csv, column 'e': no point has more than one epoch"):
        CliRunner().invoke(
            app, ["fit", str(path), *words, "--bootstrap", "0", "--calibrate", "0"], catch_exceptions=False
        )
