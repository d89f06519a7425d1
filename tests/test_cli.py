"""The command line: what people type wrongly is answered with one clear message and exit status 2; help has
examples."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import typer

from sapis_lab import cli


@pytest.fixture
def inside(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., CompletedProcess[str]]:
    """Runs `sapis` in this process, which has imported everything already; the result looks like that of a
    process."""
    monkeypatch.chdir(project)

    def run(*arguments: str) -> CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["sapis", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as exit:
            code = int(exit.code or 0)
        out = capsys.readouterr()
        return CompletedProcess(arguments, code, out.out, out.err)

    return run


def commands(group: typer.main.TyperGroup, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [prefix]
    for name, command in getattr(group, "commands", {}).items():
        found += commands(command, (*prefix, name))
    return found


def command(path: tuple[str, ...]):
    found = typer.main.get_command(cli.app)
    for name in path:
        found = found.commands[name]
    return found


@pytest.mark.parametrize("path", commands(typer.main.get_command(cli.app)), ids=" ".join)
def test_every_command_has_help_with_an_example(path):
    assert "Example: `" in command(path).help


def test_help_is_shown(sapis):
    done = sapis("study", "run", "--help")
    assert done.returncode == 0
    for word in ("--set", "--only", "--retry-failed", "--workers", "--as", "Example"):
        assert word in done.stdout


def refused(done, *words: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_a_misspelt_key_in_a_study(project, sapis):
    path = project / "studies/quickstart.yaml"
    path.write_text(path.read_text().replace("n_frames:", "n_frame:"))
    refused(
        sapis("study", "run", "quickstart"),
        "studies/quickstart.yaml: lattice: unknown key 'n_frame'; did you mean 'n_frames'?",
    )
    assert not (project / "results").exists()


def test_a_size_below_the_smallest_model(project, sapis):
    done = sapis("study", "run", "quickstart", "--set", "lattice.n_params=[50,1e4]")
    refused(done, "n_params=50 cannot be met", "its smallest size is", "lattice.n_params")
    assert not (project / "results").exists()


def test_a_missing_data_folder(project, sapis):
    done = sapis("study", "run", "rmd17-ethanol", SAPIS_DATA=str(project / "nowhere"))
    refused(done, "SAPIS_DATA", "does not exist")
    assert not (project / "results").exists()


def test_more_frames_than_there_are(inside):
    refused(
        inside("study", "plan", "quickstart", "--set", "lattice.n_frames=[50,5000]"),
        "n_frames=5000 exceeds the 400 labelled training frames",
    )


def test_an_unknown_study(inside):
    refused(
        inside("study", "run", "quikstart"),
        "no study 'quikstart'",
        "did you mean 'quickstart'?",
        "rmd17-ethanol",
    )
    refused(inside("study", "status", "quikstart"), "did you mean 'quickstart'?")


def test_an_override_of_nothing(inside):
    refused(
        inside("study", "plan", "quickstart", "--set", "train.step=5"),
        "unknown key 'step'; did you mean 'steps'?",
    )
    refused(inside("study", "plan", "quickstart", "--set", "train.steps"), "wanted key=value")


def test_a_selection_of_nothing(inside):
    refused(inside("study", "plan", "quickstart", "--only", "geta-*"), "names no point")


def test_results_that_are_not_there(inside):
    refused(inside("fit", "quickstart"), "no results of 'quickstart'")
    refused(inside("fit", "../quickstart"), "cannot name a study")


def test_an_unknown_kind_or_data_set(inside):
    refused(inside("kinds", "models", "gaet"), "did you mean 'geat'?")
    refused(inside("data", "prepare", "ethanol"), "configs/data/ has no 'ethanol'")


def test_an_unknown_option_says_so(inside):
    done = inside("study", "run", "quickstart", "--retry-faild")
    assert done.returncode == 2 and "No such option" in done.stderr


def test_a_study_that_was_not_started_says_how_to(inside):
    done = inside("study", "status", "quickstart")
    assert done.returncode == 0 and "sapis study run quickstart" in done.stdout


def test_the_plan_shows_every_point(inside):
    done = inside("study", "plan", "quickstart", "--only", "n_frames=50")
    assert done.returncode == 0, done.stderr
    for word in ("geat-l2-n3.0e3-d50-s0", "transformer-n3.0e4-d50-s0", "total  6 points", "workers"):
        assert word in done.stdout


def test_what_there_is_can_be_listed(inside):
    assert "quickstart" in inside("study", "list").stdout
    assert "rmd17-ethanol" in inside("data", "list").stdout
    everything = inside("kinds").stdout
    assert all(kind in everything for kind in ("geat", "transformer", "extxyz", "xtb"))
    assert (
        "transformer" in inside("kinds", "models").stdout and "extxyz" not in inside("kinds", "models").stdout
    )
    assert "cutoff" in inside("kinds", "models", "geat").stdout


def test_a_broken_file_hides_no_other(project, inside):
    (project / "studies/broken.yaml").write_bytes(b"question: \xff\n")
    (project / "configs/data/broken.yaml").write_text("a: [\n")
    studies, data = inside("study", "list"), inside("data", "list")
    assert studies.returncode == data.returncode == 0
    assert "quickstart" in studies.stdout and "not UTF-8" in studies.stdout
    assert "rmd17-ethanol" in data.stdout and "not valid YAML" in " ".join(data.stdout.split())


def test_the_schema_is_json(inside):
    assert json.loads(inside("schema").stdout)["title"] == "Study"


def test_a_design_without_column_target_or_payable_run(inside, project):
    table = project / "runs.csv"
    rows = [f"{n:g},{d:g},{n**-0.2 + d**-0.3}" for n in (1e4, 2e4, 4e4) for d in (1e3, 2e3, 4e3)]
    table.write_text("\n".join(["n,d,loss", *rows]) + "\n")
    columns = ("--n", "n", "--d", "d", "--loss", "loss")
    target = ("--target", "n=1e6,d=1e5")
    done = inside("design", str(table), "--n", "n", "--d", "tokens", "--loss", "loss", *target)
    refused(done, "runs.csv: no column 'tokens' for D")
    refused(inside("design", str(table), *columns), "runs.csv: --target is missing")
    refused(inside("design", str(table), *columns, "--target", "n=1e6"), "--target 'n=1e6': got n")
    done = inside("design", str(table), *columns, *target, "--budget", "10")
    refused(done, "runs.csv: the cheapest of 25 possible runs costs 2.5e+06, more than --budget 10")
    done = inside("design", str(table), *columns, *target, "--price", "gpu hours")
    refused(done, "--price 'gpu hours'", "a formula of n and d")
    pool = project / "pool.csv"
    pool.write_text("n,d,cost\n1e5,1e4,3\n1e5,2e4,-1\n")
    done = inside("design", str(table), *columns, *target, "--pool", str(pool), "--price", "cost")
    refused(done, "pool.csv, column 'cost', row 2: got")


def test_a_design_names_runs_in_order_with_their_prices(inside, project):
    table = project / "runs.csv"
    rows = [f"{n:g},{d:g},{n**-0.2 + d**-0.3}" for n in (1e4, 2e4, 4e4) for d in (1e3, 2e3, 4e3)]
    table.write_text("\n".join(["n,d,loss", *rows]) + "\n")
    arguments = ("--n", "n", "--d", "d", "--loss", "loss", "--target", "n=1e6,d=1e5", "--json", "out.json")
    done = inside("design", str(table), *arguments, "--most", "3", "--price", "6*n*d")
    assert done.returncode == 0, done.stderr
    runs = json.loads((project / "out.json").read_text())["runs"]
    assert len(runs) == 3 and all(r["price"] == pytest.approx(6 * r["n"] * r["d"]) for r in runs)
    assert "95 % interval" in done.stdout
