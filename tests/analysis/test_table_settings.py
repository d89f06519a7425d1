"""Tables with several settings, seeds and models: which rows stay, and how many did not."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from sapis_lab.analysis.table import Columns, read_groups, read_points
from sapis_lab.cli import app
from sapis_lab.config import ConfigError

COLUMNS = Columns("N", "D", "loss", best_over=("lr",))
TABLE = """model,lmax,N,D,lr,seed,loss
tr,0,10,10,1e-3,0,5.0
geat,1,10,10,1e-3,0,1.0
geat,1,10,10,0.001,1,3.0
geat,1,10,10,1e-2,0,1.5
geat,1,10,10,1e-2,1,1.7
tr,0,10,10,1e-2,0,4.0
geat,1,20,10,1e-2,0,0.9
"""


def put(folder, text=TABLE):
    path = folder / "runs.csv"
    path.write_text(text)
    return path


def test_the_best_setting_is_that_of_the_smallest_mean_and_keeps_all_its_seeds(tmp_path):
    found = read_points(put(tmp_path), Columns("N", "D", "loss", by="model", best_over=("lr",)))
    # 1.0 is the smallest loss of geat, of the rate that is worse in the mean
    assert found.points.loss.tolist() == [1.5, 1.7, 4.0, 0.9]
    assert found.n_reduced == 3


def test_over_several_columns_a_setting_is_all_of_them(tmp_path):
    text = "N,D,lr,batch,loss\n1,1,1,1,4\n1,1,1,2,3\n1,1,2,1,2\n1,1,2,2,5\n1,1,2,1,2.5\n"
    found = read_points(put(tmp_path, text), Columns("N", "D", "loss", best_over=("lr", "batch")))
    assert (found.points.loss.tolist(), found.n_reduced) == ([2.0, 2.5], 3)


def test_epochs_are_no_setting_to_choose(tmp_path):
    text = "N,D,e,lr,loss\n1,1,1,1,4\n1,1,1,2,3\n1,1,2,1,2\n1,1,2,2,5\n"
    columns = Columns("N", "D", "loss", epochs="e", best_over=("lr",))
    found = read_points(put(tmp_path, text), columns)
    assert (found.points.loss.tolist(), found.epochs.tolist()) == ([3.0, 2.0], [1.0, 2.0])


def test_the_best_of_compute_alone(tmp_path):
    text = "C,lr,loss\n1,1,4\n1,2,3\n2,1,2\n"
    found = read_points(put(tmp_path, text), Columns("C", None, "loss", best_over=("lr",)))
    assert found.points.loss.tolist() == [3.0, 2.0]


def test_copies_are_no_seeds_of_a_setting(tmp_path):
    text = "N,D,lr,seed,loss\n1,1,1,0,1\n1,1,1,0,1\n1,1,1,1,4\n1,1,2,0,2.2\n1,1,2,1,2.2\n"
    found = read_points(put(tmp_path, text), COLUMNS)  # with the copy the first rate had a mean of 2
    assert (found.points.loss.tolist(), found.n_copies, found.n_reduced) == ([2.2, 2.2], 1, 2)


def test_rows_that_are_left_out_count_for_no_setting(tmp_path):
    text = "N,D,lr,loss\n1,1,1,2\n1,1,,\n1,1,2,\n1,2,2,\n1,3,2,1\n"
    found = read_points(put(tmp_path, text), COLUMNS, missing="drop")
    assert (found.points.loss.tolist(), found.n_dropped, found.n_reduced) == ([2.0, 1.0], 3, 0)


def test_the_smallest_of_many_seeds_would_be_too_low(tmp_path):
    rng = np.random.default_rng(0)
    rows = [(1, 1, lr, s, 1.0 + 0.1 * rng.standard_normal()) for lr in range(4) for s in range(8)]
    pd.DataFrame(rows, columns=["N", "D", "lr", "seed", "loss"]).to_csv(tmp_path / "a.csv", index=False)
    loss = read_points(tmp_path / "a.csv", COLUMNS).points.loss
    assert len(loss) == 8 and min(r[-1] for r in rows) < 0.85 < 0.9 < loss.mean() < 1.0


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            Columns("N", "D", "loss", best_over=("lr", "batch")),
            ": no column 'batch' for a setting; got the columns model, lmax, N, D, lr, seed, loss",
        ),
        (
            Columns("N", "D", "loss", best_over=("lr",), seed="seed"),
            ", column 'seed', row 2: got the seed of row 1, '0', with the same lr; name the column in which "
            "they "
            "differ as a setting, too",
        ),
        (
            Columns("N", "D", "loss", best_over=("lr", "loss")),
            ": column 'loss' is the loss and no setting of which the best can stay",
        ),
        (
            Columns("N", "D", "loss", by="modell"),
            ": no column 'modell' for the groups; got the columns model, lmax, N, D, lr, seed, loss; did "
            "you mean "
            "'model'?",
        ),
        (
            Columns("N", "D", "loss", by="model", against="seed"),
            ", column 'seed': got 0 in row 2 and 1 in row 3 for model 'geat', wanted one number for each "
            "value of "
            "column 'model'",
        ),
        (
            Columns("N", "D", "loss", by="lmax", against="model"),
            ", column 'model', row 1: got 'tr', wanted a number; 7 of 7 rows are like it",
        ),
    ],
)
def test_columns_that_do_not_serve_are_named(tmp_path, columns, message):
    path = put(tmp_path)
    with pytest.raises(ValueError) as error:
        (read_groups if columns.by else read_points)(path, columns)
    assert str(error.value) == f"{path}{message}"


def test_groups_come_in_the_order_of_the_table_with_their_numbers(tmp_path):
    columns = Columns("N", "D", "loss", by="model", against="lmax", best_over=("lr",))
    found = read_groups(put(tmp_path), columns)
    assert list(found) == ["tr", "geat"]
    assert [(t.points.loss.tolist(), t.against, t.n_reduced) for t in found.values()] == [
        ([4.0], 0.0, 1),
        ([1.5, 1.7, 0.9], 1.0, 2),
    ]


def test_groups_share_no_rows_and_lose_none(tmp_path):
    found = read_groups(put(tmp_path), Columns("N", "D", "loss", by="model"))
    whole = read_points(put(tmp_path), Columns("N", "D", "loss"))
    assert sum(len(t.points) for t in found.values()) == len(whole.points) == 7
    assert {t.sha256 for t in found.values()} == {whole.sha256}


def test_a_group_of_which_no_row_is_left_is_named(tmp_path):
    path = put(tmp_path, "model,N,D,loss\na,1,1,1\nb,1,1,\nb,2,1,\n")
    with pytest.raises(ValueError, match="column 'model': no row of 'b' has all numbers .*; 2 were left out"):
        read_groups(path, Columns("N", "D", "loss", by="model"), missing="drop")
    with pytest.raises(ValueError, match="groups of rows need the column that tells them apart"):
        read_groups(path, Columns("N", "D", "loss"))


def test_the_command_takes_the_best_settings_and_tells_what_was_left_out(tmp_path):
    n, d = (a.ravel() for a in np.meshgrid([1e3, 1e4, 1e5], [50.0, 500.0, 5000.0]))
    loss = (250 * n**-0.8 + 12 * d**-0.75) * np.exp(0.01 * np.random.default_rng(0).standard_normal(9))
    best = pd.DataFrame({"N": n, "D": d, "lr": 0.01, "loss": loss})
    rows = pd.concat([best, best.assign(lr=0.1, loss=2 * loss), best.iloc[:2].assign(loss=np.nan)])
    rows.to_csv(tmp_path / "runs.csv", index=False, sep=";", decimal=",")
    best.to_csv(tmp_path / "best.csv", index=False)
    words = ["--n", "N", "--d", "D", "--loss", "loss", "--law", "n+d", "--bootstrap", "0", "--calibrate", "0"]
    found = {}
    for name, options in (("runs", ["--best-over", "lr", "--drop-missing"]), ("best", [])):
        out = tmp_path / f"{name}.json"
        command = ["fit", str(tmp_path / f"{name}.csv"), *words, "--json", str(out), *options]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        found[name] = json.loads(out.read_text())
        told = (
            "2 rows have no number in a column that is needed, left out",
            "9 rows left out: for each N and D the best lr stays, by the mean loss over its seeds",
        )
        assert [line in result.output for line in told] == [bool(options)] * 2
    assert found["runs"]["laws"] == found["best"]["laws"]
    assert [found["runs"][key] for key in ("n_points", "n_dropped", "n_reduced")] == [9, 2, 9]


def test_what_is_true_of_every_group_is_said_once(tmp_path):
    n, d = (a.ravel() for a in np.meshgrid(np.geomspace(1e3, 1e5, 3), np.geomspace(1e2, 1e4, 3)))
    noise = np.exp(0.01 * np.random.default_rng(0).standard_normal((2, 9)))
    rows = [
        pd.DataFrame({"m": m, "N": n, "D": d, "lr": 0.1, "loss": (9 * n**-0.4 + 3 * d**-0.3) * noise[k]})
        for k, m in enumerate("ab")
    ]
    path = tmp_path / "runs.csv"
    pd.concat(rows).to_csv(path, index=False)
    words = [
        "--n",
        "N",
        "--d",
        "D",
        "--loss",
        "loss",
        "--by",
        "m",
        "--best-over",
        "lr",
        "--law",
        "n+d",
        "--bootstrap",
        "0",
        "--calibrate",
        "0",
    ]
    result = CliRunner().invoke(app, ["fit", str(path), *words])
    assert result.exit_code == 0, result.output
    assert "a, b: 0 rows left out" in result.output and result.output.count("rows left out") == 1


def test_no_output_takes_the_place_of_what_is_read(tmp_path):
    path, points = tmp_path / "runs.csv", tmp_path / "points.csv"
    path.write_text("N,D,loss\n1,1,1\n")
    points.write_text("n,d\n1,1\n")
    words = ["fit", str(path), "--n", "N", "--d", "D", "--loss", "loss", "--predict", str(points)]
    for read in (path, points):
        result = CliRunner().invoke(app, [*words, "--json", str(read)])
        assert isinstance(result.exception, ConfigError)
        assert (
            str(result.exception)
            == f"--json {read}: that file is read here and would be lost; name another one"
        )
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path)])
    assert isinstance(result.exception, ConfigError) and "the folder holds" in str(result.exception)
    design = ["design", str(path), "--n", "N", "--d", "D", "--loss", "loss", "--target", "n=1,d=1"]
    result = CliRunner().invoke(app, [*design, "--json", str(path)])
    assert isinstance(result.exception, ConfigError) and "would be lost" in str(result.exception)
    assert path.read_text() == "N,D,loss\n1,1,1\n"
