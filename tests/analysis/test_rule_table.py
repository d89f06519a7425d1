"""Rules from any table: `sapis rule` finds known exponents, says what it cannot know, names every fault."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from sapis_lab.analysis.rule_coverage import TRUTH, World, simulate
from sapis_lab.analysis.rule_table import SweepColumns, fit_rule_table, read_sweep
from sapis_lab.cli import app
from sapis_lab.config import ConfigError
from sapis_lab.report.rules_text import print_rules
from sapis_lab.sweep.console import PlainConsole

COLUMNS = SweepColumns("N", "D", "lr", "loss")
OPTIONS = ["--n", "N", "--d", "D", "--lr", "lr", "--loss", "loss"]


def frame(world: World, seed: int = 0) -> pd.DataFrame:
    """A simulated sweep as a table; diverged runs have no loss."""
    rows = []
    for s in simulate(world, np.random.default_rng(seed)):
        for x, loss in [*zip(s.x, s.loss, strict=True), *((x, np.nan) for x in s.failed)]:
            rows.append({"N": s.n_params, "D": s.n_frames, "lr": np.exp(x[0]), "loss": loss})
            if len(x) == 2:
                rows[-1]["bs"] = np.exp(x[1])
    return pd.DataFrame(rows).assign(id=np.arange(len(rows)))


def written(table: pd.DataFrame, folder: Path) -> Path:
    path = folder / "sweep.csv"
    table.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def sweep() -> pd.DataFrame:
    return frame(World(side=3, rates=7, floor=0.5, noise=0.003))


def sapis(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["rule", *map(str, arguments)])
    if isinstance(done.exception, ConfigError):
        raise done.exception
    return done.exit_code, done.output


def test_a_known_rule_is_found_in_a_table(sweep: pd.DataFrame, tmp_path: Path) -> None:
    m = fit_rule_table(written(sweep, tmp_path), COLUMNS).models["all runs"]
    rule = m.rules["learning_rate"]
    for name, true in zip(("n_exponent", "d_exponent"), TRUTH["learning_rate"], strict=True):
        limits = rule.intervals[name]
        assert limits is not None and limits[0] < true < limits[1] and limits[1] - limits[0] < 0.1
    assert all(p is not None and 0 <= p < 0.01 for p in m.penalties)


def test_the_penalty_is_that_of_the_bowl_at_the_rule(sweep: pd.DataFrame, tmp_path: Path) -> None:
    m = fit_rule_table(written(sweep, tmp_path), COLUMNS).models["all runs"]
    assert m.bowls is not None
    rule, bowl, cell = m.rules["learning_rate"], m.bowls.bowls[4], m.sweeps[4]
    at = np.log(rule.at(cell.n_params, cell.n_frames))
    exact = np.expm1(bowl.log_loss(np.array([[at]]))[0] - bowl.bottom)
    assert m.penalties[4] == pytest.approx(exact, rel=0.2, abs=1e-7)


def test_diverged_runs_are_counted_and_no_part_of_a_bowl(sweep: pd.DataFrame, tmp_path: Path) -> None:
    words = ["", "nan", "inf", "Diverged", "failed"]
    broken = sweep["loss"].isna()
    assert broken.sum() > 0
    table = sweep.astype({"loss": object})
    table.loc[broken, "loss"] = [words[k % len(words)] for k in range(int(broken.sum()))]
    read = read_sweep(written(table, tmp_path), COLUMNS)
    assert read.n_diverged == broken.sum() and read.n_runs == len(sweep)
    assert sum(len(s.failed) for s in read.models["all runs"]) == broken.sum()


def test_rate_and_batch_size_have_a_rule_each(tmp_path: Path) -> None:
    table = frame(World(side=3, rates=5, batches=4, noise=0.003))
    columns = SweepColumns("N", "D", "lr", "loss", batch_size="bs")
    rules = fit_rule_table(written(table, tmp_path), columns).models["all runs"].rules
    for name, (of_n, of_d) in TRUTH.items():
        assert rules[name].n_exponent == pytest.approx(of_n, abs=0.06)
        assert rules[name].d_exponent == pytest.approx(of_d, abs=0.06)


def test_the_command_prints_cells_rules_and_predictions_and_writes_them(
    sweep: pd.DataFrame, tmp_path: Path
) -> None:
    path, out = written(pd.concat([sweep, sweep.tail(1)]), tmp_path), tmp_path / "rule.json"
    status, text = sapis(
        path, *OPTIONS, "--predict", "n=1e6,d=1e8", "--predict", "n=1e9,d=1e8", "--json", out,
        "--out", tmp_path / "figures",
    )  # fmt: skip
    assert status == 0 and "1 row equals" in text and "lambda" in text and "within the cells" in text
    plain = json.loads(out.read_text())
    assert plain["n_runs"] == len(sweep) and plain["n_copies"] == 1
    model = plain["models"]["all runs"]
    assert len(model["cells"]) == 9 and model["penalty"]["worst"] >= model["penalty"]["median"]
    near, far = model["predictions"]["learning_rate"]
    assert near["beyond"] == {"n_params": 1.0, "n_frames": 1.0}
    assert far["beyond"]["n_params"] == pytest.approx(1e9 / sweep["N"].max())
    assert near["interval"][0] < near["value"] < near["interval"][1]
    widths = [np.log(p["interval"][1] / p["interval"][0]) for p in (near, far)]
    assert widths[1] > 2 * widths[0]
    for name in ("rule.pdf", "rule.png", "bowls.pdf", "bowls.csv"):
        assert (tmp_path / "figures" / name).stat().st_size > 0


def test_models_have_rules_of_their_own(sweep: pd.DataFrame, tmp_path: Path) -> None:
    table = pd.concat([sweep.assign(model="a"), sweep.assign(model="b", lr=2 * sweep["lr"])])
    columns = SweepColumns("N", "D", "lr", "loss", model="model")
    models = fit_rule_table(written(table, tmp_path), columns).models
    a, b = (models[k].rules["learning_rate"].at(1e6, 1e8) for k in ("a", "b"))
    assert b / a == pytest.approx(2.0, rel=1e-3)


def test_an_exponent_of_one_size_is_not_identified_and_no_error(sweep: pd.DataFrame, tmp_path: Path) -> None:
    one = sweep[sweep["N"] == sweep["N"].median()]
    status, text = sapis(written(one, tmp_path), *OPTIONS)
    assert status == 0 and "lambda not identified: N did not vary" in text


def test_optima_at_the_edge_of_the_search_are_told(sweep: pd.DataFrame, tmp_path: Path) -> None:
    corner = (sweep["N"] == sweep["N"].min()) & (
        sweep["D"] == sweep["D"].max()
    )  # where the best rate is highest
    cut = sweep[~(corner & (sweep["lr"] > sweep[corner].set_index("lr")["loss"].idxmin() / 1.3))]
    status, text = sapis(written(cut, tmp_path), *OPTIONS)
    assert status == 0 and "edge of what was tried in 1 of 9 cells" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.rename(columns={"lr": "rate"}),
            "no column 'lr' for the rate; got the columns N, D",
        ),
        (lambda t: t.assign(lr=0.01), "column 'lr' has 1 different value among the finished runs, wanted at"),
        (lambda t: t.assign(loss=np.nan), "none of its 7 runs has a number in column 'loss'"),
        (
            lambda t: t.assign(loss=2.0),
            "column 'loss': the losses of all runs are alike within 0 in each of 9",
        ),
        (lambda t: t[t["lr"].isin(sorted(set(t["lr"]))[:2])], "wanted at least 3"),
        (
            lambda t: t.assign(lr=[-0.1, *t["lr"][1:]]),
            "column 'lr', row 1: got '-0.1', wanted a positive number",
        ),
        (
            lambda t: t.assign(loss=[1e250, *t["loss"][1:]]),
            r"column 'loss', row 1: got '1e\+250', wanted a number between 1e-100 and 1e\+100",
        ),
        (
            lambda t: t.assign(loss=5.0 * t["lr"] ** -0.5),
            r"column 'lr': in all 9 cells of all runs the best run lies at the edge of what was tried \(",
        ),
        (
            lambda t: t.assign(loss=["what", *t["loss"][1:]]),
            "column 'loss', row 1: got 'what', wanted a positive number",
        ),
        (
            lambda t: t.assign(loss=[-1.0, *t["loss"][1:]]),
            "column 'loss', row 1: got '-1.0', wanted a positive number",
        ),
        (
            lambda t: t.assign(lr=[0.0, *t["lr"][1:]]),
            "column 'lr', row 1: got '0.0', wanted a positive number",
        ),
        (lambda t: t.head(0), "the table has no rows"),
        (lambda t: t[np.isclose(t["N"] / 1e6, t["D"] / 1e8)], "N and D of the cells move together"),
    ],
)
def test_every_fault_of_a_table_is_named(sweep: pd.DataFrame, tmp_path: Path, change, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        sapis(written(change(sweep), tmp_path), *OPTIONS)
    assert "sweep.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--d", "N"], "column 'N': got it for N and for D, wanted a column for each"),
        (["--lr", "loss"], "column 'loss': got it for the rate and for the loss, wanted a column for each"),
        (["--batch", "lr"], "column 'lr': got it for the rate and for the batch size"),
        (["--by", "nothing"], "column 'nothing', row 1: got nothing, wanted a label"),
        (["--by", "model"], "no column 'model' for the models; got the columns N, D, lr"),
    ],
)
def test_columns_that_cannot_be_are_refused_by_their_name(
    sweep: pd.DataFrame, tmp_path: Path, options: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        sapis(written(sweep.assign(nothing=None), tmp_path), *OPTIONS, *options)


def test_a_rule_that_knows_nothing_of_a_size_says_so_where_it_is_asked_beyond_it(
    sweep: pd.DataFrame, tmp_path: Path
) -> None:
    one = sweep[sweep["N"] == sweep["N"].median()]
    status, text = sapis(written(one, tmp_path), *OPTIONS, "--predict", "n=1e12,d=1e9")
    assert status == 0 and "beyond the cells, which did not vary in them: the rule knows none" in text


def test_numbers_of_a_cell_are_never_cut_for_its_note(sweep: pd.DataFrame, tmp_path: Path) -> None:
    corner = (sweep["N"] == sweep["N"].min()) & (sweep["D"] == sweep["D"].max())
    cut = sweep[~(corner & (sweep["lr"] > sweep[corner].set_index("lr")["loss"].idxmin() / 1.3))]
    fits = fit_rule_table(written(cut, tmp_path), COLUMNS)
    page = io.StringIO()
    print_rules(fits, PlainConsole(file=page, width=80), predictions={})
    assert "…" not in page.getvalue()
    for o in fits.models["all runs"].rules["learning_rate"].optima:
        assert f"{o.low:.3g} to {o.high:.3g}" in page.getvalue()


@pytest.mark.parametrize("text", ["n=1e6", "n=1e6,d=0", "n=1e6,d=many", "1e6,1e8"])
def test_a_place_that_is_none_is_refused(sweep: pd.DataFrame, tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="--predict .*wanted"):
        sapis(written(sweep, tmp_path), *OPTIONS, "--predict", text)


def test_a_folder_of_something_else_and_the_table_itself_are_kept(
    sweep: pd.DataFrame, tmp_path: Path
) -> None:
    path = written(sweep, tmp_path)
    before = path.read_bytes()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="the folder holds notes.txt, which no rule has drawn"):
        sapis(path, *OPTIONS, "--out", tmp_path / "mine")
    own = tmp_path / "own" / "rule.csv"
    own.parent.mkdir()
    own.write_bytes(before)
    with pytest.raises(ConfigError, match=f"{own} lies there, is read here and could be lost"):
        sapis(own, *OPTIONS, "--out", own.parent)
    with pytest.raises(ConfigError, match=f"--json {path}: that file is read here and would be lost"):
        sapis(path, *OPTIONS, "--json", path)
    assert path.read_bytes() == own.read_bytes() == before
